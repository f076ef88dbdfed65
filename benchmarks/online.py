"""Online EM against EM on images: likelihood after three passes, and seconds per pass.

    MOGUL_DATA=folder python -m benchmarks online [--threads 1] [--seeds 0 1 2]

All fits of a row begin at the same start, and likelihoods are means over all training images in
nats per image. "To EM after 3" is what online EM after three passes has more than three passes of
EM, "to EM after 30" what it has more than thirty. Figures are medians over the seeds of the start
and of the order of rows.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from mogul import EM, GaussianMixture, OnlineEM, fit, initialise, open_source
from mogul.algorithms import mean_log_likelihood

CASES = [("ppca", 20, 5), ("ppca", 50, 6), ("mfa", 20, 5)]
PASSES, LONG = 3, 30


def run(source: Any, family: str, k: int, rank: int, seed: int) -> dict[str, float]:
    """Fit from one start in both ways; return likelihoods and seconds per pass."""
    model = GaussianMixture(k, source.n_features, family, rank)
    initialise(model, source, seed=seed)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = fit(model, source, EM(), passes=LONG + 1, tolerance=0.0).history
    model.load_state_dict(start)
    online = fit(model, source, OnlineEM(seed=seed), passes=PASSES).history
    return {
        "start": batch[0]["log_likelihood"],
        "short": batch[PASSES]["log_likelihood"],
        "long": batch[LONG]["log_likelihood"],
        "online": mean_log_likelihood(model(), source),
        "batch_seconds": statistics.median(row["seconds"] for row in batch),
        "online_seconds": statistics.median(row["seconds"] for row in online),
    }


def table(source: Any, seeds: Sequence[int]) -> None:
    """Print one row for every case."""
    print(
        "| model | start | EM, 3 passes | EM, 30 | online, 3 | to EM after 3 | to EM after 30 "
        "| s/pass EM | s/pass online | ratio |"
    )
    print("| --- " * 10 + "|")
    for family, k, rank in CASES:
        runs = [run(source, family, k, rank, seed) for seed in seeds]
        m = {name: statistics.median(r[name] for r in runs) for name in runs[0]}
        ahead = statistics.median(r["online"] - r["short"] for r in runs)
        lack = statistics.median(r["online"] - r["long"] for r in runs)
        ratio = statistics.median(r["online_seconds"] / r["batch_seconds"] for r in runs)
        print(
            f"| {family}, {k} × {rank} | {m['start']:.2f} | {m['short']:.2f} | {m['long']:.2f} "
            f"| {m['online']:.2f} | {ahead:+.2f} | {lack:+.2f} | {m['batch_seconds']:.2f} "
            f"| {m['online_seconds']:.2f} | {ratio:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    source = open_source("mnist")
    print(f"MNIST, {len(source):,} images, {given.threads} thread(s), {len(given.seeds)} seed(s)\n")
    table(source, given.seeds)


if __name__ == "__main__":
    main()
