"""How to fit: one loop, and algorithms that make one pass."""

from mogul.algorithms.base import Fit, StopReason, fit
from mogul.algorithms.batched import BatchedFit, fit_batched
from mogul.algorithms.bounds import DIVERGENCES, EvidenceBound, ImportanceBound
from mogul.algorithms.em import EM
from mogul.algorithms.gradient import Gradient
from mogul.algorithms.initialise import initialise
from mogul.algorithms.online_em import OnlineEM
from mogul.algorithms.online_state import OnlineState
from mogul.algorithms.particle_algorithms import (
    PARTICLE_ALGORITHMS,
    PRESETS,
    Preset,
    abp,
    coin,
    momentum,
    pga,
    pmga,
    pqn,
    short_run,
    soul,
)
from mogul.algorithms.particles import Chain, Particles, estimated_seconds
from mogul.algorithms.scoring import (
    default_batch_size,
    log_likelihoods,
    mean_log_likelihood,
    sampled_log_likelihoods,
)
from mogul.algorithms.split_merge import Move, split_and_merge
from mogul.algorithms.supervised import Supervised
from mogul.algorithms.truncated_em import TruncatedEM
from mogul.algorithms.variational import Variational

__all__ = [
    "DIVERGENCES",
    "EM",
    "PARTICLE_ALGORITHMS",
    "PRESETS",
    "BatchedFit",
    "Chain",
    "EvidenceBound",
    "Fit",
    "Gradient",
    "ImportanceBound",
    "Move",
    "OnlineEM",
    "OnlineState",
    "Particles",
    "Preset",
    "StopReason",
    "Supervised",
    "TruncatedEM",
    "Variational",
    "abp",
    "coin",
    "default_batch_size",
    "estimated_seconds",
    "fit",
    "fit_batched",
    "initialise",
    "log_likelihoods",
    "mean_log_likelihood",
    "momentum",
    "pga",
    "pmga",
    "pqn",
    "sampled_log_likelihoods",
    "short_run",
    "soul",
    "split_and_merge",
]
