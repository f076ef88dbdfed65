"""Processes that fit together, one of which is killed or stopped; all go on and end as undisturbed.

An agent does what torchrun's does, with forked processes in the place of new ones, which begin in
milliseconds: it holds the store, begins the processes, and where one ends with a fault ends all and
begins them anew. Traffic stays on the loopback device.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._C._distributed_c10d import TCPStore

from mogul import EM, Checkpoint, GaussianMixture, fit, initialise, joined, load_model
from mogul.compute import heartbeat
from mogul.data import ArraySource
from torture._faults.children import Lines, child
from torture.outcome import Outcome

PASSES = 40
_ROUNDS = 4  # how often processes are begun
_LONGEST = 200.0  # seconds for all of them


class Fault(NamedTuple):
    """A signal to one process of a group, some seconds after so many passes."""

    kind: signal.Signals
    rank: int
    passes: int
    seconds: float


class Ran(NamedTuple):
    """How a group ended: with what, after how many begins, what passes it told of, and when."""

    results: list[dict[str, Any]]
    begins: int
    lost: int
    recovery: float
    seconds: float
    made: list[int]


def rows() -> torch.Tensor:
    """Return rows of clusters."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(6, 8, generator=generator, dtype=torch.float64)
    which = torch.randint(6, (30_000,), generator=generator)
    return centres[which] + torch.randn(30_000, 8, generator=generator, dtype=torch.float64)


def worker(folder: Path, tell: Callable[[str], None]) -> None:
    """Fit as one of the processes that the environment tells of."""
    torch.set_num_threads(1)
    with joined() as group:
        source = ArraySource(rows()).shard(group)
        model = GaussianMixture(6, 8, dtype=torch.float64)
        kept = Checkpoint(folder / "model.mogul")
        if not group.said(group.first and kept.held(group.run) is not None):
            initialise(model, source)
        done = fit(
            model, source, EM(), passes=PASSES, tolerance=0.0, checkpoint=kept,
            callback=lambda row: tell(f"pass {row['pass']}") if group.first else None,
        )  # fmt: skip
        found = {
            "history": [row["objective"] for row in done.history],
            "parameters": torch.cat([p.flatten() for p in model.state_dict().values()]).tolist(),
        }
        (folder / f"{group.rank}.json").write_text(json.dumps(found))


def _forked_worker(rank: int, world: int, begins: int, port: int, folder: Path, lines: Lines,
                   silence: float | None) -> None:  # fmt: skip
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "torture",
        "TORCHELASTIC_RESTART_COUNT": str(begins),
    }  # fmt: skip
    if silence is not None:
        heartbeat._SILENCE, heartbeat._EVERY = silence, silence / 8
    worker(folder, lines.tell)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _hosting(port: int, lines: Lines) -> None:
    """Hold what the processes have in common, until killed."""
    store = TCPStore("127.0.0.1", port, None, True, wait_for_workers=False)
    lines.tell("ready")
    signal.pause()
    del store


class Agent:
    """Begins a group, sends it a fault, and begins it anew, step by step: many run side by side."""

    def __init__(self, world: int, fault: Fault | None, silence: float | None = None) -> None:
        """Begin."""
        self._stack, self._lines = ExitStack(), Lines()
        self.world, self.fault, self._silence = world, fault, silence
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._port, self.begins, self._since = _free_port(), 0, time.monotonic()
        self._due: float | None = None
        self._sent: float | None = None
        self._went_on: float | None = None
        self.made: list[int] = []
        self._before = 0
        self.failure = ""
        self._stack.enter_context(child(partial(_hosting, self._port, self._lines)))
        if not self._lines.wait("ready", 30):
            self.failure = "the store did not begin"
        self._begin()

    def _begin(self) -> None:
        self._workers = {
            rank: self._stack.enter_context(child(partial(
                _forked_worker, rank, self.world, self.begins, self._port, self.folder,
                self._lines, self._silence)))
            for rank in range(self.world)
        }  # fmt: skip
        self.begins += 1
        self._codes: dict[int, int] = {}

    @property
    def sent(self) -> bool:
        """Whether the signal was sent before the process had ended."""
        return self._sent is not None

    def step(self) -> bool:
        """Look after the group; return whether it has ended."""
        now = time.monotonic()
        for line in self._lines.new():
            self.made.append(int(line.split()[1]))
            if self._sent and self.begins > 1 and self._went_on is None:
                self._went_on = now
        self._send_when_due(now)
        for rank, number in self._workers.items():
            if rank not in self._codes:
                found, status = os.waitpid(number, os.WNOHANG)
                if found:
                    self._codes[rank] = os.waitstatus_to_exitcode(status)
        if any(self._codes.values()):
            self._begin_anew()
        if now - self._since > _LONGEST:
            self.failure = self.failure or f"did not end: a hang, after {self._codes}"
        return bool(self.failure) or len(self._codes) == self.world or self._stopped_at_its_end()

    def _send_when_due(self, now: float) -> None:
        if self.fault is None or self._sent is not None or len(self.made) < self.fault.passes:
            return
        self._due = self._due or now + self.fault.seconds
        if now >= self._due and self.fault.rank not in self._codes:
            self._before = len(self.made)
            os.kill(self._workers[self.fault.rank], self.fault.kind)
            self._sent = now

    def _stopped_at_its_end(self) -> bool:
        """Whether the last pass was told of, and all have ended but the one that was stopped.

        Nobody is left to miss it then; the file is whole.
        """
        if self.fault is None or self.fault.kind != signal.SIGSTOP or PASSES not in self.made:
            return False
        others = {r: code for r, code in self._codes.items() if r != self.fault.rank}
        return self.sent and len(others) == self.world - 1 and not any(others.values())

    def _begin_anew(self) -> None:
        for rank, number in self._workers.items():
            if rank not in self._codes:
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)
        if self.begins >= _ROUNDS:
            self.failure = f"processes ended with {self._codes} and did not recover"
            return
        self._begin()

    def end(self) -> Ran:
        """End everything, and tell how it went."""
        found = []
        if not self.failure:
            told = [self.folder / f"{rank}.json" for rank in range(self.world)]
            found = [json.loads(p.read_text()) if p.exists() else {} for p in told]
            found[0]["passes"] = [
                row["pass"] for row in load_model(self.folder / "model.mogul")[1]["history"]
            ]
        self._stack.close()
        self._lines.close()
        before, later = self.made[: self._before], self.made[self._before :]
        reached = max(before, default=0)
        lost = reached + 1 - (later[0] if later else PASSES + 1) if self._sent else 0
        recovery = 0.0 if not (self._sent and self._went_on) else self._went_on - self._sent
        return Ran(found, self.begins, lost, recovery, time.monotonic() - self._since, self.made)


