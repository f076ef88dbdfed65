"""Missing data: imputation of held-out cells, and a mixture of images trained on half the pixels.

    MOGUL_DATA=folder python benchmarks/missing.py tables
    MOGUL_DATA=folder python benchmarks/missing.py mnist

Tables have genuine gaps; a further tenth of the observed cells is hidden at random, imputed, and
compared: root mean squared error in standard deviations of the column, median over three maskings.
"""

from __future__ import annotations

import csv
import gzip
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.experimental import enable_iterative_imputer  # ruff: ignore[unused-import]
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from mogul import EM, GaussianMixture, fit, initialise, open_source
from mogul.algorithms import mean_log_likelihood
from mogul.data import ArraySource, PixelScale, hide_random
from mogul.evaluation import inpainting_error, select
from mogul.tasks import inpaint

DATA = Path(os.environ.get("MOGUL_DATA", "."))
MISSING = ("", "NA", "NaN")


def table(path: str, columns: list[str], most: int = 10_000) -> np.ndarray:
    """Read columns of a gzipped CSV file; at most so many rows, evenly spread."""
    with gzip.open(DATA / path, "rt") as file:
        rows = list(csv.DictReader(file))
    x = np.array([[np.nan if r[c] in MISSING else float(r[c]) for c in columns] for r in rows])
    return x[:: max(1, -(-len(x) // most))]


BFI = [f"{letter}{i}" for letter in "ACENO" for i in range(1, 6)]
TABLES: dict[str, Callable[[], np.ndarray]] = {
    "bfi": lambda: table("tabular_r/psych_bfi.csv.gz", BFI),
    "airquality": lambda: table(
        "tabular_r/datasets_airquality.csv.gz", ["Ozone", "Solar.R", "Wind", "Temp", "Month", "Day"]
    ),
    "penguins": lambda: table(
        "tabular_r/datasets_penguins.csv.gz", ["bill_len", "bill_dep", "flipper_len", "body_mass"]
    ),
    "Pima.tr2": lambda: table(
        "tabular_r/MASS_Pima.tr2.csv.gz", ["npreg", "glu", "bp", "skin", "bmi", "ped", "age"]
    ),
    "Beijing PM2.5": lambda: table(
        "beijing_pm25/PRSA_data_2010.1.1-2014.12.31.csv.gz",
        ["month", "hour", "pm2.5", "DEWP", "TEMP", "PRES", "Iws"],
    ),
}


def by_mixture(x: np.ndarray) -> np.ndarray:
    """Impute by the mixture of factor analysers that BIC chooses."""
    found = select(ArraySource(x), ("mfa",), (1, 2, 4), (1, 2, 4, 6), ("own",), n_init=1, passes=60)
    return inpaint(found.model(), torch.as_tensor(x)).mean.numpy()


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": SimpleImputer().fit_transform,
    "KNNImputer": KNNImputer().fit_transform,
    "IterativeImputer": IterativeImputer(max_iter=20, random_state=0).fit_transform,
    "mogul": by_mixture,
}


def tables() -> None:
    """Print the errors of imputing held-out cells."""
    warnings.simplefilter("ignore")
    print("| table | n × D | gaps | " + " | ".join(f"{m} (s)" for m in METHODS) + " |")
    print("|---" * (3 + len(METHODS)) + "|")
    for name, read in TABLES.items():
        x = read()
        x = (x - np.nanmean(x, 0)) / np.nanstd(x, 0)
        cells = [name, f"{len(x)} × {x.shape[1]}", f"{np.isnan(x).mean():.1%}"]
        for method in METHODS.values():
            errors, seconds = [], []
            for seed in range(3):
                hidden = (np.random.default_rng(seed).random(x.shape) < 0.1) & ~np.isnan(x)
                since = time.perf_counter()
                filled = method(np.where(hidden, np.nan, x))
                seconds.append(time.perf_counter() - since)
                errors.append(float(np.sqrt(np.square(filled - x)[hidden].mean())))
            cells.append(f"{statistics.median(errors):.3f} ({statistics.median(seconds):.1f})")
        print("| " + " | ".join(cells) + " |", flush=True)


def mnist() -> None:
    """Print what is lost when half of the training pixels are hidden."""
    train, test = open_source("mnist"), open_source("mnist:test")
    scale = train.scale
    assert isinstance(scale, PixelScale)
    pixels = train.take(range(len(train)))
    seen = hide_random(len(pixels), train.feature_shape, 0.5, seed=1)
    x = test.take(range(2000))
    shown = hide_random(len(x), test.feature_shape, 0.5, seed=2)
    mean_error = inpainting_error(x, pixels.mean(0).expand_as(x), shown)
    holed = torch.where(seen, pixels, torch.nan)
    nearest = {}
    for name, known in (("complete", pixels), ("half hidden", holed)):
        imputer = KNNImputer().fit(known[:5000].numpy())
        filled = torch.as_tensor(imputer.transform(torch.where(shown, x, torch.nan).numpy()))
        nearest[name] = inpainting_error(x, filled.to(x), shown)
    sources = {
        "complete": train,
        "half hidden": ArraySource(holed),
        "half hidden, filled by column means": ArraySource(
            torch.where(seen, pixels, holed.nanmean(0))
        ),
    }
    print(f"in-painting half of the pixels by the training mean: {mean_error:.4f}")
    for name, error in nearest.items():
        print(f"by KNNImputer on 5,000 training images, {name}: {error:.4f}")
    print("| model | training pixels | test nats | bits/dim | in-painting error | s/pass |")
    print("|---|---|---|---|---|---|")
    for family in ("ppca", "mfa"):
        for name, source in sources.items():
            model = GaussianMixture(30, 784, family, 6)
            initialise(model, source)
            fitted = fit(model, source, EM(), passes=12, tolerance=0.0)
            model.requires_grad_(False)
            reached = mean_log_likelihood(model(), test)
            error = inpainting_error(x, inpaint(model(), x, shown).mean, shown)
            seconds = statistics.median(row["seconds"] for row in fitted.history)
            bits = scale.bits_per_dim(reached, 784)
            cells = [family, name, f"{reached:,.1f}", f"{bits:.3f}", f"{error:.4f}"]
            print("| " + " | ".join([*cells, f"{seconds:.1f}"]) + " |", flush=True)


if __name__ == "__main__":
    {"tables": tables, "mnist": mnist}[sys.argv[1] if len(sys.argv) > 1 else "tables"]()
