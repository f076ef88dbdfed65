"""Clustering of classic data: the model BIC chooses, and how it agrees with the known classes.

    OMP_NUM_THREADS=1 MOGUL_DATA=folder python benchmarks/clusters.py

(One thread each: on tables this small scikit-learn is slower with more; mogul fits candidates in
processes.)

Both libraries search the same space, 1 to 9 components and every covariance type of theirs, with
five starts each, and take the lowest BIC; mogul also searches factor analysers (1 or 2 factors).
Columns are standardised, so that one floor of variances suits both. ARI is the adjusted Rand index
against the known classes.
"""

from __future__ import annotations

import csv
import gzip
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn.mixture
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.metrics import adjusted_rand_score

from mogul.data import ArraySource
from mogul.evaluation import Selection, select

DATA = Path(os.environ.get("MOGUL_DATA", "."))
Table = tuple[np.ndarray, np.ndarray | None]


def tabular(name: str, columns: slice, labels: int | None) -> Table:
    """Read columns of a gzipped CSV file, and one column as labels."""
    with gzip.open(DATA / "tabular_r" / name, "rt") as file:
        rows = list(csv.reader(file))[1:]
    x = np.array([[float(v) for v in row[columns]] for row in rows])
    return x, None if labels is None else np.array([row[labels] for row in rows])


def gvhd(name: str) -> Table:
    """Read one of the flow cytometry samples."""
    with np.load(DATA / "gvhd_mclust" / "gvhd.npz") as file:
        return file[name].astype(float), None


SETS: dict[str, Callable[[], Table]] = {
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "faithful": lambda: tabular("datasets_faithful.csv.gz", slice(1, 3), None),
    "olive oil (regions)": lambda: tabular("dslabs_olive.csv.gz", slice(3, 11), 1),
    "GvHD positive": lambda: gvhd("GvHD_pos"),
    "GvHD control": lambda: gvhd("GvHD_control"),
}


def theirs(x: np.ndarray) -> tuple[str, float, np.ndarray]:
    """Return scikit-learn's choice by BIC: its name, its BIC and its labels."""
    best = None
    for kind in ("full", "tied", "diag", "spherical"):
        for k in range(1, 10):
            model = sklearn.mixture.GaussianMixture(
                k, covariance_type=kind, n_init=5, random_state=0, max_iter=300, tol=1e-5
            ).fit(x)
            if best is None or model.bic(x) < best[1]:
                best = (f"{kind}, {k}", float(model.bic(x)), model.predict(x))
    assert best is not None
    return best


def ours(x: np.ndarray, families: tuple[str, ...]) -> tuple[str, float, np.ndarray]:
    """Return mogul's choice by BIC among families."""
    found: Selection = select(ArraySource(x), families, range(1, 10), (1, 2), n_init=5, passes=300)
    best = found.candidates[0]
    rank = "" if best.rank is None else f"×{best.rank}"
    shared = "" if best.sharing == "own" else f" {best.sharing}"
    labels = found.model().responsibilities(torch.as_tensor(x)).argmax(-1).numpy()
    return f"{best.covariance}{shared}, {best.components}{rank}", best.criteria.bic, labels


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    columns = ["data", "n × D", "scikit-learn", "BIC", "ARI", "s", "mogul, the same families"]
    columns += ["BIC", "ARI", "s", "mogul, with factors", "BIC", "ARI", "s"]
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    same = ("full", "diagonal", "isotropic")
    searches = [theirs, lambda x: ours(x, same), lambda x: ours(x, (*same, "ppca", "mfa"))]
    for name, read in SETS.items():
        x, labels = read()
        x = (x - x.mean(0)) / x.std(0)
        cells = [name, f"{len(x)} × {x.shape[1]}"]
        for search in searches:
            since = time.perf_counter()
            chosen, bic, found = search(x)
            score = "–" if labels is None else f"{adjusted_rand_score(labels, found):.2f}"
            cells += [chosen, f"{bic:,.1f}", score, f"{time.perf_counter() - since:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
