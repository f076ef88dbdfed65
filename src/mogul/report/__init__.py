"""Results as pictures and one self-contained page."""

from mogul.report.animation import contour_picture, to_animation
from mogul.report.autoencoder import write_autoencoder_report
from mogul.report.conditional import (
    ConditionalReport,
    density_picture,
    write_conditional_report,
)
from mogul.report.decoder import DecoderReport, write_decoder_report
from mogul.report.denoising import (
    DenoisedPicture,
    DenoisingReport,
    draw_psnr,
    write_denoising_report,
)
from mogul.report.figures import selection_lines
from mogul.report.html import ReportData, write_report
from mogul.report.layouts import components_picture, inpainting_picture, prior_picture
from mogul.report.pictures import stack_rows, tile, to_png
from mogul.report.tensorboard import TensorBoard

__all__ = [
    "ConditionalReport",
    "DecoderReport",
    "DenoisedPicture",
    "DenoisingReport",
    "ReportData",
    "TensorBoard",
    "components_picture",
    "contour_picture",
    "density_picture",
    "draw_psnr",
    "inpainting_picture",
    "prior_picture",
    "selection_lines",
    "stack_rows",
    "tile",
    "to_animation",
    "to_png",
    "write_autoencoder_report",
    "write_conditional_report",
    "write_decoder_report",
    "write_denoising_report",
    "write_report",
]
