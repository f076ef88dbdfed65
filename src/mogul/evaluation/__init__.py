"""How good a density is, in figures."""

from mogul.evaluation.errors import inpainting_error, reconstruction_error
from mogul.evaluation.ndb import BinComparison, BinModel
from mogul.evaluation.summary import Evaluation, bits_per_dim, evaluate

__all__ = [
    "BinComparison",
    "BinModel",
    "Evaluation",
    "bits_per_dim",
    "evaluate",
    "inpainting_error",
    "reconstruction_error",
]
