"""Results as pictures and one self-contained page."""

from mogul.report.html import ReportData, write_report
from mogul.report.pictures import stack_rows, stretch, tile, to_png

__all__ = ["ReportData", "stack_rows", "stretch", "tile", "to_png", "write_report"]
