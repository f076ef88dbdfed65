"""Long use: many people at one explorer, many fits in one process, and memory that stays flat."""

from __future__ import annotations

import base64
import gc
import http.client
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mogul import EM, GaussianMixture, fit, initialise, open_source
from mogul.opened import Opened, open_model
from mogul.tasks import characteristic, inpaint, percentile_of
from torture.outcome import Outcome

_FIT = "digits --model mfa --components 20 --rank 4 --passes 5 --json"
_WARM = 0.1  # share of the time after which memory is first looked at
_GROWTH = 0.05  # of memory that is allowed from then on
_TURNS = 60  # different questions, so that answers are known beforehand
_TIMEOUT = 60.0
_START = 300.0  # seconds that a small fit may take on a busy machine


@dataclass
class Question:
    """A request, and what of its answer is known from the library."""

    method: str
    path: str
    body: dict[str, Any] | None
    expected: dict[str, Any]


@dataclass
class Tally:
    """What clients saw."""

    answered: int = 0
    faults: list[str] = field(default_factory=list)


def run(quick: bool) -> list[Outcome]:
    """Soak the explorer, and fit again and again.

    Args:
        quick: a few seconds in place of ten minutes.

    Returns:
        one line of the table each.
    """
    clients, seconds, fits = (16, 6.0, 30) if quick else (200, 600.0, 200)
    return [explorer(clients, seconds), successive_fits(fits)]


def explorer(clients: int, seconds: float) -> Outcome:
    """Ask an explorer by many clients at once, and compare every answer with the library's."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "digits.mogul"
        command = [sys.executable, "-m", "mogul"]
        subprocess.run(
            [*command, "fit", *_FIT.split(), "-o", str(model)], check=True, env=_environment(),
            stdout=subprocess.DEVNULL, timeout=_START,
        )  # fmt: skip
        asked = questions(open_model(model, "cpu"))
        serving = subprocess.Popen(
            [*command, "explore", str(model), "--no-browser"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment(),
        )  # fmt: skip
        try:
            assert serving.stdout is not None
            address = serving.stdout.readline().strip()
            tally, sizes = _asked_by_many(address, asked, clients, seconds, serving.pid)
        finally:
            serving.terminate()
            serving.wait(_TIMEOUT)
    growth = sizes[-1] / sizes[0] - 1
    failures = tally.faults[:20]
    if growth > _GROWTH:
        failures.append(f"memory grew from {sizes[0]:.0f} to {sizes[-1]:.0f} MB")
    note = (
        f"{clients} clients for {seconds:.0f} s, {tally.answered / seconds:.0f} answers a second, "
        f"{len(tally.faults)} unlike the library's; memory {sizes[0]:.0f} → {sizes[-1]:.0f} MB"
    )
    return Outcome("explorer under load", tally.answered, failures, note)


def questions(opened: Opened) -> list[Question]:
    """Return requests with the answers that the library gives."""
    mixture, test = opened.mixture, opened.test(None)
    pictures = characteristic(mixture)
    draw = random.Random(0)
    found = []
    for turn in range(_TURNS):
        row, k, seed = draw.randrange(len(test)), draw.randrange(20), draw.randrange(1000)
        x = test.take([row])
        mask = (np.random.default_rng(seed).random((8, 8)) < 0.6).astype(np.uint8)
        observed = torch.from_numpy(mask.reshape(1, -1) != 0)
        filled = inpaint(mixture, x, observed, 2, seed=seed)
        body = {"image": {"row": row}, "mask": _packed(mask), "samples": 2, "seed": seed}
        found.append(Question("POST", "inpaint", body, {
            "mean": _packed(opened.to_pixels(filled.mean)),
            "observed": float(filled.log_likelihood),
        }))  # fmt: skip
        value = float(mixture.log_prob(x))
        rank = percentile_of(np.array([value]), opened.quantiles)
        expected = {"log_likelihood": value, "percentile": float(rank[0])}
        found.append(Question("POST", "score", {"row": row}, expected))
        drawn = mixture.sample((16,), noise=bool(turn % 2), seed=seed)
        path = f"samples?n=16&seed={seed}&noise={str(bool(turn % 2)).lower()}"
        found.append(Question("GET", path, None, {"pixels": _packed(opened.to_pixels(drawn))}))
        weight = {"weight": float(mixture.weights[k])}
        found.append(Question("GET", f"components/{k}", None, weight))
    order = {"index": pictures.index.tolist()}
    found.append(Question("GET", "components", None, order))
    return found


def successive_fits(n: int) -> Outcome:
    """Fit n times in one process."""
    source, sizes, failures = open_source("digits"), [], []
    for turn in range(n):
        model = GaussianMixture(10, source.n_features, "mfa", 3)
        initialise(model, source, seed=turn)
        reached = fit(model, source, EM(), passes=4).history[-1]["log_likelihood"]
        if not np.isfinite(reached):
            failures.append(f"fit {turn} reached {reached}")
        gc.collect()
        sizes.append(_memory("self"))
    first = sizes[max(2, int(_WARM * n))]
    if sizes[-1] / first - 1 > _GROWTH:
        failures.append(f"memory grew from {first:.0f} to {sizes[-1]:.0f} MB")
    return Outcome(
        "fits one after the other", n, failures, f"memory {first:.0f} → {sizes[-1]:.0f} MB"
    )


def _asked_by_many(
    address: str, asked: list[Question], clients: int, seconds: float, pid: int
) -> tuple[Tally, list[float]]:
    """Return what clients saw, and memory of the server after warming up and at the end."""
    host, token = address.removeprefix("http://").split("/?token=")
    tallies: queue.Queue[Tally] = queue.Queue()
    end = time.monotonic() + seconds

    def work(seed: int) -> None:
        tallies.put(_client(host, token, asked, end, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(max(3.0, _WARM * seconds))  # until buffers of every thread have been made
    sizes = [_memory(pid)]
    for thread in threads:
        thread.join()
    sizes.append(_memory(pid))
    whole = Tally()
    while not tallies.empty():
        one = tallies.get()
        whole.answered += one.answered
        whole.faults += one.faults
    return whole, sizes


def _client(host: str, token: str, asked: list[Question], end: float, seed: int) -> Tally:
    """Ask at random until the end, by one connection that is kept."""
    draw, tally = random.Random(seed), Tally()
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    while time.monotonic() < end:
        question = draw.choice(asked)
        body = None if question.body is None else json.dumps(question.body)
        try:
            connection.request(question.method, f"/api/{question.path}", body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            tally.faults.append(f"{question.path}: {type(error).__name__} {error}")
            connection.close()
            continue
        tally.answered += 1
        if answer.status != http.HTTPStatus.OK:
            tally.faults.append(f"{question.path}: {answer.status} {content[:200]!r}")
        else:
            tally.faults += _unlike(question, json.loads(content))
    connection.close()
    return tally


def _unlike(question: Question, answer: dict[str, Any]) -> list[str]:
    """Tell what of an answer is not what the library gives; numbers to nine digits."""
    found = []
    for name, value in question.expected.items():
        came = answer.get(name)
        near = isinstance(value, float) and np.isclose(came, value, rtol=1e-9, atol=1e-9)
        if came != value and not near:
            found.append(f"{question.path} {question.body}: {name} is not the library's")
    return found


def _packed(array: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"shape": list(array.shape), "type": "u1", "data": data}


def _environment() -> dict[str, str]:
    """Return an environment in which torch has as many threads as here, so that it rounds alike."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


def _memory(pid: int | str) -> float:
    """Return the memory that a process holds, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")
