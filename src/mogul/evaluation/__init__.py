"""How good a density is, in figures."""

from mogul.evaluation.annealed import (
    AnnealedLikelihood,
    BidirectionalBounds,
    annealed_likelihood,
    bidirectional_gap,
)
from mogul.evaluation.conditional import (
    ConditionalEvaluation,
    crps,
    energy_score,
    evaluate_conditional,
)
from mogul.evaluation.errors import (
    inpainting_error,
    peak_signal_to_noise,
    reconstruction_error,
)
from mogul.evaluation.features import (
    Classifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from mogul.evaluation.frechet import frechet_distance, kernel_distance, precision_recall
from mogul.evaluation.importance import (
    ImportanceEstimate,
    importance_log_likelihood,
)
from mogul.evaluation.latents import (
    LatentSummary,
    cluster_accuracy,
    normalised_mutual_information,
    purity,
    summarise_latents,
)
from mogul.evaluation.ndb import BinComparison, BinModel
from mogul.evaluation.plane import LatentPlane
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
    "AnnealedLikelihood",
    "BidirectionalBounds",
    "BinComparison",
    "BinModel",
    "Candidate",
    "Classifier",
    "ConditionalEvaluation",
    "Criteria",
    "Evaluation",
    "ImportanceEstimate",
    "LatentPlane",
    "LatentSummary",
    "Selection",
    "annealed_likelihood",
    "bidirectional_gap",
    "bits_per_dim",
    "cluster_accuracy",
    "crps",
    "energy_score",
    "evaluate",
    "evaluate_conditional",
    "frechet_distance",
    "importance_log_likelihood",
    "information_criteria",
    "inpainting_error",
    "kernel_distance",
    "load_classifier",
    "normalised_mutual_information",
    "peak_signal_to_noise",
    "precision_recall",
    "prune_factors",
    "purity",
    "reconstruction_error",
    "save_classifier",
    "select",
    "summarise_latents",
    "train_classifier",
]
