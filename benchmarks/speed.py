"""Seconds per EM iteration against other libraries: same rows, same start, same iterations.

    python -m benchmarks speed [--threads 1 4] [--types float32 float64] [--peers] [--kinds full …]

Every fit runs in a process of its own; `--peers` adds the libraries of the extra "bench", on full
covariances. Peak memory is that of the process during the fit, less what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np

SIZES = [(100_000, 16, 32), (60_000, 64, 100), (20_000, 256, 20), (1_000_000, 8, 64)]


def rows(n: int, d: int, k: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw k well-separated clusters (about 20 standard deviations apart), and perturbed means."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(k, d)) * 15 / np.sqrt(d)
    mix = np.eye(d) + 0.3 * rng.normal(size=(k, d, d)) / np.sqrt(d)
    x = np.empty((n, d), dtype)
    for c, part in enumerate(np.array_split(np.arange(n), k)):
        x[part] = centres[c] + rng.normal(size=(len(part), d)) @ mix[c]
    means = centres + 0.1 * rng.normal(size=(k, d))
    return rng.permutation(x), means.astype(dtype)


class Memory:
    """The most resident memory while it is open, above what there was, in MB."""

    def __enter__(self) -> Memory:
        """Begin to watch."""
        self._before = self._peak = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop, and keep what was most."""
        self._stop.set()
        self._thread.join()
        self.above = self._peak - self._before

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._resident())

    @staticmethod
    def _resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def one(library: str, kind: str, n: int, d: int, k: int, dtype: str, threads: int) -> None:
    """Fit once, and print what was measured as JSON."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks.libraries import LIBRARIES, Problem

    torch.set_num_threads(threads)
    x, means = rows(n, d, k, dtype)
    iterations = 7 if library == "mogul" else 5 if d * k * n < 3e8 else 4
    problem = Problem(x, means, kind, iterations)
    with threadpool_limits(threads), Memory() as memory:
        seconds, score = LIBRARIES[library](problem)
    print(json.dumps({"seconds": seconds, "nats": score, "memory": memory.above}))


def measure(library: str, *case: object, threads: int) -> dict[str, float] | None:
    """Run `one` in a process of its own; None if the library fails or takes 10 minutes."""
    command = [sys.executable, "-m", "benchmarks", "speed", "--one", library, *map(str, case)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    try:
        done = subprocess.run(
            [*command, str(threads)], env=environment, capture_output=True, text=True, timeout=600
        )
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError):
        return None


def gemm_rate(threads: int, dtype: str, shape: tuple[int, int, int] = (4096, 512, 512)) -> float:
    """Return the GFLOP/s of a product (n, d) × (d, m), the best of 20."""
    import torch

    torch.set_num_threads(threads)
    kind = getattr(torch, dtype)
    n, d, m = shape
    a, b, best = torch.randn(n, d, dtype=kind), torch.randn(d, m, dtype=kind), 1e9
    for _ in range(20):
        since = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - since)
    return 2e-9 * n * d * m / best


def table(arguments: argparse.Namespace) -> None:
    """Print the table, row by row."""
    peers = ["tgmm", "pomegranate", "torchgmm", "gmmx"] if arguments.peers else []
    names = ["mogul", "scikit-learn", *peers]
    print(
        "| type | n × D, K | dtype | threads | GEMM GF/s | "
        + " | ".join(f"{name} s" for name in names)
        + " | ratios | nats: mogul; others − mogul | memory MB, data + |"
    )
    print("|" + "---|" * (len(names) + 8))
    for threads in arguments.threads:
        for dtype in arguments.types:
            for kind in arguments.kinds:
                for n, d, k in SIZES:
                    here = names if kind == "full" else names[:2]
                    got = {
                        name: measure(name, kind, n, d, k, dtype, threads=threads) for name in here
                    }
                    print(row(kind, n, d, k, dtype, threads, names, got), flush=True)


def row(kind: str, n: int, d: int, k: int, dtype: str, threads: int, names: list[str],
        got: dict[str, dict[str, float] | None]) -> str:  # fmt: skip
    """Return one row of the table."""
    own = got["mogul"]
    assert own is not None
    cells = [kind, f"{n:,} × {d}, {k}", dtype, str(threads), f"{gemm_rate(threads, dtype):.0f}"]
    seconds, ratios, nats = [], [], []
    for name in names:
        found = got.get(name)
        seconds.append("–" if found is None else f"{found['seconds']:.3f}")
        if name != "mogul" and found is not None:
            ratios.append(f"{found['seconds'] / own['seconds']:.1f}")
            nats.append(f"{found['nats'] - own['nats']:+.0e}")
    cells += [*seconds, " / ".join(ratios), f"{own['nats']:.4f}; " + ", ".join(nats)]
    return "| " + " | ".join([*cells, f"{own['memory']:.0f}"]) + " |"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--types", nargs="+", default=["float32", "float64"])
    parser.add_argument("--kinds", nargs="+", default=["full", "shared", "diagonal", "isotropic"])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--one", nargs=7)
    arguments = parser.parse_args()
    if arguments.one:
        library, kind, n, d, k, dtype, threads = arguments.one
        one(library, kind, int(n), int(d), int(k), dtype, int(threads))
    else:
        table(arguments)


if __name__ == "__main__":
    main()
