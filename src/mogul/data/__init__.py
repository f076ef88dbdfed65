"""Where batches come from."""

from mogul.data.csv_files import is_csv
from mogul.data.datasets import (
    column_names,
    counterpart,
    holds_columns,
    open_labels,
    open_source,
    open_streaming,
)
from mogul.data.indexed import IndexedSource
from mogul.data.iterated import IteratedSource
from mogul.data.masks import hide_half, hide_random, hide_rectangle, parse_mask, read_mask
from mogul.data.patches import from_levels, random_patches, read_grey
from mogul.data.pixels import PixelScale
from mogul.data.resident import ResidentSource, resident
from mogul.data.sources import ArraySource, DataSource
from mogul.data.stores import write_store
from mogul.data.streams import ColumnarSource
from mogul.data.wild import WildColumn, wild_columns

__all__ = [
    "ArraySource",
    "ColumnarSource",
    "DataSource",
    "IndexedSource",
    "IteratedSource",
    "PixelScale",
    "ResidentSource",
    "WildColumn",
    "column_names",
    "counterpart",
    "from_levels",
    "hide_half",
    "hide_random",
    "hide_rectangle",
    "holds_columns",
    "is_csv",
    "open_labels",
    "open_source",
    "open_streaming",
    "parse_mask",
    "random_patches",
    "read_grey",
    "read_mask",
    "resident",
    "wild_columns",
    "write_store",
]
