"""What the layers may ask of each other: the only thing algorithms know of models and data."""

from mogul.protocols.data import Batch, Checkpoint, HeadedSource, Saved, Source
from mogul.protocols.densities import (
    Density,
    Expectation,
    HasGradient,
    HasLocalMoments,
    HasMoments,
    LearnsOnline,
    Scorer,
)
from mogul.protocols.networks import HasConditional, HasLogJoint, HasPosterior

__all__ = [
    "Batch",
    "Checkpoint",
    "Density",
    "Expectation",
    "HasConditional",
    "HasGradient",
    "HasLocalMoments",
    "HasLogJoint",
    "HasMoments",
    "HasPosterior",
    "HeadedSource",
    "LearnsOnline",
    "Saved",
    "Scorer",
    "Source",
]
