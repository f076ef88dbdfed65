"""The main job on real images: fit, evaluate, and print one table.

    MOGUL_DATA=folder python benchmarks/images.py [ROW ...]

Each row fits by `mogul fit` and is judged by `mogul evaluate`, each in a process of its own, so
that the peak memory is that of the command. Seconds per pass are the median over passes, and
include scoring the held-out rows at every pass.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = {
    "MNIST, MPPCA 50×6": "mnist --model mppca --components 50 --rank 6",
    "MNIST, MFA 50×6": "mnist --model mfa --components 50 --rank 6",
    "CelebA 64×64×3, MPPCA 100×10": "celeba --model mppca --components 100 --rank 10 "
    "--variance-floor 1e-3",
}
COLUMNS = (
    "test log-likelihood (nats)",
    "bits/dim, test (train)",
    "NDB/K samples",
    "NDB/K held out",
    "JS samples / held out (nats)",
    "s/pass",
    "peak memory fit / evaluate (GB)",
)


def measure(arguments: list[str]) -> tuple[dict[str, float], float]:
    """Run a mogul command; return its figures and its peak resident memory in GB.

    Raises:
        SystemExit: if the command fails.
    """
    command = [sys.executable, "-m", "mogul", *arguments, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(command)} failed")
    return json.loads(printed), usage.ru_maxrss / 2**20


def row(name: str, folder: Path) -> list[str]:
    """Fit and judge one model; return the cells of its row."""
    model = str(folder / "model.mogul")
    fit = f"{ROWS[name]} --passes 30 --tolerance 0 -o {model}"
    fitted, fit_memory = measure(["fit", *fit.split()])
    shown, _ = measure(["show", model])
    found, evaluate_memory = measure(["evaluate", model])
    seconds = statistics.median(r["seconds"] for r in shown["history"])
    bins = found["ndb_bins"]
    return [
        name,
        f"{found['log_likelihood']:,.1f}",
        f"{found['bits_per_dim']:.3f} ({fitted['bits_per_dim']:.3f})",
        f"{found['ndb'] / bins:.2f}",
        f"{found['ndb_held_out'] / bins:.2f}",
        f"{found['js']:.4f} / {found['js_held_out']:.4f}",
        f"{seconds:.2f}",
        f"{fit_memory:.2f} / {evaluate_memory:.2f}",
    ]


def main() -> None:
    """Print the table, row by row."""
    print(f"{os.cpu_count()} CPU cores; NDB with K = 100 bins")
    print("| model | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name in sys.argv[1:] or ROWS:
        with tempfile.TemporaryDirectory() as folder:
            print("| " + " | ".join(row(name, Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    main()
