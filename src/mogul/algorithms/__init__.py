"""How to fit: one loop, and algorithms that make one pass."""

from mogul.algorithms.base import Fit, StopReason, fit, mean_log_likelihood
from mogul.algorithms.em import EM
from mogul.algorithms.initialise import initialise

__all__ = ["EM", "Fit", "StopReason", "fit", "initialise", "mean_log_likelihood"]
