"""Fits that are killed at random moments, and go on: what each lost, and what it ended with.

python -m benchmarks kills [--stop]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mogul import load_model

_PASS = re.compile(r"^pass (\d+):")


def main() -> None:
    """Kill fits of one and of several processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs, over all world sizes")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--stop", action="store_true", help="SIGSTOP in the place of SIGKILL, once")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, rows = random.Random(options.seed), []
    names = ["processes", "signal after s", "passes made", "next pass told", "passes lost",
             "s until then", "log-likelihood", "difference"]  # fmt: skip
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    with tempfile.TemporaryDirectory() as folder:
        data = _data(Path(folder), options.rows)
        for world in options.worlds:
            whole = _Run(Path(folder), data, world, options.passes)
            whole.wait()
            length = whole.seconds
            print(f"| {world} | none | | | | | {whole.reached:.12f} | {length:.1f} s |", flush=True)
            for _ in range(1 if options.stop else options.kills // len(options.worlds)):
                kind = signal.SIGSTOP if options.stop else signal.SIGKILL
                rows.append(_killed(whole, draw.uniform(0.15, 0.95) * length, kind, draw))
                print("| " + " | ".join(map(str, rows[-1])) + " |", flush=True)
    worst = max(abs(row[-1]) for row in rows)
    print(f"\n{len(rows)} of {len(rows)} went on; at most {max(r[4] for r in rows)} pass(es) lost; "
          f"largest difference {worst:.1e} nats")  # fmt: skip


def _data(folder: Path, n: int) -> Path:
    """Write rows of 40 clusters in 16 dimensions."""
    random_ = np.random.default_rng(0)
    centres = 4 * random_.normal(size=(40, 16))
    x = centres[random_.integers(0, 40, n)] + random_.normal(size=(n, 16))
    np.save(folder / "rows.npy", x.astype(np.float32))
    return folder / "rows.npy"


class _Run:
    """A fit in processes of its own, whose lines are read as they come."""

    def __init__(self, folder: Path, data: Path, world: int, passes: int) -> None:
        self.folder, self.data, self.world, self.passes = folder, data, world, passes
        self.output = folder / "model.mogul"
        self.lines: list[tuple[float, int]] = []

    def start(self, *more: str) -> subprocess.Popen[str]:
        fit = ["fit", str(self.data), "-o", str(self.output), "--model", "full", "--components",
               "40", "--passes", str(self.passes), "--tolerance", "0", *more]  # fmt: skip
        launch = [sys.executable, "-m"]
        if self.world > 1:
            launch += ["torch.distributed.run", "--standalone", "--nproc-per-node",
                       str(self.world), "--max-restarts", "3", "-m"]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*launch, "mogul", *fit], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip

    def follow(self, process: subprocess.Popen[str]) -> None:
        """Read lines until the process ends.

        Raises:
            RuntimeError: if it failed.
        """
        assert process.stderr is not None
        for line in process.stderr:
            found = _PASS.match(line)
            if found:
                self.lines.append((time.monotonic(), int(found[1])))
            elif "has not answered" in line:
                print(f"{time.monotonic():.1f}", line.strip())
        if process.wait() not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the fit ended with {process.returncode}")

    def wait(self) -> None:
        """Run to the end."""
        since = time.monotonic()
        self.follow(self.start())
        self.seconds, self.reached = time.monotonic() - since, self.result()

    def result(self) -> float:
        extra = load_model(self.output)[1]
        made = [row["pass"] for row in extra["history"]]
        if made != list(range(1, self.passes + 1)):
            raise RuntimeError(f"the history has passes {made}")
        return extra["figures"]["log_likelihood"]


def _killed(whole: _Run, after: float, kind: int, draw: random.Random) -> list[object]:
    """Begin a fit, send one of its processes a signal, and let it go on."""
    run = _Run(whole.folder, whole.data, whole.world, whole.passes)
    run.output.unlink(missing_ok=True)
    process = run.start()
    pause = subprocess.Popen(
        [sys.executable, "-c", _KILLER, str(process.pid), str(after), str(int(kind)),
         str(draw.randrange(whole.world)), str(whole.world)], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    run.follow(process)
    killed = float(pause.communicate()[0])
    if whole.world == 1:
        held = ["--resume"] if run.output.exists() else []
        run.follow(run.start(*held))
    before = [n for when, n in run.lines if when < killed]
    later = [(when, n) for when, n in run.lines if when >= killed]
    later = later or [(time.monotonic(), run.passes + 1)]  # all passes were made
    made, (when, first) = max(before, default=0), later[0]
    reached = run.result()
    return [
        whole.world, round(after, 1), made, first, made + 1 - first, round(when - killed, 1),
        reached, reached - whole.reached,
    ]  # fmt: skip


# Waits apart from the reading of lines; the worker is a child of torchrun's agent, or the process.
_KILLER = """
import os, subprocess, sys, time
pid, after, kind, which, world = (float(a) for a in sys.argv[1:])
time.sleep(after)
if world > 1:
    workers = []
    while len(workers) < world:
        found = subprocess.run(["pgrep", "-P", str(int(pid))], capture_output=True, text=True)
        workers = found.stdout.split()
    pid = int(workers[int(which)])
os.kill(int(pid), int(kind))
print(time.monotonic())
"""

if __name__ == "__main__":
    main()
