"""Fits that several processes make together are those of one, also when some are killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mogul import load_model

TOGETHER = Path(__file__).parent / "together.py"


def run(tmp_path, kind, world, restarts=0):
    """Return what every process of a fit tells at its end."""
    command = [sys.executable]
    if world > 1 or restarts:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        command += ["--max-restarts", str(restarts)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TORCHELASTIC")}
    folder = tmp_path / f"{kind}-{world}"
    folder.mkdir()
    done = subprocess.run(
        [*command, str(TOGETHER), str(folder), kind], capture_output=True, text=True, timeout=300,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def parameters(found):
    return np.concatenate([np.ravel(v) for k, v in found["parameters"].items() if k != "particles"])


@pytest.mark.parametrize(
    ("kind", "world"), [("full", 3), ("ppca", 2), ("gaps", 2), ("weights", 2), ("truncated", 2)]
)
def test_em_is_the_same_for_every_number_of_processes(tmp_path, kind, world):
    (alone,), together = run(tmp_path, kind, 1), run(tmp_path, kind, world)
    assert sum(found["rows"] for found in together) == alone["rows"] == 900
    for found in together:
        np.testing.assert_allclose(found["history"], alone["history"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(parameters(found), parameters(alone), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_killed_process_begins_again_where_the_last_pass_ended(tmp_path, world):
    (alone,) = run(tmp_path, "full", 1)
    found = run(tmp_path, "kill", world, restarts=2)
    assert [f["restarts"] for f in found] == [1] * world
    for one in found:
        np.testing.assert_allclose(one["history"], alone["history"], rtol=0, atol=1e-10)
    extra = load_model(tmp_path / f"kill-{world}" / "model.mogul")[1]
    assert [row["pass"] for row in extra["history"]] == [1, 2, 3, 4, 5, 6]


def test_candidates_stay_with_the_rows_of_each_process_and_survive_a_kill(tmp_path):
    (alone,), together = run(tmp_path, "few", 1), run(tmp_path, "few", 2)
    killed = run(tmp_path, "kill-few", 2, restarts=1)
    assert [f["restarts"] for f in killed] == [1, 1]
    for one, other in zip(together, killed, strict=True):
        np.testing.assert_array_equal(parameters(one), parameters(together[0]))
        np.testing.assert_allclose(parameters(other), parameters(one), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other["history"], one["history"], rtol=0, atol=1e-10)
    # Each process draws components of its own at random, and keeps witnesses of its own.
    np.testing.assert_allclose(together[0]["history"], alone["history"], rtol=0, atol=0.05)


def test_an_autoencoder_goes_on_after_a_process_was_killed(tmp_path):
    undisturbed = run(tmp_path, "vae", 2)
    found = run(tmp_path, "kill-vae", 2, restarts=1)
    assert [f["restarts"] for f in found] == [1, 1]
    for a, b in zip(found, undisturbed, strict=True):
        np.testing.assert_allclose(a["history"], b["history"], rtol=1e-9)
        np.testing.assert_allclose(parameters(a), parameters(b), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["gradient", "decoder", "vae"])
def test_gradients_are_those_of_all_processes(tmp_path, kind):
    """Steps see other draws than those of one process, and every process takes the same ones."""
    (alone,), together = run(tmp_path, kind, 1), run(tmp_path, kind, 2)
    np.testing.assert_array_equal(parameters(together[0]), parameters(together[1]))
    assert together[0]["history"] == together[1]["history"]
    rise = alone["history"][-1] - alone["history"][0]
    assert rise > 0
    assert abs(together[0]["history"][-1] - alone["history"][-1]) < 0.25 * rise + 0.05
    if kind == "decoder":
        model = load_model(tmp_path / "decoder-2" / "model.mogul")[0]
        assert model.particles.shape == (900, 3, 2)
        own = torch.tensor(together[1]["parameters"]["particles"], dtype=torch.float64)
        torch.testing.assert_close(model.particles[450:], own, rtol=0, atol=0)
