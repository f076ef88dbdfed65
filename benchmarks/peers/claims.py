"""Rows of the table of features, and what a claim about a library is made of."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

FULL, PARTLY, NO, UNCHECKED = "●", "◐", "–", "?"


class ClaimError(Exception):
    """A library did not do what the table says."""


@dataclass(frozen=True)
class Feature:
    """A row: `name` in the table, and `words` that names of such a thing would hold (a pattern).

    A library of which nothing is claimed for a row is said to lack it, and checked by that: no
    public module, class, function or parameter of it may match `words`.
    """

    name: str
    words: str
    in_short: str = ""  # its name in the short table, if it is there


@dataclass(frozen=True)
class Claim:
    """A cell: its mark, and a snippet that returns what it saw, or the place in the documents.

    `note` says what is partly so, for the reader of the table.
    """

    mark: str
    evidence: Callable[[], object] | str
    note: str = ""


@dataclass(frozen=True)
class Library:
    """A column: claims by row, the modules to look through, the distribution that holds them."""

    name: str
    package: str
    distribution: str
    claims: dict[str, Claim]
    modules: tuple[str, ...] = field(default=())

    @property
    def version(self) -> str | None:
        """The version installed, or None."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            if importlib.util.find_spec(self.package) is None:
                return None
            return getattr(importlib.import_module(self.package), "__version__", "")

    def mark(self, feature: str) -> str:
        """The mark in the table."""
        return self.claims[feature].mark if feature in self.claims else NO

    def check(self, feature: str, words: str) -> str:
        """Check a claim; return what was seen.

        Raises:
            ClaimError: if it does not hold.
        """
        claim = self.claims.get(feature)
        if claim is None:
            return nameless(self.modules or (self.package,), words)
        if isinstance(claim.evidence, str):
            return f"by its documents: {claim.evidence}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                seen = claim.evidence()
            except Exception as fault:
                raise ClaimError(f"{type(fault).__name__}: {fault}") from fault
        return f"run: {seen}"


