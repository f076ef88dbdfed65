"""Mixture density networks: a curve that folds back, and tables beside other methods.

    python -m benchmarks regression inverse [--seeds 10] [--picture FILE]
    MOGUL_DATA=folder python -m benchmarks regression table [--data boston …] [--methods mdn …]

`inverse` learns y from x = y + 0.3 sin 2πy + noise (Bishop 1994), and prints how many nats the
learned density stays below the true one, and at how many of the inputs all branches are found.
`table` splits data 90/10 at random and prints test log-likelihood, root mean squared error, CRPS
and the coverage of 90 % intervals: of mixture density networks of three Gaussians; of the same
network with one Gaussian of constant variance; and of scikit-learn's gradient boosting of quantiles
and Gaussian processes.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

NOISE = 0.05
UCI = {  # file, target, splits
    "boston": ("bostonHousing", 13, 10),
    "concrete": ("concrete", 8, 10),
    "energy": ("energy", 8, 10),
    "kin8nm": ("kin8nm", 8, 5),
    "naval": ("naval-propulsion-plant", 16, 3),
    "power-plant": ("power-plant", 4, 5),
    "protein": ("protein-tertiary-structure", 9, 3),
    "wine": ("wine-quality-red", 11, 10),
    "yacht": ("yacht", 6, 10),
}
CURVES = {  # file, input, target
    "faithful": ("datasets_faithful", "eruptions", "waiting"),
    "geyser": ("MASS_geyser", "waiting", "duration"),
    "mcycle": ("MASS_mcycle", "times", "accel"),
}
# Mean test log-likelihoods as published, on other random splits of the same size.
PUBLISHED = {
    "dropout (Gal & Ghahramani 2016)": {
        "boston": (-2.46, 2.97), "concrete": (-3.04, 5.23), "energy": (-1.99, 1.66),
        "kin8nm": (0.95, 0.10), "naval": (3.80, 0.01), "power-plant": (-2.80, 4.02),
        "protein": (-2.89, 4.36), "wine": (-0.93, 0.62), "yacht": (-1.55, 1.11),
    },
    "deep ensembles (Lakshminarayanan et al. 2017)": {
        "boston": (-2.41, 3.28), "concrete": (-3.06, 6.03), "energy": (-1.38, 2.09),
        "kin8nm": (1.20, 0.09), "naval": (5.63, 0.00), "power-plant": (-2.79, 4.11),
        "protein": (-2.83, 4.71), "wine": (-0.94, 0.64), "yacht": (-1.18, 1.58),
    },
    "mdn with noise (Rothfuss et al. 2019)": {
        "boston": (-2.49, math.nan), "concrete": (-2.92, math.nan), "energy": (-1.04, math.nan),
    },
}  # fmt: skip
MOST_GP = 1000  # rows of a Gaussian process
QUANTILES = 10  # of gradient boosting: 0.05, 0.15, …, 0.95

Figures = dict[str, float]


def fold(y: np.ndarray) -> np.ndarray:
    """Return x without noise."""
    return y + 0.3 * np.sin(2 * np.pi * y)


def folded(n: int, seed: int, uniform: bool = False) -> np.ndarray:
    """Return rows (x, y) of the inverse problem, (n, 2)."""
    random = np.random.default_rng(seed)
    y = random.uniform(0, 1, n)
    noise = random.uniform(-0.1, 0.1, n) if uniform else NOISE * random.normal(size=n)
    return np.stack([fold(y) + noise, y], 1)


def true_density(x: np.ndarray, y: np.ndarray, uniform: bool = False) -> np.ndarray:
    """Return log p(y | x), with p(x) by numerical integration."""
    grid = np.linspace(0, 1, 4001)

    def likelihood(x: np.ndarray, at: np.ndarray) -> np.ndarray:
        away = x - fold(at)
        if uniform:
            return (np.abs(away) <= 0.1) / 0.2
        return np.exp(-0.5 * (away / NOISE) ** 2) / (NOISE * math.sqrt(2 * math.pi))

    evidence = [np.trapezoid(likelihood(value, grid), grid) for value in x]
    return np.log(likelihood(x, y)) - np.log(np.array(evidence))


def branches(x: float) -> np.ndarray:
    """Return the y in (0, 1) that x folds back from, by the signs on a grid."""
    grid = np.linspace(0, 1, 20_001)
    signs = np.sign(fold(grid) - x)
    return grid[:-1][signs[:-1] != signs[1:]]


def inverse(chosen: Any) -> None:
    """Print how near learned densities come to the true one."""
    from mogul.sklearn import MixtureDensityRegressor

    test = folded(20_000, 10_000, chosen.uniform)
    best = float(true_density(test[:, 0], test[:, 1], chosen.uniform).mean())
    inputs = np.linspace(0.25, 0.75, 51)
    print(f"{chosen.rows:,} rows, {chosen.components} components; mean true log p(y|x) of 20,000 "
          f"test rows {best:.4f}\n")  # fmt: skip
    print("| seed | log p(y given x) | nats below the true one | inputs with all branches found | "
          "CRPS | 90 % coverage | s |\n|" + "---|" * 7)  # fmt: skip
    gaps, regressor = [], None
    for seed in range(chosen.seeds):
        rows = folded(chosen.rows, seed, chosen.uniform)
        since = time.perf_counter()
        regressor = MixtureDensityRegressor(
            chosen.components, batch_size=256, random_state=seed, hidden_layer_sizes=(64, 64)
        ).fit(rows[:, :1], rows[:, 1])
        seconds = time.perf_counter() - since
        reached = float(regressor.log_likelihood(test[:, :1], test[:, 1]).mean())
        found = sum(all_found(regressor, value) for value in inputs)
        score, coverage = scores_of(regressor.mixture(test[:5000, :1]), test[:5000, 1])
        gaps.append(best - reached)
        print(f"| {seed} | {reached:.4f} | {best - reached:.4f} | {found} of {len(inputs)} | "
              f"{score:.4f} | {coverage:.3f} | {seconds:.0f} |", flush=True)  # fmt: skip
    print(f"\nMedian {statistics.median(gaps):.4f}, worst {max(gaps):.4f} nats below the true one.")
    if chosen.picture is not None and regressor is not None:
        draw(regressor, test, chosen.picture)


def all_found(regressor: Any, x: float) -> bool:
    """Tell whether every branch at x has a mode within 0.1 of it."""
    from mogul.distributions import modes

    peaks = modes(regressor.mixture([[x]]))
    at = peaks.points[0, peaks.found[0], 0].numpy()
    return all(np.abs(at - branch).min() < 0.1 for branch in branches(x))


def draw(regressor: Any, test: np.ndarray, path: Path) -> None:
    """Draw data, the learned density and its modes, and the density at one input."""
    from matplotlib.figure import Figure

    from mogul.distributions import modes

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(*test[:1500].T, ".", markersize=2, alpha=0.5)
    left.set_title("data")
    x, y = np.linspace(-0.05, 1.05, 220), np.linspace(-0.1, 1.1, 240)
    mixture = regressor.mixture(x[:, None])
    up = torch.as_tensor(y).reshape(-1, 1, 1).expand(-1, len(x), 1)
    density = mixture.log_prob(up).exp().numpy()
    middle.pcolormesh(x, y, np.sqrt(density), cmap="Blues")
    peaks = modes(mixture)
    high = peaks.above(0.02)
    where = np.broadcast_to(x[:, None], high.shape)[high.numpy()]
    middle.plot(where, peaks.points[..., 0][high].numpy(), ".", color="C1", markersize=2)
    middle.set_title("learned density (root) and modes")
    at = 0.5
    learned = regressor.mixture([[at]]).log_prob(torch.as_tensor(y).reshape(-1, 1, 1)).exp()
    right.plot(y, learned[:, 0].numpy(), label="learned")
    inside = (y >= 0) & (y <= 1)
    true = np.where(inside, np.exp(true_density(np.full_like(y, at), y)), 0)
    right.plot(y, true, "--", color="C1", label="true")
    right.set_title("at x = 0.5")
    right.set_ylim(0, 3.6)
    right.legend(loc="upper left", ncols=2)
    for axes, names in ((left, "xy"), (middle, "xy"), (right, ("y", "p(y | x)"))):
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
    figure.savefig(path, dpi=130)


def scores_of(mixture: Any, y: np.ndarray) -> tuple[float, float]:
    """Return mean CRPS, and the coverage of central 90 % intervals."""
    from mogul.evaluation import crps

    targets = torch.as_tensor(y).to(mixture.dtype).reshape(-1, 1)
    pit = mixture.cdf(targets)
    return float(crps(mixture, targets).mean()), float(((pit - 0.5).abs() <= 0.45).double().mean())


def load(name: str) -> np.ndarray:
    """Return inputs and, last, the target."""
    root = Path(os.environ["MOGUL_DATA"])
    if name in CURVES:
        from mogul import open_source

        file, x, y = CURVES[name]
        source = open_source(root / "tabular_r" / f"{file}.csv.gz", columns=[x, y])
        return source.take(range(len(source)), torch.float64).numpy()
    file, target, _ = UCI[name]
    with gzip.open(root / "uci_regression" / f"{file}.txt.gz") as lines:
        rows = np.loadtxt(lines)
    inputs = rows[:, :16] if name == "naval" else np.delete(rows, target, 1)
    return np.hstack([inputs, rows[:, target : target + 1]])


def table(chosen: Any) -> None:
    """Print figures of every method on every data set."""
    print("| data | rows | splits | method | log-likelihood | RMSE | CRPS | 90 % coverage | "
          "s per fit |\n|" + "---|" * 9)  # fmt: skip
    for name in chosen.data:
        rows = load(name)
        n_splits = UCI[name][2] if name in UCI else 10
        for method in chosen.methods:
            found = []
            for split in range(n_splits):
                order = np.random.default_rng(split).permutation(len(rows))
                cut = round(0.9 * len(rows))
                found.append(METHODS[method](rows[order[:cut]], rows[order[cut:]], split))
            cells = [spread([f[key] for f in found]) for key in KEYS]
            seconds = statistics.median(f["seconds"] for f in found)
            print(f"| {name} | {len(rows):,} | {n_splits} | {method} | {' | '.join(cells)} | "
                  f"{seconds:.1f} |", flush=True)  # fmt: skip
        for source, values in PUBLISHED.items():
            if name in values and chosen.published:
                reached, rmse = values[name]
                known = "–" if math.isnan(rmse) else f"{rmse:.2f}"
                print(f"| {name} | {len(rows):,} | – | {source} | {reached:.2f} | {known} | – | – "
                      "| – |", flush=True)  # fmt: skip


KEYS = ("log_likelihood", "rmse", "crps", "coverage")


def spread(values: list[float]) -> str:
    """Return mean and standard error over splits, with three digits of the mean or more."""
    if any(math.isnan(v) for v in values):
        return "–"
    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    digits = max(0, 2 - math.floor(math.log10(max(abs(mean), 1e-9))))
    digits = min(max(digits, 2), 5)
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def of_mixture(mixture: Any, test: np.ndarray, seconds: float) -> Figures:
    """Return figures of predicted mixtures."""
    y = torch.as_tensor(test[:, -1:]).to(mixture.dtype)
    score, coverage = scores_of(mixture, test[:, -1])
    return {
        "log_likelihood": float(mixture.log_prob(y).double().mean()),
        "rmse": float((mixture.mean - y).square().mean().sqrt()),
        "crps": score, "coverage": coverage, "seconds": seconds,
    }  # fmt: skip


def network(train: np.ndarray, test: np.ndarray, seed: int) -> Figures:
    """A mixture density network of three Gaussians; large data take larger batches and steps."""
    from mogul.sklearn import MixtureDensityRegressor

    since, many = time.perf_counter(), len(train) >= 3000
    regressor = MixtureDensityRegressor(
        3, batch_size=256 if many else 64, learning_rate=4e-3 if many else 2e-3, random_state=seed
    ).fit(train[:, :-1], train[:, -1])
    return of_mixture(regressor.mixture(test[:, :-1]), test, time.perf_counter() - since)


def homoscedastic(train: np.ndarray, test: np.ndarray, seed: int) -> Figures:
    """The same network with one Gaussian, whose variance no input moves."""
    from mogul import fit, open_source
    from mogul.algorithms import Supervised
    from mogul.models import MLP, MixtureDensityNetwork

    since = time.perf_counter()
    torch.manual_seed(seed)
    model = MixtureDensityNetwork(MLP(train.shape[1] - 1), 1, 1, "isotropic", dtype=torch.float64)
    weight = model.head.linear.weight
    fixed = torch.ones_like(weight)
    fixed[2] = 0.0  # of log-weight, centre and log-noise, the last
    weight.register_hook(lambda gradient: gradient * fixed)
    many = len(train) >= 3000
    algorithm = Supervised(4e-3 if many else 2e-3, 256 if many else 64, seed=seed)
    with torch.no_grad():
        weight[2] = 0.0
    fit(model, open_source(train), algorithm, passes=1000)
    with torch.no_grad():
        mixture = model(test[:, :-1])
    return of_mixture(mixture, test, time.perf_counter() - since)


def boosting(train: np.ndarray, test: np.ndarray, seed: int) -> Figures:
    """Gradient boosting of ten quantiles; it has no density, and its mean is that of quantiles."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    since, y = time.perf_counter(), test[:, -1]
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    found = []
    for level in levels:
        model = HistGradientBoostingRegressor(
            loss="quantile", quantile=level, early_stopping=True, max_iter=500, random_state=seed
        )
        found.append(model.fit(train[:, :-1], train[:, -1]).predict(test[:, :-1]))
    quantiles = np.sort(np.stack(found, 1), 1)
    away = y[:, None] - quantiles
    pinball = np.maximum(levels * away, (levels - 1) * away)
    inside = (y >= quantiles[:, 0]) & (y <= quantiles[:, -1])
    return {
        "log_likelihood": math.nan, "crps": float(2 * pinball.mean()),
        "rmse": float(np.sqrt(np.mean((quantiles.mean(1) - y) ** 2))),
        "coverage": float(inside.mean()), "seconds": time.perf_counter() - since,
    }  # fmt: skip


