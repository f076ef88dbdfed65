"""Fits that several processes make together are those of one, also when some are killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import together
from mogul import joined, load_model

TOGETHER = Path(__file__).parent / "together.py"


# Fits of two processes that nothing disturbs: one torchrun makes them all.
KINDS = ("ppca", "gaps", "weights", "truncated", "few", "vae", "gradient", "decoder")


def run(out, world, *kinds, restarts=0):
    """Return what every process of some fits tells at the end, by kind."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(world), "--max-restarts", str(restarts)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TORCHELASTIC")}
    done = subprocess.run(
        [*command, str(TOGETHER), str(out), *kinds], capture_output=True, text=True, timeout=300,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = range(world)
    return {k: [json.loads((out / k / f"{r}.json").read_text()) for r in ranks] for k in kinds}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where fits of two processes leave their files."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def of_two(folder):
    """Return what two processes tell of every kind of fit."""
    return run(folder, 2, *KINDS)


def of_one(kind, out):
    """Return what one process tells of a fit."""
    with joined() as group:
        return json.loads(json.dumps(together.told(kind, group, out)))


def parameters(found):
    return np.concatenate([np.ravel(v) for k, v in found["parameters"].items() if k != "particles"])


@pytest.mark.parametrize(
    ("kind", "world"), [("full", 3), ("ppca", 2), ("gaps", 2), ("weights", 2), ("truncated", 2)]
)
def test_em_is_the_same_for_every_number_of_processes(request, tmp_path, kind, world):
    alone = of_one(kind, tmp_path)
    several = request.getfixturevalue("of_two") if world == 2 else run(tmp_path, world, kind)
    assert sum(found["rows"] for found in several[kind]) == alone["rows"] == 900
    for found in several[kind]:
        np.testing.assert_allclose(found["history"], alone["history"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(parameters(found), parameters(alone), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_killed_process_begins_again_where_the_last_pass_ended(tmp_path, world):
    alone = of_one("full", tmp_path)
    found = run(tmp_path, world, "kill", restarts=2)["kill"]
    assert [f["restarts"] for f in found] == [1] * world
    for one in found:
        np.testing.assert_allclose(one["history"], alone["history"], rtol=0, atol=1e-10)
    extra = load_model(tmp_path / "kill" / "model.mogul")[1]
    assert [row["pass"] for row in extra["history"]] == [1, 2, 3, 4, 5, 6]


def test_candidates_stay_with_the_rows_of_each_process_and_survive_a_kill(tmp_path, of_two):
    alone, both = of_one("few", tmp_path), of_two["few"]
    killed = run(tmp_path, 2, "kill-few", restarts=1)["kill-few"]
    assert [f["restarts"] for f in killed] == [1, 1]
    for one, other in zip(both, killed, strict=True):
        np.testing.assert_array_equal(parameters(one), parameters(both[0]))
        np.testing.assert_allclose(parameters(other), parameters(one), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other["history"], one["history"], rtol=0, atol=1e-10)
    # Each process draws components of its own at random, and keeps witnesses of its own.
    np.testing.assert_allclose(both[0]["history"], alone["history"], rtol=0, atol=0.05)


def test_an_autoencoder_goes_on_after_a_process_was_killed(tmp_path, of_two):
    found = run(tmp_path, 2, "kill-vae", restarts=1)["kill-vae"]
    assert [f["restarts"] for f in found] == [1, 1]
    for a, b in zip(found, of_two["vae"], strict=True):
        np.testing.assert_allclose(a["history"], b["history"], rtol=1e-9)
        np.testing.assert_allclose(parameters(a), parameters(b), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["gradient", "decoder", "vae"])
def test_gradients_are_those_of_all_processes(tmp_path, folder, of_two, kind):
    """Steps see other draws than those of one process, and every process takes the same ones."""
    alone, both = of_one(kind, tmp_path), of_two[kind]
    np.testing.assert_array_equal(parameters(both[0]), parameters(both[1]))
    assert both[0]["history"] == both[1]["history"]
    rise = alone["history"][-1] - alone["history"][0]
    assert rise > 0
    assert abs(both[0]["history"][-1] - alone["history"][-1]) < 0.25 * rise + 0.05
    if kind == "decoder":
        model = load_model(folder / "decoder" / "model.mogul")[0]
        assert model.particles.shape == (900, 3, 2)
        own = torch.tensor(both[1]["parameters"]["particles"], dtype=torch.float64)
        torch.testing.assert_close(model.particles[450:], own, rtol=0, atol=0)
