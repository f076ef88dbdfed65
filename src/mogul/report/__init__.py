"""Results as pictures and one self-contained page."""

from mogul.report.html import ReportData, write_report
from mogul.report.layouts import components_picture, inpainting_picture
from mogul.report.pictures import stack_rows, tile, to_png

__all__ = [
    "ReportData",
    "components_picture",
    "inpainting_picture",
    "stack_rows",
    "tile",
    "to_png",
    "write_report",
]
