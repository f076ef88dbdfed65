"""What people do with a fitted density."""

from mogul.tasks.characteristic import ComponentPictures, characteristic
from mogul.tasks.inpaint import Inpainting, inpaint
from mogul.tasks.outliers import Outliers, find_outliers, percentile_of, training_quantiles
from mogul.tasks.reconstruct import reconstruct
from mogul.tasks.regress import Prediction, predict

__all__ = [
    "ComponentPictures",
    "Inpainting",
    "Outliers",
    "Prediction",
    "characteristic",
    "find_outliers",
    "inpaint",
    "percentile_of",
    "predict",
    "reconstruct",
    "training_quantiles",
]
