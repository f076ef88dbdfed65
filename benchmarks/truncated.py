"""Truncated EM beside dense EM: time, likelihood, and what is looked at, as components grow.

python -m benchmarks truncated speed       [--components 2000 --passes 12]
python -m benchmarks truncated components  [--counts 500 1000 2000 4000 8000]
python -m benchmarks truncated wide        [--rows 1000000 --components 10000]
python -m benchmarks truncated clusters    [--components 2000] [--generated]
python -m benchmarks truncated digits      [--seeds 10]
python -m benchmarks truncated break-even
"""

from __future__ import annotations

import argparse
import copy
import csv
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mogul
from mogul.algorithms import log_likelihoods, mean_log_likelihood
from mogul.data import ArraySource


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    runs: dict[str, Callable[[Any], None]] = {
        "speed": _speed, "components": _components, "wide": _wide, "digits": _digits,
        "break-even": _break_even, "clusters": _clusters,
    }  # fmt: skip
    parser.add_argument("what", choices=list(runs))
    parser.add_argument("--components", type=int)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000, 2000, 4000, 8000])
    parser.add_argument("--passes", type=int, default=12)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rank", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--neighbours", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--generated", action="store_true", help="rows × 32 instead of images")
    parser.add_argument("--curves", type=Path, help="where to write likelihoods and seconds")
    options = parser.parse_args()
    runs[options.what](options)


def _algorithm(options: Any, dense: bool | None = False) -> mogul.TruncatedEM:
    return mogul.TruncatedEM(options.candidates, options.neighbours, 1, dense=dense)


def _pictures(split: str) -> ArraySource:
    """Return MNIST and Fashion-MNIST together, in a random order."""
    parts = [mogul.open_source(name + split) for name in ("mnist", "fashion-mnist")]
    x = torch.cat([part.take(range(len(part))) for part in parts])
    return ArraySource(x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))])


def _started(source: ArraySource, k: int, rank: int, start: str) -> mogul.GaussianMixture:
    model = mogul.GaussianMixture(
        k, source.n_features, "factor-analysis", rank, variance_floor=1e-3
    )
    began = time.perf_counter()
    mogul.initialise(model, source, start)
    print(f"\n{k:,} components started by {start} in {time.perf_counter() - began:.1f} s\n")
    return model


def _curve(
    model: mogul.GaussianMixture,
    source: ArraySource,
    test: ArraySource,
    algorithm: Any,
    passes: int,
) -> list[dict[str, float]]:
    """Fit a copy, and return seconds so far and likelihoods after every pass."""
    model, found = copy.deepcopy(model), list[dict[str, float]]()

    def told(row: dict[str, Any]) -> None:
        found.append({
            "pass": row["pass"],
            "seconds": row["seconds"],
            "so far": sum(r["seconds"] for r in found) + row["seconds"],
            "train": row["objective"],
            "test": mean_log_likelihood(model(), test),
            "evaluations": row.get("evaluations", float(model.n_components)),
        })

    mogul.fit(model, source, algorithm, passes=passes, tolerance=0.0, callback=told)
    return found


def _speed(options: Any) -> None:
    """Print time per pass and likelihoods of both, from the same start."""
    source, test = _pictures(""), _pictures(":test")
    model = _started(source, options.components or 2000, options.rank, "truncated-k-means")
    curves = {
        "dense": _curve(model, source, test, mogul.EM(), options.passes),
        "truncated": _curve(model, source, test, _algorithm(options), 2 * options.passes),
    }
    _head("E-steps", "pass", "seconds", "seconds so far", "train (bound)", "test",
          "log-joints per row")  # fmt: skip
    for name, curve in curves.items():
        for row in curve:
            numbers = (f"{row[key]:.2f}" for key in ("seconds", "so far", "train", "test"))
            _row(name, f"{row['pass']:.0f}", *numbers, f"{row['evaluations']:.0f}")
    each = {n: statistics.median(r["seconds"] for r in c[1:]) for n, c in curves.items()}
    dense, truncated = curves["dense"], curves["truncated"]
    last = truncated[len(dense) - 1]["test"]
    print(f"\nmedian seconds per pass after the first: dense {each['dense']:.2f}, truncated "
          f"{each['truncated']:.2f}, ratio {each['dense'] / each['truncated']:.1f}")  # fmt: skip
    print(f"test log-likelihood after {len(dense)} passes: dense {dense[-1]['test']:.2f}, "
          f"truncated {last:.2f} ({100 * (last / dense[-1]['test'] - 1):+.2f} %)")  # fmt: skip
    for row in dense:
        reached = [r["test"] for r in truncated if r["so far"] <= row["so far"]]
        if reached:
            print(f"after {row['so far']:.0f} s: dense {row['test']:.2f}, truncated "
                  f"{reached[-1]:.2f}")  # fmt: skip
    if options.curves:
        with options.curves.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["steps", *dense[0]])
            writer.writeheader()
            writer.writerows({"steps": n, **row} for n, c in curves.items() for row in c)