FEATURES = {
    "simple": Feature(
        "full, diagonal, isotropic covariances", "covariance_type", "full, diagonal, isotropic"
    ),
    "tied": Feature("a covariance shared by all components", r"\btied|shared_cov"),
    "ppca": Feature("mixtures of PPCA", "ppca"),
    "mfa": Feature("mixtures of factor analysers", r"mfa\b|factor_?anal", "PPCA, factor analysers"),
    "em": Feature("EM", r"\bem\b|e_step|expectation_max"),
    "online": Feature(
        "online EM, batch by batch", r"partial_fit|online_|stochastic_em", "online EM"
    ),
    "truncated": Feature("truncated EM for thousands of components", "truncated_?em|candidates"),
    "gradient": Feature("gradients to all parameters; a layer of a network", "^rsample"),
    "bayes": Feature(
        "Bayesian mixtures that find their number of components",
        "bayesian_?(gaussian_?)?mixture|gibbs|dirichlet_process",
    ),
    "prior": Feature("conjugate priors (MAP)", "mean_prior|conjugate"),
    "weights": Feature("weights of rows", "sample_weight"),
    "missing": Feature(
        "fits rows with gaps (NaN), nothing imputed", "missing", "fits rows with gaps"
    ),
    "impute": Feature("fills gaps in, with their uncertainty", "imput(e|ation)|inpaint"),
    "conditional": Feature(
        "conditionals and marginals on any features",
        r"\bmarginal\b|\bcondition\b",
        "conditionals, marginals",
    ),
    "selection": Feature("chooses components and covariance", r"\bbic\b|model_selection"),
    "batched": Feature("many mixtures, or starts, fitted in one batch", "batched_fit|fit_batched"),
    "memory": Feature(
        "data larger than memory", "out_of_core|memmap|stream", "data larger than memory"
    ),
    "processes": Feature(
        "one fit by several processes", "world_size|ddp|distributed|torchrun", "several processes"
    ),
    "gpu": Feature("GPU", "cuda|accelerator"),
    "far": Feature("float32 data far from zero", "recenter|reference_point"),
    "seed": Feature("a seed of its own; global generators untouched", "random_state|seed"),
    "resume": Feature("an interrupted fit goes on to the same result", "resume"),
    "mdn": Feature(
        "mixture density networks",
        r"\bmdn\b|mixture_?density|quantile_loss",
        "mixture density networks",
    ),
    "vae": Feature(
        "autoencoders with a mixture or VampPrior prior", "vamp", "VAE, mixture or VampPrior"
    ),
    "vaes": Feature(
        "other autoencoders (β-TC, Wasserstein, VQ, hyperbolic, …)", "vq_?vae|wae|tc_?vae"
    ),
    "particles": Feature(
        "decoders without an encoder, trained by particles", "particle", "particle-trained decoders"
    ),
    "flows": Feature(
        "normalising flows", r"\bmaf\b|normali[sz]ing_?flow|spline_flow", "normalising flows"
    ),
    "others": Feature(
        "components other than Gaussians", "student_?t|poisson|von_?mises", "other distributions"
    ),
    "graphs": Feature(
        "hidden Markov models, Bayesian networks",
        r"\bhmm\b|hidden_?markov|bayesian_?network",
        "HMMs, Bayesian networks",
    ),
    "inpaint": Feature("in-painting of images", "inpaint|conditional_reconstruct"),
    "outliers": Feature(
        "outliers: a threshold, or a noise component", "outlier|novelty|noise_proba"
    ),
    "quality": Feature(
        "quality of samples: NDB, Fréchet distance, precision and recall",
        r"\bndb\b|frechet|\bfid\b",
    ),
    "files": Feature("model files that run no code when loaded", "safetensors|weights_only"),
    "cli": Feature("command line", r"\bcli\b|__main__", "command line"),
    "report": Feature("report of a fit as a page", "html_report|report_html"),
    "explorer": Feature(
        "a fitted model explored in a browser", "explorer|dashboard", "explorer in a browser"
    ),
    "estimator": Feature("scikit-learn's estimator interface", "get_params"),
}


def rows(n: int = 600, seed: int = 0) -> np.ndarray:
    """Rows (n, 3) of two Gaussians, float32."""
    draw = np.random.default_rng(seed).normal(size=(n, 3))
    draw[n // 2 :] += 4
    return draw.astype("float32")


def gaps(n: int = 600) -> np.ndarray:
    """The same, every fifth row without its second value."""
    x = rows(n)
    x[::5, 1] = np.nan
    return x


def nats(value: object) -> str:
    """Write a mean log-likelihood.

    Raises:
        ClaimError: if it is none.
    """
    number = float(value)  # type: ignore[arg-type]
    if not np.isfinite(number):
        raise ClaimError(f"the log-likelihood is {number}")
    return f"{number:.4f} nats"


def refused(call: Callable[[], object]) -> str:
    """Return how a library declined.

    Raises:
        ClaimError: if it did not.
    """
    try:
        got = call()
    except Exception as fault:
        said = (str(fault).splitlines() or [""])[0][:90]
        return f"refused, {type(fault).__name__}: {said}".rstrip(": ")
    raise ClaimError(f"it was not refused, but gave {got}")


def far_from_zero(score: Callable[[torch.Tensor], float], bound: float = 1e-3) -> str:
    """Fit two components of float32 rows about 100,000; compare with float64 about zero.

    `score` fits and returns the mean log-likelihood.

    Raises:
        ClaimError: if it is off by more than the bound.
    """
    from sklearn.mixture import GaussianMixture

    x = torch.as_tensor(rows(2000).astype("float64") * [1, 1.2, 1.5] + 1e5).float()
    moved = x.double().numpy() - 1e5
    truth = GaussianMixture(2, random_state=0, tol=1e-8).fit(moved).score(moved)
    off = float(score(x)) - truth
    if not abs(off) < bound:
        raise ClaimError(f"{off:+.4f} nats from float64")
    return f"{off:+.6f} nats from float64"


def not_far_from_zero(score: Callable[[torch.Tensor], float]) -> str:
    """Return how far off a library is there.

    Raises:
        ClaimError: if it is not off.
    """
    try:
        seen = far_from_zero(score)
    except Exception as fault:
        return str(fault).splitlines()[0][:110]
    raise ClaimError(f"float32 far from zero is fine: {seen}")


def seeded(fit: Callable[[], torch.Tensor]) -> tuple[bool, bool]:
    """Whether two fits agree to the bit, and whether global generators stayed as they were."""
    torch.manual_seed(5)
    legacy = np.random.mtrand._rand.get_state()  # numpy's global generator
    before = torch.get_rng_state(), legacy[1].copy()
    first, second = fit(), fit()
    after = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1]
    kept = torch.equal(before[0], after[0]) and bool((before[1] == after[1]).all())
    return torch.equal(torch.as_tensor(first), torch.as_tensor(second)), kept


