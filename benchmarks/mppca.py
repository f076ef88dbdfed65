"""Mixtures of PPCA and factor analysers on images: seconds per pass against the rate of a product.

    MOGUL_DATA=folder python -m benchmarks mppca [--threads 1 4] [--loop]

The FLOP count is 2·2·N·D·K·(H + 1): a product of all rows with [V, μ/ψ] to score, and one back to
sum. `--loop` adds a plain per-component loop after the published algorithm (Tipping & Bishop 1999),
as the research scripts have it. Each case runs in a process of its own. Without MOGUL_DATA rows are
drawn at random. What float32 costs is the difference to float64 on 1,000 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.speed import Memory, gemm_rate

CASES = {
    "MNIST 10,000 × 784, 50×6": ("mnist", 10_000, 784, 50, 6),
    "MNIST 60,000 × 784, 50×6": ("mnist", 60_000, 784, 50, 6),
    "CelebA 10,000 × 3072, 100×10": ("celeba", 10_000, 3072, 100, 10),
}


def images(name: str, n: int, d: int) -> torch.Tensor:
    """Return rows of images in (0, 1), or of noise where there are no data."""
    from mogul import open_source

    if "MOGUL_DATA" not in os.environ:
        low = torch.randn(n, 20, generator=torch.Generator().manual_seed(0))
        return (low @ torch.randn(20, d, generator=torch.Generator().manual_seed(1))).sigmoid_()
    options: dict[str, Any] = {} if name == "mnist" else {"size": (32, 32)}
    parts = [open_source(f"{name}:{split}", **options) for split in ("train", "test")]
    return torch.cat([p.take(range(len(p))) for p in parts])[:n]


def loop(x: torch.Tensor, k: int, h: int, passes: int) -> list[float]:
    """Time passes of a per-component loop: all rows under each component in turn."""
    n, d = x.shape
    generator = torch.Generator().manual_seed(0)
    mean = x[torch.randperm(n, generator=generator)[:k]].clone()
    W = 0.1 * torch.randn(k, d, h, generator=generator)
    noise, weight, seconds = torch.full((k,), 0.1), torch.full((k,), 1 / k), []
    for _ in range(passes):
        since = time.perf_counter()
        log_joint = torch.empty(n, k)
        for c in range(k):
            M = W[c].T @ W[c] + noise[c] * torch.eye(h)
            y = x - mean[c]
            z = y @ W[c] @ torch.linalg.inv(M)
            distance = (y.square().sum(1) - (z * (y @ W[c])).sum(1)) / noise[c]
            log_det = torch.logdet(M) + (d - h) * noise[c].log()
            log_joint[:, c] = weight[c].log() - 0.5 * (distance + log_det)
        resp = log_joint.softmax(1)
        for c in range(k):
            r = resp[:, c : c + 1]
            mass = r.sum() + 1e-6
            mean[c] = (r * x).sum(0) / mass
            y = x - mean[c]
            M_inv = torch.linalg.inv(W[c].T @ W[c] + noise[c] * torch.eye(h))
            SW = (r * y).T @ (y @ W[c]) / mass
            new = SW @ torch.linalg.inv(noise[c] * torch.eye(h) + M_inv @ W[c].T @ SW)
            trace = (r * y.square()).sum() / mass
            noise[c] = ((trace - (SW @ M_inv * new).sum()) / d).clamp_min(1e-4)
            W[c], weight[c] = new, mass / n
        seconds.append(time.perf_counter() - since)
    return seconds


def one(case: str, family: str, threads: int) -> dict[str, float]:
    """Fit once and measure everything."""
    from mogul import EM, GaussianMixture, fit, initialise
    from mogul.data import ArraySource

    torch.set_num_threads(threads)
    name, n, d, k, h = CASES[case]
    x = images(name, n, d)
    if family == "loop":
        return {"seconds": statistics.median(loop(x, k, h, 3))}
    source = ArraySource(x)
    model = GaussianMixture(k, d, family, h)
    since = time.perf_counter()
    initialise(model, source)
    start = time.perf_counter() - since
    with Memory() as memory:
        done = fit(model, source, EM(), passes=7, tolerance=0.0)
    seconds = statistics.median(row["seconds"] for row in done.history[1:])
    rate = gemm_rate(threads, "float32")
    own = gemm_rate(threads, "float32", (8192, d, k * (h + 1)))
    model.requires_grad_(False)
    wide = GaussianMixture(k, d, family, h, dtype=torch.float64)
    wide.load_state_dict(model.state_dict())
    few = x[:1000]
    exact = wide().component_log_prob(few.double()).logsumexp(-1)
    error = (model().log_prob(few).double() - exact).abs().detach()
    return {
        "seconds": seconds,
        "gflops": 4e-9 * n * d * k * (h + 1) / seconds,
        "rate": rate,
        "own": own,
        "nats": done.history[-1]["log_likelihood"],
        "start": start,
        "memory": memory.above,
        "data": x.numel() * 4e-6,
        "error": float(error.mean()),
        "worst": float(error.max()),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--one", nargs=3)
    arguments = parser.parse_args()
    if arguments.one:
        case, family, threads = arguments.one
        print(json.dumps(one(case, family, int(threads))))
        return
    names = [
        "images", "family", "threads", "s/pass", "GF/s of GEMM's", "of the product itself",
        "start s (passes)", "nats", "float32 − float64: mean, worst", "memory MB (data)", "loop s",
    ]  # fmt: skip
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for threads in arguments.threads:
        for case in CASES:
            plain = run(case, "loop", threads)["seconds"] if arguments.loop else None
            for family in ("ppca", "factor-analysis"):
                print(row(case, family, threads, run(case, family, threads), plain), flush=True)


def run(case: str, family: str, threads: int) -> dict[str, float]:
    """Run `one` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "mppca", "--one", case, family, str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(case: str, family: str, threads: int, got: dict[str, float], plain: float | None) -> str:
    """Return one row of the table."""
    share = got["gflops"] / got["rate"]
    cells = [
        case, family, str(threads), f"{got['seconds']:.3f}",
        f"{got['gflops']:.0f} of {got['rate']:.0f} = {share:.2f}",
        f"{got['own']:.0f} = {got['gflops'] / got['own']:.2f}",
        f"{got['start']:.2f} ({got['start'] / got['seconds']:.1f})", f"{got['nats']:,.2f}",
        f"{got['error']:.1e}, {got['worst']:.1e}", f"{got['memory']:.0f} ({got['data']:.0f})",
        "–" if plain is None else f"{plain:.2f} ({plain / got['seconds']:.0f}×)",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