def _components(options: Any) -> None:
    """Print what a pass costs against the number of components, at a fixed number of rows."""
    source = ArraySource(_generated(options.rows)) if options.generated else _pictures("")
    _head("components", "start, s", "first pass with warm-up, s", "seconds per pass",
          "log-joints per row", "at most C′G + E", "dense: seconds per pass",
          "free energy")  # fmt: skip
    for k in options.counts:
        model = mogul.GaussianMixture(
            k, source.n_features, "factor-analysis", options.rank, variance_floor=1e-3
        )
        began = time.perf_counter()
        mogul.initialise(model, source, "afk-mc2")
        start = time.perf_counter() - began
        dense = _seconds(model, source, mogul.EM(), 2 if k <= 2000 and not options.generated else 0)
        rows = mogul.fit(model, source, _algorithm(options), passes=7, tolerance=0.0).history
        each = statistics.median(row["seconds"] for row in rows[2:])
        _row(f"{k:,}", f"{start:.1f}", f"{rows[0]['seconds']:.1f}", f"{each:.2f}",
             f"{rows[-1]['evaluations']:.1f}", options.candidates * options.neighbours + 1,
             "" if dense is None else f"{dense:.2f}", f"{rows[-1]['free_energy']:.1f}")  # fmt: skip


def _seconds(model: Any, source: Any, algorithm: Any, passes: int) -> float | None:
    """Return seconds of the last of some passes of a copy."""
    if not passes:
        return None
    history = mogul.fit(
        copy.deepcopy(model), source, algorithm, passes=passes, tolerance=0.0
    ).history
    return history[-1]["seconds"]


