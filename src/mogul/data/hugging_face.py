"""Data sets of the Hugging Face library, read as the Arrow tables that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mogul.data.images import decode_image
from mogul.data.tables import numbers, row_type, rows_of
from mogul.errors import InputError


def is_hugging_face(data: Any) -> bool:
    """Tell whether an object is a data set of that library, which is not imported for it."""
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "with_format")


def table_rows(
    table: Any, columns: Sequence[str] | None, image: Callable[[Image.Image], np.ndarray]
) -> np.ndarray:
    """Return a table as rows (n, *shape).

    Without `columns`, a column of images is taken by itself, labels beside it are left; otherwise
    all columns are.

    Args:
        table: an Arrow table.
        columns: names of the columns to read, or None.
        image: makes pixels of an image.

    Raises:
        InputError: if there are no such columns, or they hold no numbers.
    """
    names = table.column_names
    images = [n for n in names if _is_image(table.schema.field(n).type)]
    chosen = list(columns) if columns is not None else images[:1] or list(names)
    missing = [name for name in chosen if name not in names]
    if missing:
        raise InputError(
            f"The data set has no column {', '.join(missing)}; its columns are {', '.join(names)}."
        )
    kind = table.schema.field(chosen[0]).type
    if len(chosen) > 1 or not (_is_image(kind) or _is_list(kind)):
        wide = row_type([table.schema], chosen, pixels=False)
        return rows_of(table.select(chosen), "The data set", wide)
    values = table.column(chosen[0]).combine_chunks()
    if not _is_image(kind):
        return _nested(values, chosen[0])
    return np.stack([
        image(_opened(found, f"{number} of column {chosen[0]}"))
        for number, found in enumerate(values.to_pylist())
    ])


def _opened(value: dict[str, Any] | None, name: str) -> Image.Image:
    """Decode an image that is kept as bytes, or as a path.

    Raises:
        InputError: if it is missing or cannot be decoded.
    """
    if value is None:
        raise InputError(f"Image {name} is missing; filter such rows out.")
    content, path = value["bytes"], value["path"]
    return decode_image(
        lambda: Path(path).read_bytes() if content is None else content, lambda: name
    )


def _is_image(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}


def _is_list(kind: Any) -> bool:
    import pyarrow.types as kinds

    kind = getattr(kind, "storage_type", kind)
    return kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)


def _nested(values: Any, name: str) -> np.ndarray:
    """Return lists of lists as an array.

    Raises:
        InputError: if lists are missing, or differ in length.
    """
    import pyarrow
    from pyarrow import compute

    shape = [len(values)]
    if hasattr(values, "chunks"):
        values = pyarrow.concat_arrays(values.chunks)
    values = getattr(values, "storage", values)
    while _is_list(values.type):
        lengths = np.unique(compute.call_function("list_value_length", [values]))
        if values.null_count or len(lengths) > 1:
            raise InputError(
                f"Column {name} holds lists of {lengths[0]} to {lengths[-1]} values, or none; all "
                "must be of one length."
            )
        shape.append(int(lengths[0]))
        values = values.flatten()
    return numbers(values, name).reshape(shape)
