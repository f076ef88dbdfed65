"""`mogul doctor`: what it finds, what it warns of, and how it ends."""

import json
import os
import webbrowser

import pytest
import torch

import mogul
from command_line import run_command
from mogul.cli import doctor
from mogul.compute.threads import usable_cores


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs `mogul doctor`, with one quick product of matrices."""
    monkeypatch.setattr(doctor, "_TIMED", 0.0)
    monkeypatch.setattr(doctor, "_SIDE", 64)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MOGUL_DATA", raising=False)
    return lambda *arguments: run_command(monkeypatch, capsys, "doctor", *arguments)


@pytest.fixture
def figures(run):
    def found():
        code, out, _ = run("--json")
        return code, json.loads(out)

    return found


def test_a_machine_in_order(figures):
    code, found = figures()
    assert code == 0
    assert found["ok"] is True
    assert found["versions"]["mogul"] == mogul.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"]["threads"] == torch.get_num_threads()
    assert found["threads"]["cores_of_this_process"] == usable_cores()
    assert found["device"]["device"] == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert found["blas"]["float32_gflops"] > 0
    assert found["blas"]["float64_gflops"] > 0
    assert found["data"]["MOGUL_DATA"] is None
    assert found["data"]["digits"] == "scikit-learn"
    assert found["data"]["mnist"] is None
    assert [w for w in found["warnings"] if "GPU" not in w and "memory" not in w] == []


def test_tables_for_people(run, monkeypatch):
    there = doctor.find_spec
    gone = ("tensorboard", "huggingface_hub")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in gone else there(name))
    code, out, _ = run()
    assert code == 0
    for told in ("torch", "OMP_NUM_THREADS", "float32 GFLOP/s", "pip install 'mogul[hub]'"):
        assert told in out
    assert "pip install 'mogul[tensorboard]'" in out
    assert "All that mogul needs works." in out


def test_data_sets_are_told_by_their_place(figures, tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte").touch()
    (tmp_path / "celeba_10k").mkdir()
    monkeypatch.setenv("MOGUL_DATA", str(tmp_path))
    data = figures()[1]["data"]
    assert data["mnist"] == str(tmp_path / "mnist" / "train-images-idx3-ubyte")
    assert data["fashion-mnist"] is None
    assert data["celeba"] is None  # the folder has no zip file


def test_what_is_amiss_is_told_with_its_remedy(figures, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(usable_cores() + 1))
    monkeypatch.setenv("MOGUL_DATA", str(tmp_path / "absent"))
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    monkeypatch.setattr(doctor, "_free_memory", lambda: 0.25)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    code, found = figures()
    assert code == 0  # nothing that is needed is broken
    told = " ".join(found["warnings"])
    for part in (
        f"OMP_NUM_THREADS is {usable_cores() + 1}", f"{tmp_path / 'absent'}, which is not a folder",
        "load 1000.0", "0.25 GB of memory",
    ):  # fmt: skip
        assert part in told
    assert torch.cuda.is_available() or "install one with CUDA" in told


@pytest.mark.parametrize("value", ["many", "0", "-1", ""])
def test_threads_that_are_no_number_are_told(figures, monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert any("OMP_NUM_THREADS" in told for told in figures()[1]["warnings"])


def test_what_is_needed_and_broken_ends_with_code_1(run, monkeypatch):
    whole = doctor.import_module

    def broken(name):
        if name == "scipy":
            raise OSError("libx.so: [no] such file")
        return whole(name)

    monkeypatch.setattr(doctor, "import_module", broken)
    code, out, err = run()
    assert code == 1
    assert "broken" in out
    assert "All that mogul needs works" not in out
    told = " ".join(err.split())
    assert "scipy does not work (OSError: libx.so: [no] such file)" in told
    assert "pip install" in told
    assert json.loads(run("--json")[1])["ok"] is False


def test_a_machine_without_a_browser_and_a_system_without_proc(figures, monkeypatch):
    def none():
        raise webbrowser.Error("none")

    monkeypatch.setattr(doctor.webbrowser, "get", none)
    monkeypatch.setattr(doctor, "_read", lambda path: "")
    system = figures()[1]["system"]
    assert system["browser"] is None
    assert system["free_memory_gb"] is None


def test_free_memory_is_within_the_limit_of_the_group(monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   8000000 kB\n"}
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(path, ""))
    assert doctor._free_memory() == pytest.approx(8.192)
    files |= {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "10\n"}
    assert doctor._free_memory() == pytest.approx(8.192)
    files["/sys/fs/cgroup/memory.max"] = "3000000010\n"
    assert doctor._free_memory() == pytest.approx(3.0)


def test_products_are_timed_by_their_operations(monkeypatch):
    monkeypatch.setattr(doctor, "_SIDE", 100)
    monkeypatch.setattr(doctor, "_TIMED", 0.0)
    times = iter([0.0, 1.0, 1.5, 2.0])
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: next(times))
    speed = doctor._product_speed(torch.device("cpu"), torch.float32)
    assert speed == pytest.approx(2 * 100**3 / 0.5 / 1e9)