def disturbed_groups(
    name: str, kind: signal.Signals, n: int, side_by_side: int, worlds: tuple[int, ...] = (2, 3),
    silence: float | None = None, seed: int = 0,
) -> Outcome:  # fmt: skip
    """Send a signal to every rank of groups in turn, and compare what they end with."""
    outcome, draw = Outcome(name), random.Random(seed)
    whole = {world: _alone(Agent(world, None)) for world in worlds}
    ranks = cycle([(world, rank) for world in worlds for rank in range(world)])
    running: list[Agent] = []
    begun, lost, recovery = 0, 0, 0.0
    try:
        while running or (outcome.tried < n and begun < 2 * n):
            room = min(side_by_side, n - outcome.tried, 2 * n - begun) - len(running)
            for world, rank in islice(ranks, max(0, room)):
                delay = draw.uniform(0, 0.5 * whole[world].seconds / PASSES)
                fault = Fault(kind, rank, draw.randrange(PASSES // 2), delay)
                running.append(Agent(world, fault, silence))
                begun += 1
            for agent in [a for a in running if a.step()]:
                running.remove(agent)
                ran = agent.end()
                if ran.begins == 1 and not agent.failure:
                    continue  # its processes had come to their ends before
                outcome.tried += 1
                lost, recovery = max(lost, ran.lost), max(recovery, ran.recovery)
                what = agent.failure or _differs(ran, whole[agent.world])
                if what:
                    outcome.failures.append(f"{agent.world} processes, {agent.fault}: {what}")
            time.sleep(0.002)
    finally:
        for agent in running:
            agent.end()
    if outcome.tried < n:
        outcome.failures.append(f"only {outcome.tried} of {n} came in time")
    outcome.note = (
        f"every rank in turn; {lost} whole passes lost; on again after {recovery:.1f} s at most; "
        f"{begun - outcome.tried} more came too late"
    )
    return outcome


def _alone(agent: Agent) -> Ran:
    """Run one group to its end.

    Raises:
        RuntimeError: if it fails, undisturbed.
    """
    try:
        while not agent.step():
            time.sleep(0.002)
    finally:
        ran = agent.end()
    if agent.failure:
        raise RuntimeError(agent.failure)
    return ran


def _differs(ran: Ran, whole: Ran) -> str:
    """Tell in what a group that was disturbed ended otherwise than one that was not."""
    if ran.lost > 1:
        return f"{ran.lost} passes were lost"
    if ran.results[0]["passes"] != list(range(1, PASSES + 1)):
        return f"the file tells of the passes {ran.results[0]['passes']}"
    for one, other in zip(ran.results, whole.results, strict=True):
        for what in ("history", "parameters"):
            if not np.allclose(one[what], other[what], rtol=1e-7, atol=1e-9):
                return f"another {what}"
    return ""


def by_torchrun(ranks: list[tuple[int, int]]) -> Outcome:
    """Kill processes that torchrun itself began, one of each world and rank."""
    outcome, times = Outcome("SIGKILL of a process that torchrun began"), []
    whole = {world: _alone(Agent(world, None)) for world, _ in ranks}
    for world, rank in ranks:
        with tempfile.TemporaryDirectory() as name:
            since = time.monotonic()
            command = [
                sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                str(world), "--max-restarts", "2", "-m", "torture._faults.killed", name, str(rank),
            ]  # fmt: skip
            own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
            try:
                done = subprocess.run(
                    command, env=os.environ | own, capture_output=True, text=True, timeout=_LONGEST
                )
                what = "" if done.returncode == 0 else done.stderr[-300:]
            except subprocess.TimeoutExpired:
                what = "did not end: a hang"
            times.append(time.monotonic() - since)
            if not what:
                found = [json.loads((Path(name) / f"{r}.json").read_text()) for r in range(world)]
                extra = load_model(Path(name) / "model.mogul")[1]
                found[0]["passes"] = [row["pass"] for row in extra["history"]]
                what = _differs(Ran(found, 2, 0, 0.0, 0.0, []), whole[world])
            outcome.tried += 1
            outcome.failures += [f"rank {rank} of {world}: {what}"] if what else []
    outcome.note = f"{max(times, default=0):.0f} s at most, with the start"
    return outcome
