"""What people do with a fitted density."""

from mogul.tasks.characteristic import ComponentPictures, characteristic
from mogul.tasks.denoise import (
    denoise_image,
    denoise_rows,
    of_centred_patches,
    one_gaussian,
)
from mogul.tasks.encode import Encoding, decode_rows, encode
from mogul.tasks.inpaint import Inpainting, inpaint
from mogul.tasks.inpaint_latent import LatentInpainting, inpaint_latent, posterior_samples
from mogul.tasks.nearest import nearest_rows
from mogul.tasks.outliers import (
    Outliers,
    find_outliers,
    percentile_of,
    rank_rows,
    rows_with_gaps,
    training_quantiles,
)
from mogul.tasks.reconstruct import reconstruct
from mogul.tasks.regress import Prediction, predict
from mogul.tasks.synthesis import SUMMARIES, interpolate, of_class, summarise

__all__ = [
    "SUMMARIES",
    "ComponentPictures",
    "Encoding",
    "Inpainting",
    "LatentInpainting",
    "Outliers",
    "Prediction",
    "characteristic",
    "decode_rows",
    "denoise_image",
    "denoise_rows",
    "encode",
    "find_outliers",
    "inpaint",
    "inpaint_latent",
    "interpolate",
    "nearest_rows",
    "of_centred_patches",
    "of_class",
    "one_gaussian",
    "percentile_of",
    "posterior_samples",
    "predict",
    "rank_rows",
    "reconstruct",
    "rows_with_gaps",
    "summarise",
    "training_quantiles",
]
