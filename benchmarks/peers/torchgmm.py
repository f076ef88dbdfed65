"""Claims about torchgmm."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.claims import (
    FULL,
    NO,
    PARTLY,
    Claim,
    Library,
    expect,
    gaps,
    nats,
    no_commands,
    not_far_from_zero,
    refused,
    rows,
)

X = torch.as_tensor(rows())
QUIET = {
    "enable_progress_bar": False,
    "logger": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "max_epochs": 20,
}


def fitted(x: Any = X, covariance: str = "full", **options: Any) -> Any:
    """Return a fitted mixture of two components."""
    from torchgmm.bayes import GaussianMixture

    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return GaussianMixture(
        2, covariance_type=covariance, trainer_params=dict(QUIET), **options
    ).fit(x)  # type: ignore[arg-type]


def score(model: Any, x: Any = X) -> str:
    """Write the mean log-likelihood."""
    return nats(-model.score(x))


def in_batches() -> str:
    """Fit a memory-mapped file in batches."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", rows())
        mapped = np.load(Path(folder) / "x.npy", mmap_mode="r")
        return f"a memory-mapped array in batches: {score(fitted(mapped, batch_size=100))}"


def some_gradients() -> str:
    """Ask a log-density for a gradient to the means."""
    module = fitted().model_
    module.means.requires_grad_(True)
    return expect(module(X)[1].requires_grad, True, "gradients to means, once asked for")


def files() -> str:
    """Look at what it saves."""
    with tempfile.TemporaryDirectory() as folder:
        fitted().save(Path(folder))
        names = sorted(path.name for path in Path(folder).iterdir())
    return expect("attributes.pickle" in names, True, f"save writes {', '.join(names)}")


LIBRARY = Library(
    "torchgmm",
    "torchgmm",
    "torchgmm",
    {
        "simple": Claim(
            FULL,
            lambda: ", ".join(f"{c} {score(fitted(X, c))}" for c in ("full", "diag", "spherical")),
        ),
        "tied": Claim(FULL, lambda: score(fitted(X, "tied"))),
        "em": Claim(FULL, lambda: score(fitted())),
        "gradient": Claim(
            PARTLY, some_gradients, "to tensors of its module that you set to require them"
        ),
        "missing": Claim(NO, lambda: refused(lambda: fitted(torch.as_tensor(gaps())))),
        "memory": Claim(FULL, in_batches),
        "processes": Claim(
            FULL, "0.1.4, README, GPU and Multi-Node training: by the Lightning trainer"
        ),
        "gpu": Claim(FULL, "0.1.4, README, GPU and Multi-Node training"),
        "far": Claim(NO, lambda: not_far_from_zero(lambda x: -fitted(x).score(x))),
        "files": Claim(NO, files),
        "cli": Claim(NO, lambda: no_commands("torchgmm")),
        "estimator": Claim(
            PARTLY,
            lambda: f"predict_proba {tuple(fitted().predict_proba(X).shape)}; clone {_clone()}",
            "`get_params`, but `clone` refuses it; `score` is minus ours",
        ),
    },
)


def _clone() -> str:
    from sklearn.base import clone

    return refused(lambda: clone(fitted()))
