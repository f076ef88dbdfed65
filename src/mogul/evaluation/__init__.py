"""How good a density is, in figures."""

from mogul.evaluation.errors import inpainting_error, reconstruction_error
from mogul.evaluation.ndb import BinComparison, BinModel
from mogul.evaluation.selection import (
    Candidate,
    Criteria,
    Selection,
    information_criteria,
    prune_factors,
    select,
)
from mogul.evaluation.summary import Evaluation, bits_per_dim, evaluate

__all__ = [
    "BinComparison",
    "BinModel",
    "Candidate",
    "Criteria",
    "Evaluation",
    "Selection",
    "bits_per_dim",
    "evaluate",
    "information_criteria",
    "inpainting_error",
    "prune_factors",
    "reconstruction_error",
    "select",
]
