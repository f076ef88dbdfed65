"""Loaders, data sets and iterators of other libraries, as sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from mogul.data.hugging_face import is_hugging_face, table_rows
from mogul.data.images import Size, changed, coloured, reshaped
from mogul.data.indexed import IndexedSource
from mogul.data.iterated import IteratedSource
from mogul.data.pixels import PixelScale
from mogul.data.streamed import StreamedSource
from mogul.errors import InputError

_BATCH = 1024  # rows read at once of a data set that comes row by row


@dataclass
class Items:
    """How items of a data set become rows.

    Args:
        columns: of items that are dicts, which values to take; default all.
        crop: height and width of a central crop of images.
        size: height and width to resize them to.
        colour: three channels, or grey; None does as the first image is.
    """

    columns: Sequence[str] | None = None
    crop: Size | None = None
    size: Size | None = None
    colour: bool | None = None

    def image(self, image: Image.Image) -> np.ndarray:
        """Return the pixels of an image."""
        image = coloured(image, self.colour)
        self.colour = image.mode == "RGB" if self.colour is None else self.colour
        return np.asarray(changed(image, lambda: "of the data set", self.crop, self.size))

    def row(self, item: Any) -> np.ndarray:
        """Return one item as an array of one row, (1, *shape)."""
        value = self._features(item)
        if isinstance(value, Image.Image):
            return self.image(value)[None]
        return self._shaped(np.atleast_1d(_array(value))[None])

    def rows(self, item: Any) -> np.ndarray:
        """Return a batch as rows (b, *shape); an image or a vector is one row."""
        if isinstance(item, list) and item and isinstance(item[0], tuple | dict | Image.Image):
            return np.concatenate([self.row(one) for one in item])  # rows that were not collated
        value = self._features(item)
        if isinstance(value, list) and value and isinstance(value[0], Image.Image):
            return np.concatenate([self.row(image) for image in value])
        if isinstance(value, Image.Image):
            return self.image(value)[None]
        array = _array(value)
        return self._shaped(array if array.ndim > 1 else np.atleast_1d(array)[None])

    def _shaped(self, rows: np.ndarray) -> np.ndarray:
        """Crop and resize.

        Raises:
            InputError: if these are not images.
        """
        if self.crop is None and self.size is None and self.colour is None:
            return rows
        if rows.dtype != np.uint8 or rows.ndim < 3 or self.colour is not None:
            raise InputError(
                f"Rows of shape {rows.shape[1:]} and type {rows.dtype} came; crop and size apply "
                "to 8-bit images (n, height, width[, 3]), and colour to PIL images only."
            )
        return reshaped(rows, self.crop, self.size)

    def _features(self, item: Any) -> Any:
        """Return the features of an item: the first of a tuple, the columns of a dict.

        Raises:
            InputError: if a dict has no such columns.
        """
        if isinstance(item, dict):
            names = list(item) if self.columns is None else list(self.columns)
            missing = [name for name in names if name not in item]
            if missing or not names:
                raise InputError(
                    f"The rows have no column {', '.join(missing)}; their columns are "
                    f"{', '.join(map(str, item))}."
                )
            if len(names) == 1:
                return item[names[0]]
            return np.stack([_column(item[name], name) for name in names], axis=-1)
        if self.columns is not None:
            raise InputError(
                f"columns names keys of rows that are dicts, but a {type(item).__name__} came; "
                "leave it out."
            )
        if isinstance(item, list | tuple) and item and not isinstance(item[0], float | int):
            return item[0]
        return item


def open_object(
    data: Any,
    items: Items,
    scale: Callable[[Any], PixelScale | None],
    limit: int | None,
    rows: int | None,
) -> StreamedSource:
    """Open a loader, a data set, an iterable or an iterator.

    Raises:
        InputError: if it is none of these, or is shuffled in a way that cannot be undone.
    """
    name = type(data).__name__
    if is_hugging_face(data):
        return _of_hugging_face(data, items, scale, limit, rows)
    if isinstance(data, DataLoader):
        data = _in_order(data)
        begin = partial(_batches, data, items.row if data.batch_sampler is None else items.rows)
        return IteratedSource(begin, scale, name, rows, limit)
    if hasattr(data, "toarray"):
        raise InputError(
            f"A {name} came, a sparse matrix; rows are dense here: give data.toarray(), or some of "
            "its columns."
        )
    several = isinstance(data, list | tuple) and bool(data) and np.ndim(data[0]) > 1
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not several:
        n = len(data) if limit is None else min(len(data), limit)
        read = partial(_read, data, items)
        try:
            first = read(range(min(n, 1))) if n else np.empty((0, 1))
        except (KeyError, IndexError, TypeError, NotImplementedError) as error:
            raise InputError(
                f"A {name} gives no row by the number 0 ({type(error).__name__}: {error}); give an "
                "array of numbers, one split of it, or an iterable of arrays of rows."
            ) from error
        return IndexedSource(read, n, scale(first), name, together=False)
    if not hasattr(data, "__iter__"):
        raise InputError(
            f"A {name} came as data; give an array, a path, a DataLoader, a data set, or an "
            "iterable of arrays of rows."
        )
    once = iter(data) is data
    begin = partial(_batches, data, items.rows)
    return IteratedSource(begin, scale, name, rows, limit, repeatable=not once)


def _of_hugging_face(
    data: Any,
    items: Items,
    scale: Callable[[Any], PixelScale | None],
    limit: int | None,
    rows: int | None,
) -> StreamedSource:
    tables = data.with_format("arrow")
    convert = partial(table_rows, columns=items.columns, image=items.image)
    if hasattr(data, "__len__"):
        n = len(data) if limit is None else min(len(data), limit)
        read = _Tables(tables, convert)
        first = read(range(min(n, 1))) if n else np.empty((0, 1))
        return IndexedSource(read, n, scale(first), type(data).__name__)
    begin = partial(_converted, tables, convert)
    return IteratedSource(begin, scale, type(data).__name__, rows, limit)


@dataclass
class _Tables:
    """Rows of a Hugging Face data set by number."""

    tables: Any
    convert: Callable[[Any], np.ndarray]

    def __call__(self, index: Any) -> np.ndarray:
        """Read rows, consecutive ones as a slice."""
        whole = isinstance(index, range)
        return self.convert(self.tables[slice(index.start, index.stop) if whole else list(index)])


def _converted(tables: Any, convert: Callable[[Any], np.ndarray]) -> Iterator[np.ndarray]:
    for table in tables.iter(batch_size=_BATCH):
        yield convert(table)


def _batches(data: Any, convert: Callable[[Any], np.ndarray]) -> Iterator[np.ndarray]:
    for item in data:
        yield convert(item)


def _read(data: Any, items: Items, index: Any) -> np.ndarray:
    """Read rows of a data set with random access.

    Raises:
        InputError: if they differ in shape.
    """
    index = list(index)
    fetch = getattr(data, "__getitems__", None)
    found = [data[i] for i in index] if fetch is None else fetch(index)
    rows = [items.row(item) for item in found]
    odd = next((i for i, row in zip(index, rows, strict=True) if row.shape != rows[0].shape), None)
    if odd is not None:
        raise InputError(
            f"Row {odd} of the data set has a shape unlike that of row {index[0]}; all must be of "
            "one shape: give a crop or a size."
        )
    return np.concatenate(rows)


def _in_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader that does not shuffle: rows have numbers, the same in every pass.

    Raises:
        InputError: if it draws some rows only, or by weights.
    """
    sampler = loader.sampler
    if isinstance(sampler, SequentialSampler) or isinstance(loader.dataset, IterableDataset):
        return loader
    if type(sampler) is not RandomSampler or loader.batch_size is None or sampler.replacement:
        raise InputError(
            f"The DataLoader draws rows by a {type(sampler).__name__}, so that they would differ "
            "from pass to pass; give one with shuffle=False, of a torch.utils.data.Subset if "
            "rows are to be chosen."
        )
    return DataLoader(
        loader.dataset,
        loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def _column(value: Any, name: str) -> np.ndarray:
    """Return a column of numbers, one to a row.

    Raises:
        InputError: if it holds more.
    """
    array = _array(value)
    if array.ndim > 1:
        raise InputError(
            f"Column {name} holds rows of shape {array.shape[1:]} beside others; choose it alone, "
            "or numbers: columns=."
        )
    return array


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)