def process(train: np.ndarray, test: np.ndarray, seed: int) -> Figures:
    """A Gaussian process with a length for every input, on at most 1,000 rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    from mogul import Mixture
    from mogul.distributions import Isotropic

    since = time.perf_counter()
    centre, unit = train.mean(0), train.std(0)
    unit[unit == 0] = 1.0
    some = ((train - centre) / unit)[:MOST_GP]
    kernel = ConstantKernel() * RBF(np.ones(train.shape[1] - 1), (1e-2, 1e3)) + WhiteKernel(
        0.1, (1e-8, 10)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel, random_state=seed).fit(some[:, :-1], some[:, -1])
    x = (test[:, :-1] - centre[:-1]) / unit[:-1]
    mean, deviation = model.predict(x, return_std=True)
    mean = torch.as_tensor(centre[-1] + unit[-1] * mean).reshape(-1, 1, 1)
    variance = torch.as_tensor((unit[-1] * deviation) ** 2).reshape(-1, 1)
    mixture = Mixture(torch.zeros(len(x), 1).double(), mean, Isotropic.of(variance, 1))
    return of_mixture(mixture, test, time.perf_counter() - since)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int], Figures]] = {
    "mdn": network, "homoscedastic": homoscedastic,
    "boosting": boosting, "gp": process,
}  # fmt: skip


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["inverse", "table"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=10_000, help="of the inverse problem")
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--uniform", action="store_true", help="noise in (−0.1, 0.1) in its place")
    parser.add_argument("--data", nargs="+", choices=[*UCI, *CURVES], default=[*UCI, *CURVES])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--published", action="store_true", help="print published figures too")
    parser.add_argument("--picture", type=Path, help="a PNG of the inverse problem")
    chosen = parser.parse_args()
    {"inverse": inverse, "table": table}[chosen.what](chosen)


if __name__ == "__main__":
    main()
