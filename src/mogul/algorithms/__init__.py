"""How to fit: one loop, and algorithms that make one pass."""

from mogul.algorithms.base import Fit, StopReason, fit
from mogul.algorithms.batched import BatchedFit, fit_batched
from mogul.algorithms.em import EM
from mogul.algorithms.gradient import Gradient
from mogul.algorithms.initialise import initialise
from mogul.algorithms.scoring import default_batch_size, log_likelihoods, mean_log_likelihood
from mogul.algorithms.split_merge import Move, split_and_merge

__all__ = [
    "EM",
    "BatchedFit",
    "Fit",
    "Gradient",
    "Move",
    "StopReason",
    "default_batch_size",
    "fit",
    "fit_batched",
    "initialise",
    "log_likelihoods",
    "mean_log_likelihood",
    "split_and_merge",
]
