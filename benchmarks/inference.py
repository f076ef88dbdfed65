"""Using a fitted mixture: sampling, in-painting, scoring, and the k-means start.

MOGUL_DATA=folder python -m benchmarks inference [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from sklearn.cluster import MiniBatchKMeans

from benchmarks.mppca import images
from mogul import EM, GaussianMixture, fit, initialise
from mogul.algorithms.kmeans import kmeans
from mogul.data import ArraySource, hide_half, hide_random
from mogul.tasks import inpaint


def seconds(act: Callable[[], object]) -> float:
    """Return the median of five runs, after one that warms up."""
    act()
    taken = []
    for _ in range(5):
        since = time.perf_counter()
        act()
        taken.append(time.perf_counter() - since)
    return statistics.median(taken)


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    x = images("mnist", 60_000, 784)
    model, source = GaussianMixture(50, 784, "ppca", 6), ArraySource(x)
    initialise(model, source)
    fit(model, source, EM(), passes=5, tolerance=0.0)
    model.requires_grad_(False)
    mixture, few = model(), x[:1000]
    half, random = hide_half(1000, (28, 28), "right"), hide_random(1000, (28, 28), 0.5, seed=1)
    passes = fit(model, source, EM(), passes=4, tolerance=0.0).history
    figures = {
        "100,000 samples of 784": seconds(lambda: mixture.sample((100_000,), seed=0)),
        "1,000 images in-painted, right half": seconds(lambda: inpaint(mixture, few, half)),
        "1,000 images in-painted, a mask each": seconds(lambda: inpaint(mixture, few, random)),
        "60,000 images scored": seconds(lambda: mixture.log_prob(x)),
        "60,000 responsibilities": seconds(lambda: mixture.responsibilities(x)),
        "a pass of EM over 60,000": statistics.median(row["seconds"] for row in passes),
    }
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} s |")
    centred = x - x.mean(0)
    for seed in range(3):
        ours = kmeans(centred, 100, seed).inertia
        theirs = MiniBatchKMeans(100, n_init=1, random_state=seed, init="k-means++")
        other = theirs.fit(centred.numpy()).inertia_
        print(
            f"| k-means, K = 100, seed {seed}: inertia / MiniBatchKMeans's | {ours / other:.4f} |"
        )


if __name__ == "__main__":
    main()
