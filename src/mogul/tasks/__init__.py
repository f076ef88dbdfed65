"""What people do with a fitted density."""

from mogul.tasks.characteristic import ComponentPictures, characteristic
from mogul.tasks.inpaint import Inpainting, inpaint
from mogul.tasks.outliers import Outliers, find_outliers, percentile_of, training_quantiles
from mogul.tasks.reconstruct import reconstruct

__all__ = [
    "ComponentPictures",
    "Inpainting",
    "Outliers",
    "characteristic",
    "find_outliers",
    "inpaint",
    "percentile_of",
    "reconstruct",
    "training_quantiles",
]
