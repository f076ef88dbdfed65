"""What the shell offers for values of arguments and options.

They are written out, because the registries they come from need torch, and nobody waits half a
second for a tab; the tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable

KINDS = (
    ("full", "gmm", "full-covariance"),
    ("diagonal", "diag"),
    ("isotropic", "spherical", "iso"),
    ("ppca", "mppca", "ppca-mixture"),
    ("factor-analysis", "fa", "mfa", "factor-analysis-mixture"),
)
FAMILIES = tuple(name for names in KINDS for name in names)
NETWORKS = ("decoder", "vae", "mdn")
MODELS = (*FAMILIES, *NETWORKS)
SHARINGS = ("own", "shared", "constant")
STARTS = ("k-means", "k-means++", "random", "afk-mc2", "truncated-k-means")
MIXTURE_ALGORITHMS = ("em", "online-em", "truncated-em")
PARTICLE_ALGORITHMS = ("pga", "pqn", "pmga", "soul", "short-run", "abp", "momentum", "coin")
PRESETS = (
    "mnist-small", "faces-small", "mnist-note", "celeba-note", "mnist-paper", "celeba-paper",
)  # fmt: skip
DECODERS = ("conv", "linear", "mlp")
LIKELIHOODS = ("gaussian", "bernoulli", "discretised-logistic")
MASKS = ("left", "right", "top", "bottom", "centre", "rectangle:", "random:", "nan")
DATA_SETS = ("digits", "mnist", "fashion-mnist", "celeba")
SPLITS = tuple(f"{name}:{split}" for name in DATA_SETS for split in ("train", "test"))


def offered(*values: str) -> Callable[[str], list[str]]:
    """Return what offers values that begin as typed; where none does, shells offer files."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete
