"""Open data by name or path, and again from the options a model file keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mogul.data.columnar import is_columnar
from mogul.data.csv_files import count_lines, csv_blocks, csv_header, is_csv, read_csv
from mogul.data.files import read_idx, read_npy, read_npz
from mogul.data.images import Encoded, Size, reshaped
from mogul.data.indexed import IndexedSource
from mogul.data.iterated import IteratedSource
from mogul.data.known import IDX, KNOWN, idx_file, of_digits
from mogul.data.members import holds_members, list_members
from mogul.data.objects import Items, open_object
from mogul.data.pixels import PixelScale
from mogul.data.sources import ArraySource, DataSource, check_array
from mogul.data.split import SPLITS, split_rows
from mogul.data.streams import ColumnarSource
from mogul.errors import InputError

_IN_MEMORY = 2**30  # bytes of images that are decoded once and held


def open_source(
    data: str | Path | np.ndarray | Tensor | Iterable[Any] | Any,
    *,
    crop: Size | None = None,
    size: Size | None = None,
    colour: bool | None = None,
    columns: Sequence[str] | Sequence[int] | None = None,
    dequantise: bool = True,
    binarise: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    rows: int | None = None,
    test_share: float | None = None,
    split: str = "train",
) -> DataSource:
    """Open data as a source of batches.

    Integer pixels become numbers in (0, 1); see `PixelScale`. Everything else passes as it is.

    Args:
        data: an array (n, D) or of images (n, height, width[, 3]); the path of a .npy, .npz, CSV,
            Parquet, Arrow, idx, zip or tar file, `shards-{000..012}.tar`, or a folder of images, of
            Parquet files or of tar files; or a known data set, `digits`, `mnist`,
            `fashion-mnist` or `celeba`, with `:train` (the default) or `:test` after it. All but
            digits are read from the folder that the environment variable MOGUL_DATA names.
            Or a torch DataLoader or map-style data set, a Hugging Face data set, or any iterable or
            iterator of arrays of rows (b, ...); features are the first of a tuple, or the `columns`
            of a dict. An iterator is read once only: the source is not `repeatable`.
            Images are held if they take up to 1 GB decoded, and else decoded in every pass.
        crop: height and width of a central crop of images, in files or arrays of 8-bit pixels.
        size: height and width to resize them to, after the crop.
        columns: names of the columns of a CSV file to read, in this order, or their numbers, from
            zero, in an array (n, D) of a file; default all.
        colour: decode image files in colour or grey; None does as the first image is.
        dequantise: add uniform noise to integer pixels, so that densities bound probabilities;
            data that are not integer pixels pass as they are either way.
        binarise: "static": every pixel is 0 or 1, drawn once with its share of the full level as
            probability; "dynamic": it is that probability, for a fit that draws anew in every pass
            (`Variational(binarise=True)`). In the place of dequantisation.
        limit: take the first rows only.
        seed: seed of the noise.
        rows: how many rows an iterable has that does not tell.
        test_share: share of the rows, drawn at random under the seed, that are left to tests; of
            arrays, CSV files and images. The rows of a split are held in memory.
        split: with `test_share`, "train" for the other rows, or "test" for these.

    Returns:
        the source; its `options` open the same data again.

    Raises:
        InputError: if the data cannot be read, are empty, not numeric, 1-D, or have a column
            without any value, or are to be binarised and are not integer pixels.
    """
    return open_streaming(
        data, _IN_MEMORY, crop=crop, size=size, colour=colour, columns=columns,
        dequantise=dequantise, binarise=binarise, limit=limit, seed=seed, rows=rows,
        test_share=test_share, split=split,
    )  # fmt: skip


def open_streaming(
    data: Any,
    in_memory: int = 0,
    *,
    crop: Size | None = None,
    size: Size | None = None,
    colour: bool | None = None,
    columns: Sequence[str] | Sequence[int] | None = None,
    dequantise: bool = True,
    binarise: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    rows: int | None = None,
    test_share: float | None = None,
    split: str = "train",
) -> DataSource:
    """Open data as `open_source` does, but hold nothing of files that is larger than `in_memory`.

    Args:
        data: as of `open_source`; so are all other arguments but one.
        in_memory: bytes of decoded images up to which they are decoded once and held; if zero, CSV
            files are not held either.
        crop: see there.
        size: see there.
        colour: see there.
        columns: see there.
        dequantise: see there.
        binarise: see there.
        limit: see there.
        seed: see there.
        rows: see there.
        test_share: see there.
        split: see there.

    Raises:
        InputError: as `open_source` does.
    """
    if limit is not None and limit < 1:
        raise InputError(f"The limit is {limit} rows; it must be at least 1.")
    if columns is not None:
        columns = _names(columns, of_file=isinstance(data, str | Path))

    def scale(first: Any) -> PixelScale | None:
        return PixelScale(256, dequantise, seed) if _holds_pixels(first) else None

    options: dict[str, Any] = {}
    picture_options = {"crop": crop, "size": size, "colour": colour}
    levels = 256
    if isinstance(data, str | Path):
        name = str(data)
        if holds_columns(Path(name)):
            path = Path(name)
            _refuse_to_split(name, test_share)
            return _columnar(path, columns, picture_options, binarise, dequantise, limit, seed)
        options = {"data": _lasting(name), "dequantise": dequantise, "limit": limit, "seed": seed}
        if is_csv(name) and Path(name).exists():
            columns = csv_header(Path(name)) if columns is None else columns
        if columns is not None:
            options["columns"] = list(columns)
        options |= {k: v for k, v in picture_options.items() if v is not None}
        if test_share is not None:
            options |= {"test_share": test_share, "split": split}
        if in_memory == 0 and test_share is None and is_csv(name) and Path(name).exists():
            return _csv(Path(name), columns, picture_options, limit, options)
        array, levels = _read(name, picture_options, columns)
    elif isinstance(data, np.ndarray | Tensor):
        name, array = "array", data
    elif hasattr(data, "columns") and hasattr(data, "to_numpy"):
        name, array = "data frame", _of_frame(data, columns)
        columns = [str(name) for name in (data.columns if columns is None else columns)]
    else:
        if binarise is not None:
            raise InputError("binarise applies to arrays and files; write the rows to a file.")
        _refuse_to_split(type(data).__name__, test_share)
        return open_object(data, Items(columns, crop, size, colour), scale, limit, rows)
    if not isinstance(array, Encoded):
        check_array(array, name)
    array = array[:limit]
    numbers = None
    if test_share is not None:
        numbers = split_rows(len(array), test_share, split, seed, name)
        array = array[numbers]
    if isinstance(array, Encoded):
        if array.nbytes > in_memory:
            streamed = _encoded(array, name, binarise, PixelScale(256, dequantise, seed), options)
            streamed.numbers = numbers
            return streamed
        array = array.decoded()
    if binarise is not None:
        options["binarise"] = binarise
        return _binary(array, levels, binarise, seed, name, options)
    found = PixelScale(levels, dequantise, seed) if _holds_pixels(array) else None
    source = ArraySource(array, scale=found, name=name, options=options)
    source.columns = None if columns is None else list(columns)
    source.numbers = numbers
    return source


def _refuse_to_split(name: str, share: float | None) -> None:
    """Refuse to split rows that are streamed.

    Raises:
        InputError: if a share of them is for tests.
    """
    if share is not None:
        raise InputError(
            f"{name}: rows that are streamed are not split; put those for tests in a file of their "
            "own, or give an array, a CSV file or images."
        )


def _encoded(
    rows: Encoded, name: str, binarise: str | None, scale: PixelScale, options: dict[str, Any]
) -> IndexedSource:
    """Return images that are decoded whenever they are read.

    Raises:
        InputError: if they are to be binarised once.
    """
    pixels = _holds_pixels(rows)
    if binarise is not None:
        if binarise != "dynamic" or not pixels:
            raise InputError(
                f"binarise is '{binarise}' for {name}, images too many to hold in memory; choose "
                "dynamic, or take fewer: limit."
            )
        options["binarise"] = binarise
        scale = PixelScale(256, seed=scale.seed, whole=True)
    return IndexedSource(rows, len(rows), scale if pixels else None, name, options)


def _csv(
    path: Path,
    columns: Sequence[str] | None,
    picture_options: dict[str, Any],
    limit: int | None,
    options: dict[str, Any],
) -> IteratedSource:
    """Return the lines of a CSV file, parsed in every pass."""
    _refuse_picture_options(str(path), picture_options)

    def start() -> Iterator[np.ndarray]:
        return (block for block in csv_blocks(path, columns) if len(block))

    count = partial(count_lines, path)
    source = IteratedSource(start, lambda first: None, str(path), count, limit, options=options)
    source.columns = list(csv_header(path) if columns is None else columns)
    return source


def _refuse_picture_options(name: str, picture_options: dict[str, Any]) -> None:
    if any(value is not None for value in picture_options.values()):
        raise InputError(f"{name}: crop, size and colour apply to images, not to tables.")


def _binary(
    array: Any, levels: int, how: str, seed: int, name: str, options: dict[str, Any]
) -> ArraySource:
    """Return pixels as zeros and ones, or as the probabilities of these.

    Raises:
        InputError: for another way to binarise, or data that are not integer pixels.
    """
    if how not in ("static", "dynamic") or not _holds_pixels(array):
        raise InputError(
            f"binarise is '{how}' for {name}, an array of type {array.dtype}; choose static or "
            "dynamic, for 8-bit images (n, height, width[, 3])."
        )
    scale = PixelScale(levels, seed=seed, whole=True)
    if how == "dynamic":
        return ArraySource(array, scale=scale, name=name, options=options)
    return ArraySource(scale.binarised(array), name=name, options=options)


def _names(columns: Sequence[Any], of_file: bool) -> list[Any]:
    """Return names of columns, or the numbers of those of an array in a file, each once.

    Raises:
        InputError: for one text, or a column that is there twice: it has no density beside itself.
    """
    if isinstance(columns, str):
        raise InputError(
            f"The columns are '{columns}', which is one text; give a list of names, such as "
            f"columns=['{columns}']."
        )
    names = [str(name) for name in columns] if of_file else list(columns)
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(
            f"Column {', '.join(map(str, twice))} was asked for more than once, and numbers have "
            "no density beside themselves; name every column once."
        )
    if not names:
        raise InputError("No columns were named; name at least one, or leave columns out for all.")
    return names


def _of_frame(frame: Any, columns: Sequence[str] | None) -> np.ndarray:
    """Return the columns of a data frame of pandas or polars as numbers (n, D).

    Raises:
        InputError: if there are no such columns, or they hold no numbers.
    """
    missing = [name for name in columns or () if name not in frame.columns]
    if missing:
        known = ", ".join(map(str, frame.columns))
        raise InputError(f"The data frame has no column {', '.join(missing)}; it has {known}.")
    chosen = frame if columns is None else frame[list(columns)]
    try:
        return np.asarray(chosen.to_numpy(), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The data frame holds what is no number ({error}); choose numeric columns: columns=."
        ) from error


def holds_columns(path: Path) -> bool:
    """Tell whether a path is a Parquet or Arrow file, or a folder of them."""
    if path.is_dir():
        return any(is_columnar(p) for p in path.iterdir())
    return path.exists() and is_columnar(path)


def _columnar(
    path: Path,
    columns: Sequence[str] | None,
    picture_options: dict[str, Any],
    binarise: str | None,
    dequantise: bool,
    limit: int | None,
    seed: int,
) -> ColumnarSource:
    """Open Parquet or Arrow files.

    Raises:
        InputError: for options that apply to pictures in files.
    """
    given = [name for name, value in picture_options.items() if value is not None]
    given += ["binarise"] if binarise is not None else []
    if given:
        raise InputError(
            f"{path}: {', '.join(given)} apply to image files and arrays of images, not to Parquet "
            "and Arrow files; leave them out, or change the images before they are written."
        )
    options = {"data": str(path.resolve()), "dequantise": dequantise, "limit": limit, "seed": seed}
    options |= {} if columns is None else {"columns": list(columns)}
    source = ColumnarSource(path, columns, None, dequantise, seed, limit, options)
    named = source.columns or []
    if source.scale is None and len(named) == source.n_features:
        options["columns"] = named  # so that other files are read by name
    return source


def open_labels(data: str | Path, limit: int | None = None) -> Tensor:
    """Return the classes of rows, (n,), integers.

    Args:
        data: digits, mnist or fashion-mnist, with :train (the default) or :test after it; or a .npy
            or idx file of integers.
        limit: take the first rows only.

    Raises:
        InputError: if there are no such labels, or they are not one integer per row.
    """
    base, _, split = str(data).partition(":")
    if base == "digits":
        labels = of_digits("target", split or "train")
    elif base in IDX:
        labels = read_idx(idx_file(IDX[base], split or "train", "labels"))
    elif Path(data).exists() and not is_csv(str(data)):
        labels = _array_reader(Path(data))(Path(data))
    else:
        raise InputError(
            f"There are no labels called '{data}'; give a .npy or idx file of integers, or one of: "
            f"digits, {', '.join(IDX)}."
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"The labels in {data} are of type {labels.dtype} and shape {labels.shape}; give one "
            "integer per row."
        )
    return torch.from_numpy(np.array(labels[:limit], "int64"))


def counterpart(name: str) -> str | None:
    """Return the name of the test split that belongs to a known training set, or None."""
    base, _, split = name.partition(":")
    return f"{base}:test" if base in KNOWN and split in ("", "train") else None


def _read(
    name: str, picture_options: dict[str, Any], columns: Sequence[str] | None
) -> tuple[np.ndarray | Encoded, int]:
    base, _, split = name.partition(":")
    if base in KNOWN:
        if split not in ("", *SPLITS):
            raise InputError(f"Unknown split '{split}' of {base}; choose train or test.")
        return KNOWN[base](split or "train", picture_options)
    path = Path(name)
    if "{" in path.name and holds_members(path):
        return Encoded(list_members(path), **picture_options), 256
    if not path.exists():
        raise InputError(
            f"There is no data set or file called '{name}'; give a path that exists, or one of: "
            f"{', '.join(KNOWN)}."
        )
    if holds_members(path):
        return Encoded(list_members(path), **picture_options), 256
    sizes = {"crop": picture_options["crop"], "size": picture_options["size"]}
    if is_csv(name):
        _refuse_picture_options(name, picture_options)
        return read_csv(path, columns), 256
    array = _array_reader(path)(path)
    if columns is not None:
        array = array[:, _numbers(name, array, columns)]
    if picture_options["colour"] is not None or (any(sizes.values()) and not _holds_pixels(array)):
        raise InputError(
            f"{name}: crop and size apply to arrays of 8-bit images (n, height, width[, 3]), and "
            "colour to image files only."
        )
    return reshaped(array, **sizes), 256


def column_names(data: str) -> list[str]:
    """Return the names of the columns of a CSV file, or the numbers of those of another array.

    Raises:
        InputError: if there is no such table.
    """
    path = Path(data)
    if is_csv(path.name) and path.exists():
        return csv_header(path)
    if holds_columns(path):
        return list(ColumnarSource(path).columns or ())
    shape = open_source(data).feature_shape
    if len(shape) != 1:
        raise InputError(f"{data} has rows of shape {shape}; give a table, (n, D), with columns.")
    return [str(i) for i in range(shape[0])]


def _numbers(name: str, array: np.ndarray, columns: Sequence[str]) -> list[int]:
    """Return numbers of columns.

    Raises:
        InputError: if they are none of this array's.
    """
    known = [str(i) for i in range(array.shape[1])] if array.ndim == 2 else []
    unknown = [column for column in columns if column not in known]
    if unknown:
        what = f"0 to {len(known) - 1}" if known else "none: its rows are not of columns"
        raise InputError(
            f"{name} has no column {', '.join(unknown)}; the columns of an "
            f"array go by number, here {what}."
        )
    return [int(column) for column in columns]


def _array_reader(path: Path) -> Callable[[Path], np.ndarray]:
    name = path.name.lower()
    if name.endswith(".npy"):
        return read_npy
    if name.endswith(".npz"):
        return read_npz
    if any(mark in name for mark in ("idx", "ubyte")):
        return read_idx
    raise InputError(
        f"{path} is of an unknown kind; data may be .npy, .npz, .csv, .tsv, .parquet, .arrow, .tar "
        "or idx files (named *idx* or "
        "*ubyte*; CSV, TSV and idx also .gz), folders of images, or zip files of images."
    )


def _holds_pixels(array: np.ndarray | Tensor | Encoded) -> bool:
    return len(array.shape) >= 3 and str(array.dtype).removeprefix("torch.") == "uint8"


def _lasting(name: str) -> str:
    return name if name.partition(":")[0] in KNOWN else str(Path(name).resolve())
