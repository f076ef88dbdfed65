"""What fits cost as data, models and machines grow: memory, rates, processes.

python -m benchmarks scaling stream  [--tables 20000000 --images 3000000]
python -m benchmarks scaling processes [--worlds 1 2 4]
python -m benchmarks scaling cost
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_RANK = 6


def main() -> None:
    """Run one of the three, or a worker of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["stream", "processes", "cost", "worker"])
    parser.add_argument("--tables", type=int, default=20_000_000)
    parser.add_argument("--images", type=int, default=3_000_000)
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where data are kept from run to run")
    parser.add_argument("--job", type=json.loads, default={})
    options = parser.parse_args()
    if options.what == "worker":
        print(json.dumps(_work(**options.job)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.what == "stream":
            _stream(folder, options.tables, options.images, options.threads)
        elif options.what == "processes":
            _processes(folder, options.worlds)
        else:
            _cost(folder)


def _stream(folder: Path, tables: int, images: int, threads: int) -> None:
    """Print peak memory, and rates beside those of rows in memory."""
    _head("data", "rows", "model", "rows/s from files", "rows/s in memory", "ratio",
          "peak MB beyond imports", "log-likelihood, 3 passes")  # fmt: skip
    cases = [("tables", tables, "full", 50), ("tables", tables, "diagonal", 50),
             ("tables", tables // 10, "full", 50), ("images", images, "ppca", 50),
             ("images", images // 10, "ppca", 50)]  # fmt: skip
    for kind, n, family, k in cases:
        job = {"data": str(_data(folder, kind, n)), "family": family, "k": k, "passes": 3}
        held = {"tables": 2_000_000, "images": 200_000}[kind]
        streamed = _run(job, threads)
        memory = _run(job | {"held": min(n, held)}, threads)
        rates = n / streamed["pass"], min(n, held) / memory["pass"]
        _row(kind, f"{n:,}", f"{family}, K = {k}", f"{rates[0]:,.0f}", f"{rates[1]:,.0f}",
             f"{rates[0] / rates[1]:.2f}", f"{streamed['peak']:.0f}",
             f"{streamed['reached']:.4f}")  # fmt: skip


def _processes(folder: Path, worlds: list[int]) -> None:
    """Print what a pass takes by several processes of one core each."""
    _head("model", "rows", "processes", "seconds per pass", "speed-up", "MB on the wire per pass",
          "log-likelihood")  # fmt: skip
    cases = (("images", 61_440, "ppca", 5_120), ("images", 245_760, "ppca", 5_120),
             ("tables", 2_457_600, "full", 51_200))  # fmt: skip
    for kind, n, family, row_group in cases:
        k = 50
        job = {
            "data": str(_data(folder, kind, n, row_group)),
            "family": family,
            "k": k,
            "passes": 6,
        }
        alone = None
        for world in worlds:
            found = _run(job, 1, world)
            alone = alone or found["pass"]
            _row(f"{family}, K = {k}, D = {found['d']}", f"{n:,}", world, f"{found['pass']:.3f}",
                 f"{alone / found['pass']:.2f}", f"{found['bytes'] / 1e6:.1f}",
                 f"{found['reached']:.8f}")  # fmt: skip


def _cost(folder: Path) -> None:
    """Print seconds per pass on one core as one size after the other grows; fit the cost model."""
    from benchmarks.cost_model import fitted

    _head("varied", "N", "D", "K", "factors", "seconds per pass")
    base = {"n": 20_000, "d": 784, "k": 50, "rank": _RANK}
    grid = {"n": [2_000, 20_000, 200_000, 2_000_000], "d": [49, 196, 784, 3072],
            "k": [10, 50, 200, 500], "rank": [2, 6, 12, 24]}  # fmt: skip
    rows = []
    for varied, values in grid.items():
        for value in values:
            size = base | {varied: value}
            if varied == "n":  # so that the largest fits in memory
                size |= {"d": 196}
            found = _run({"made": size, "family": "ppca", "passes": 4}, 1)
            rows.append(size | {"seconds": found["pass"]})
            _row(varied, *[f"{v:,}" for v in size.values()], f"{found['pass']:.4f}")
    print(fitted(rows))


def _head(*names: str) -> None:
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names), flush=True)


def _row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _run(job: dict[str, Any], threads: int, world: int = 1) -> dict[str, Any]:
    """Run a fit in processes of its own; return what the first tells."""
    command = [sys.executable, "-m"]
    if world > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(world), "-m"]
    command += ["benchmarks", "scaling", "worker", "--job", json.dumps(job)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"pass')))


def _work(
    family: str,
    passes: int,
    k: int = 0,
    data: str = "",
    held: int = 0,
    made: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Fit, and return seconds of the median pass after the first, and the peak of memory."""
    import pyarrow.parquet  # ruff: ignore[unused-import] - part of what is imported
    import torch

    from mogul import EM, GaussianMixture, fit, initialise, joined, open_source
    from mogul.data import ArraySource

    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    imports = _peak()
    with joined() as group:
        rank = _RANK
        if made is not None:
            k, rank = made["k"], made["rank"]
            source = ArraySource(_rows(made["n"], made["d"]))
        else:
            source = open_source(data).shard(group)
        if held:
            rows = torch.cat(list(_first(source.blocks(65_536), held)))[:held]
            source = ArraySource(rows.view(-1, *source.feature_shape), scale=source.scale)
        model = GaussianMixture(k, source.n_features, family, rank if family == "ppca" else None)
        initialise(model, source)
        done = fit(model, source, EM(), passes=passes, tolerance=0.0)
        sums = model.expectation(gaps=False).moments.tensors().values()
        bytes_ = sum(t.numel() * t.element_size() for t in sums) + 24
        if not group.first:
            return {}
    seconds = statistics.median(row["seconds"] for row in done.history[1:])
    return {
        "pass": seconds, "peak": _peak() - imports, "d": source.n_features, "bytes": bytes_,
        "reached": done.history[-1]["log_likelihood"],
    }  # fmt: skip


def _first(blocks: Iterator[Any], n: int) -> Iterator[Any]:
    """Yield at least the first n rows."""
    for read in blocks:
        yield (rows := read().rows)
        n -= len(rows)
        if n <= 0:
            return


def _peak() -> float:
    """Return the largest memory that this process has held, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Return rows of 50 clusters."""
    random = np.random.default_rng(seed)
    centres = 4 * np.random.default_rng(0).normal(size=(50, d)).astype(np.float32)
    x = random.standard_normal((n, d), dtype=np.float32)
    x += centres[random.integers(0, 50, n)]
    return x


def _data(folder: Path, kind: str, n: int, row_group: int | None = None) -> Path:
    """Write rows of clusters, or MNIST shifted by up to two pixels, as Parquet, once."""
    from mogul import open_source
    from mogul.data import write_store

    path = folder / f"{kind}-{n}-{row_group or 'own'}.parquet"
    if not path.exists():
        since = time.perf_counter()
        make = _tables(n) if kind == "tables" else _images(n)
        write_store(open_source(make, rows=n), path, row_group=row_group)
        taken = time.perf_counter() - since
        print(f"<!-- {path.stat().st_size / 1e9:.2f} GB written in {taken:.0f} s -->", flush=True)
    return path


def _tables(n: int) -> Iterator[np.ndarray]:
    for number, start in enumerate(range(0, n, 500_000)):
        yield _rows(min(500_000, n - start), 16, seed=number)


def _images(n: int) -> Iterator[np.ndarray]:
    from benchmarks.mppca import images

    pixels = (images("mnist", 60_000, 784).numpy() * 256).astype(np.uint8).reshape(-1, 28, 28)
    random = np.random.default_rng(0)
    for start in range(0, n, len(pixels)):
        shifts, out = random.integers(0, 25, len(pixels)), np.empty_like(pixels)
        for shift in range(25):
            some = shifts == shift
            out[some] = np.roll(pixels[some], (shift // 5 - 2, shift % 5 - 2), axis=(1, 2))
        yield out[: n - start]


if __name__ == "__main__":
    main()
