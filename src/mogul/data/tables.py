"""Arrow tables as arrays of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mogul.errors import InputError

_STRIP = 4096  # rows whose columns are laid side by side at once, so that they stay in cache


def row_width(schema: Any, columns: Sequence[str]) -> int:
    """Return how many values a row has.

    Raises:
        InputError: if lists come beside other columns, or their length is not fixed.
    """
    import pyarrow.types as kinds

    listed = [name for name in columns if _holds_rows(schema.field(name).type)]
    if not listed:
        return len(columns)
    kind = schema.field(columns[0]).type
    if len(columns) == 1 and kinds.is_fixed_size_list(kind):
        return kind.list_size
    if len(columns) == 1 and kinds.is_fixed_size_binary(kind):
        return kind.byte_width
    raise InputError(
        f"Column {listed[0]} holds {schema.field(listed[0]).type}; a column of lists must be the "
        "only one, and its lists of one length (fixed_size_list)."
    )


def row_type(schemas: Sequence[Any], columns: Sequence[str], pixels: bool) -> type[np.generic]:
    """Return the type that holds the values of some columns in all files.

    Bytes of pixels stay what they are; numbers are float32 where that holds all values that their
    types can have, or these are float32, and otherwise float64.
    """
    kinds = {schema.field(name).type for schema in schemas for name in columns}
    values = {kind.value_type if hasattr(kind, "list_size") else kind for kind in kinds}
    if pixels:
        return np.uint8
    return np.float32 if all(_is_small(kind) for kind in values) else np.float64


def holds_bytes(schema: Any, columns: Sequence[str]) -> bool:
    """Whether columns hold bytes: as such, or as lists of 8-bit integers."""
    import pyarrow
    import pyarrow.types as kinds

    found = (schema.field(name).type for name in columns)
    return all(
        kinds.is_fixed_size_binary(kind) or getattr(kind, "value_type", kind) == pyarrow.uint8()
        for kind in found
    )


def _is_small(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_fixed_size_binary(kind):
        return True
    narrow = kinds.is_integer(kind) and kind.bit_width <= 16
    return narrow or kinds.is_float16(kind) or kinds.is_float32(kind)


def row_bytes(schema: Any, columns: Sequence[str]) -> int:
    """Return how many bytes a row has, taking eight where its type does not tell."""
    total = 0
    for name in columns:
        kind, times = schema.field(name).type, 1
        if hasattr(kind, "list_size"):
            kind, times = kind.value_type, kind.list_size
        try:
            total += times * max(1, kind.bit_width // 8)
        except ValueError:
            total += times * 8
    return total


def _holds_rows(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_nested(kind) or kinds.is_fixed_size_binary(kind)


def rows_of(table: Any, name: str, kind: type[np.generic]) -> np.ndarray:
    """Return a table as rows (n, D): its columns, or the lists or bytes in its only one.

    Nulls become NaN.

    Args:
        table: an Arrow table.
        name: what to call it in errors.
        kind: the type of the values; see `row_type`.

    Raises:
        InputError: if a column holds no numbers, or a row has no list, or no pixel.
    """
    if table.num_columns == 1 and _holds_rows(table.schema.field(0).type):
        return _listed(table, name, kind)
    if _are_of(table, kind):
        # One call, in which other threads run: laying out columns one by one waits for them.
        batch = table.combine_chunks().to_batches()[0]
        return batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    columns = [numbers(table.column(j), field.name) for j, field in enumerate(table.schema)]
    out = np.empty((table.num_rows, len(columns)), kind)
    for start in range(0, len(out), _STRIP):
        strip = out[start : start + _STRIP]
        for j, column in enumerate(columns):
            strip[:, j] = column[start : start + _STRIP]
    return out


def _are_of(table: Any, kind: type[np.generic]) -> bool:
    """Whether all columns have this type, and there are rows."""
    import pyarrow

    return bool(table.num_rows) and {f.type for f in table.schema} == {
        pyarrow.from_numpy_dtype(kind)
    }


def _listed(table: Any, name: str, kind: type[np.generic]) -> np.ndarray:
    """Return the lists or bytes in the only column of a table, (n, D).

    Raises:
        InputError: if a row has none, or pixels are missing.
    """
    import pyarrow
    import pyarrow.types as kinds

    field = table.schema.field(0)
    values = table.column(0).combine_chunks()
    if isinstance(values, pyarrow.ChunkedArray):
        values = pyarrow.concat_arrays(values.chunks)
    if values.null_count:
        raise InputError(f"{name}: column {field.name} has rows without a list.")
    if kinds.is_fixed_size_binary(field.type):
        width = field.type.byte_width
        start = values.offset * width
        held = np.frombuffer(values.buffers()[1], np.uint8, len(values) * width, start)
        return held.reshape(len(values), width).astype(kind, copy=False)
    flat = values.flatten()
    if kind is np.uint8 and flat.null_count:
        raise InputError(
            f"{name}: column {field.name} has images with missing pixels; leave them out."
        )
    return numbers(flat, field.name).reshape(len(values), -1).astype(kind, copy=False)


def numbers(values: Any, name: str) -> np.ndarray:
    """Return an Arrow array as numbers; nulls become NaN.

    Raises:
        InputError: if it holds something else.
    """
    import pyarrow.types as kinds

    kind = values.type
    if kinds.is_boolean(kind) or kinds.is_decimal(kind):
        values = values.cast("float64")
    elif not (kinds.is_integer(kind) or kinds.is_floating(kind)):
        raise InputError(
            f"Column {name} holds {kind}, not numbers; choose numeric columns (columns=, or "
            "--columns of the command)."
        )
    if getattr(values, "num_chunks", 0) == 1:
        values = values.chunk(0)  # is read in its place; several are copied
    if hasattr(values, "chunks"):
        return values.to_numpy()
    return values.to_numpy(zero_copy_only=False)