def no_commands(distribution: str) -> str:
    """See that a distribution installs no command.

    Raises:
        ClaimError: if it does.
    """
    found = [e.name for e in metadata.distribution(distribution).entry_points]
    if found:
        raise ClaimError(f"it installs {found}")
    return "its distribution has no entry points"


class _Bomb:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def runs_code(load: Callable[[str], object]) -> bool:
    """Whether a library runs code that a model file holds: one that makes a folder."""
    with tempfile.TemporaryDirectory() as folder:
        made, file = Path(folder) / "made", Path(folder) / "model.pt"
        torch.save({"weights_": _Bomb(made)}, file)
        with contextlib.suppress(Exception):
            load(str(file))
        return made.exists()


def expect(found: object, wanted: object, what: str) -> str:
    """Return `what`, if it was found.

    Raises:
        ClaimError: if it was not.
    """
    if found != wanted:
        raise ClaimError(f"{what}: expected {wanted}, found {found}")
    return what


@cache
def names(module: str) -> frozenset[str]:
    """Public names below a module: modules, classes, functions, and their parameters."""
    found: set[str] = set()
    pending = [module]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while pending:
            name = pending.pop()
            if any(part.startswith("_") or "test" in part for part in name.split(".")):
                continue
            try:
                here = importlib.import_module(name)
            except Exception:  # an optional part that is not installed
                continue
            found.add(name.rsplit(".", 1)[-1])
            found |= {n for _, value in inspect.getmembers(here) for n in _of(value, module)}
            pending += [
                m.name for m in pkgutil.iter_modules(getattr(here, "__path__", []), f"{name}.")
            ]
    return frozenset(found)


def _of(value: object, module: str) -> set[str]:
    """Names of a class or a function of a package, its methods and their parameters."""
    if not (getattr(value, "__module__", None) or "").startswith(module.split(".", maxsplit=1)[0]):
        return set()
    if inspect.isclass(value):
        return {value.__name__}.union(
            *(
                {n} | (set(inspect.signature(m).parameters) if inspect.isfunction(m) else set())
                for n, m in vars(value).items()
                if n == "__init__" or not n.startswith("_")
            )
        )
    if inspect.isfunction(value):
        return {value.__name__, *inspect.signature(value).parameters}
    return set()


def nameless(modules: tuple[str, ...], words: str) -> str:
    """Look for a thing by its names.

    Raises:
        ClaimError: if there is a name like it.
    """
    every = frozenset().union(*(names(module) for module in modules))
    like = sorted(n for n in every if re.search(words, n, re.IGNORECASE))
    if like:
        raise ClaimError(f"it has names like /{words}/: {', '.join(like[:5])}")
    return f"looked: no name like /{words}/ among its {len(every)} public names"