def _wide(options: Any) -> None:
    """Fit many diagonal components to generated rows; compare with scikit-learn on a subset."""
    k = options.components or 10_000
    x, test = _generated(options.rows), _generated(50_000, seed=1)
    source, held_out = ArraySource(x), ArraySource(test)
    model = mogul.GaussianMixture(k, x.shape[1], "diagonal", variance_floor=1e-3)
    began = time.perf_counter()
    mogul.initialise(model, source, "truncated-k-means")
    start = time.perf_counter() - began
    fitted = mogul.fit(model, source, _algorithm(options), passes=options.passes, tolerance=0.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = fitted.history
    each = statistics.median(row["seconds"] for row in rows[1:])
    print(f"{len(x):,} × {x.shape[1]}, {k:,} diagonal components: start {start:.1f} s, first pass "
          f"{rows[0]['seconds']:.1f} s, then {each:.2f} s a pass, "
          f"{start + fitted.seconds:.0f} s in all; peak memory {peak:.2f} GB; test "
          f"log-likelihood {mean_log_likelihood(model(), held_out):.4f} nats\n")  # fmt: skip
    _subset(x[:100_000], test, options)


def _subset(x: Tensor, test: Tensor, options: Any) -> None:
    """Print what scikit-learn reaches from MiniBatchKMeans, and truncated EM, on fewer rows."""
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.mixture import GaussianMixture as Peer

    k, held_out = 1000, ArraySource(test)
    floor = 1e-3 * float(x.var(0).mean())
    _head("fit of 100,000 rows, 1,000 diagonal components", "seconds", "test log-likelihood")
    began = time.perf_counter()
    means = MiniBatchKMeans(k, n_init=1, random_state=0).fit(x.numpy())  # pyright: ignore
    labels = means.labels_
    variances = np.stack([x.numpy()[labels == c].var(0) + floor if (labels == c).sum() > 1
                          else x.numpy().var(0) for c in range(k)])  # fmt: skip
    weights = np.bincount(labels, minlength=k) + 1.0
    peer = Peer(
        k, covariance_type="diag", max_iter=options.passes, tol=0.0, reg_covar=floor,
        weights_init=weights / weights.sum(), means_init=means.cluster_centers_,
        precisions_init=1 / variances,
    )  # fmt: skip
    peer.fit(x.numpy())
    _row("scikit-learn: MiniBatchKMeans, dense EM", f"{time.perf_counter() - began:.1f}",
         f"{peer.score(test.numpy()):.4f}")  # fmt: skip
    for start in ("truncated-k-means", "afk-mc2"):
        model = mogul.GaussianMixture(k, x.shape[1], "diagonal", variance_floor=1e-3)
        began = time.perf_counter()
        mogul.initialise(model, ArraySource(x), start, sample_size=len(x))
        mogul.fit(model, ArraySource(x), _algorithm(options), passes=options.passes, tolerance=0.0)
        _row(f"mogul: {start}, truncated EM", f"{time.perf_counter() - began:.1f}",
             f"{mean_log_likelihood(model(), held_out):.4f}")  # fmt: skip


def _generated(n: int, seed: int = 0, k: int = 20_000, d: int = 32) -> Tensor:
    """Return rows of a mixture of diagonal Gaussians, twice as many as are fitted."""
    truth = torch.Generator().manual_seed(99)
    coarse = 6 * torch.randn(200, d, generator=truth)
    centres = coarse[torch.randint(200, (k,), generator=truth)] + 2 * torch.randn(
        k, d, generator=truth
    )
    scales = 0.3 + torch.rand(k, d, generator=truth)
    draw = torch.Generator().manual_seed(seed)
    which = torch.randint(k, (n,), generator=draw)
    return centres[which] + scales[which] * torch.randn(n, d, generator=draw)


def _digits(options: Any) -> None:
    """Print what both reach on digits with unit noise, over seeds."""
    from sklearn.datasets import load_digits

    _head("seed", "dense EM: log-likelihood", "truncated: free energy", "its log-likelihood",
          "difference")  # fmt: skip
    differences = []
    for seed in range(options.seeds):
        x = torch.from_numpy(load_digits().data).double()
        noise = torch.Generator().manual_seed(seed)
        source = ArraySource(x + torch.randn(x.shape, generator=noise, dtype=x.dtype))
        model = mogul.GaussianMixture(100, 64, "factor-analysis", 2, dtype=torch.float64,
                                      variance_floor=1e-2)  # fmt: skip
        mogul.initialise(model, source, seed=seed)
        other = copy.deepcopy(model)
        dense = mogul.fit(model, source, mogul.EM(), passes=100).history[-1]["objective"]
        algorithm = mogul.TruncatedEM(3, 15, 1, dense=False, seed=seed)
        found = mogul.fit(other, source, algorithm, passes=100).history[-1]
        differences.append(found["free_energy"] - dense)
        exact = float(log_likelihoods(other(), source).mean())
        _row(seed, f"{dense:.3f}", f"{found['free_energy']:.3f}", f"{exact:.3f}",
             f"{differences[-1]:+.3f}")  # fmt: skip
    print(f"\nmean difference {statistics.mean(differences):+.3f} nats, the largest "
          f"{max(map(abs, differences)):.3f}")  # fmt: skip


def _clusters(options: Any) -> None:
    """Print time and inertia of k-means, of this library and of scikit-learn, on the same rows."""
    from sklearn.cluster import KMeans as Peer
    from sklearn.cluster import MiniBatchKMeans

    from mogul.algorithms.afk_mc2 import afk_mc2
    from mogul.sklearn import KMeans

    k, tol = options.components or 2000, 1e-3
    source = ArraySource(_generated(options.rows)) if options.generated else _pictures("")
    x = source.take(range(len(source)))
    x -= x.mean(0)

    def peer() -> Any:
        seeds = afk_mc2(x, k, 0).numpy()
        return Peer(k, init=seeds, n_init=1, max_iter=50, tol=1e-4).fit(x.numpy())  # pyright: ignore

    fits: dict[str, Callable[[], Any]] = {
        "mogul: truncated": lambda: KMeans(
            k, algorithm="truncated", max_iter=50, tol=tol, random_state=0
        ).fit(x),
        "mogul: Lloyd from greedy k-means++": lambda: KMeans(
            k, max_iter=50, tol=tol, random_state=0
        ).fit(x),
        "scikit-learn: KMeans from AFK-MC² seeds": peer,
        "scikit-learn: MiniBatchKMeans": lambda: MiniBatchKMeans(
            k, n_init=1, random_state=0
        ).fit(x.numpy()),
    }  # fmt: skip
    print(f"{len(x):,} × {x.shape[1]}, {k:,} clusters, {torch.get_num_threads()} threads\n")
    _head("k-means", "seconds", "iterations", "inertia", "against truncated")
    first = 0.0
    for name, made in fits.items():
        began = time.perf_counter()
        found = made()
        seconds = time.perf_counter() - began
        first = first or found.inertia_
        _row(name, f"{seconds:.1f}", found.n_iter_, f"{found.inertia_:,.0f}",
             f"{100 * (found.inertia_ / first - 1):+.2f} %")  # fmt: skip


def _break_even(options: Any) -> None:
    """Print from how many components on truncated E-steps are the faster."""
    looked_at = options.candidates * options.neighbours + 1
    _head("family", "features", "components", "dense, s", "truncated, s", "ratio",
          f"components / {looked_at}")  # fmt: skip
    for family, d, n in (("factor-analysis", 784, 40_000), ("factor-analysis", 64, 200_000),
                         ("diagonal", 32, 400_000), ("diagonal", 8, 400_000), ("full", 16, 200_000),
                         ("full", 64, 40_000), ("isotropic", 64, 200_000)):  # fmt: skip
        x = _generated(n, d=d, k=2000)
        for times in (2, 4, 8, 16, 32):
            k = times * looked_at
            rank = 5 if family == "factor-analysis" else None
            model = mogul.GaussianMixture(k, d, family, rank, variance_floor=1e-3)
            mogul.initialise(model, ArraySource(x), "random")
            seconds = [
                _seconds(model, ArraySource(x), algorithm, 3)
                for algorithm in (mogul.EM(), _algorithm(options))
            ]
            assert seconds[0] is not None
            assert seconds[1] is not None
            _row(family, d, k, f"{seconds[0]:.2f}", f"{seconds[1]:.2f}",
                 f"{seconds[0] / seconds[1]:.2f}", times)  # fmt: skip


def _head(*names: str) -> None:
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names), flush=True)


def _row(*cells: Any) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
