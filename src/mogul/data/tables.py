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


def rows_of(table: Any, name: str) -> np.ndarray:
    """Return a table as rows (n, D): its columns, or the lists or bytes in its only one.

    Columns of float32 or less stay float32, others become float64; the values of lists and bytes
    stay as they are. Nulls become NaN.

    Args:
        table: an Arrow table.
        name: what to call it in errors.

    Raises:
        InputError: if a column holds no numbers, or a row has no list.
    """
    if table.num_columns == 1 and _holds_rows(table.schema.field(0).type):
        return _listed(table, name)
    if _same_floats(table):
        # One call, in which other threads run: laying out columns one by one waits for them.
        batch = table.combine_chunks().to_batches()[0]
        return batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    columns = [numbers(table.column(j), field.name) for j, field in enumerate(table.schema)]
    small = all(np.can_cast(column.dtype, np.float32) for column in columns)
    out = np.empty((table.num_rows, len(columns)), np.float32 if small else np.float64)
    for start in range(0, len(out), _STRIP):
        strip = out[start : start + _STRIP]
        for j, column in enumerate(columns):
            strip[:, j] = column[start : start + _STRIP]
    return out


def _same_floats(table: Any) -> bool:
    """Whether all columns are float32, or all float64, and there are rows."""
    import pyarrow

    kinds = {field.type for field in table.schema}
    return bool(table.num_rows) and kinds in ({pyarrow.float32()}, {pyarrow.float64()})


def _listed(table: Any, name: str) -> np.ndarray:
    """Return the lists or bytes in the only column of a table, (n, D).

    Raises:
        InputError: if a row has none.
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
        return held.reshape(len(values), width)
    return numbers(values.flatten(), field.name).reshape(len(values), -1)


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
