"""Fits that stop and go on end as those that never stopped; files are whole or untouched."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from command_line import run_command
from mogul import (
    EM,
    Checkpoint,
    GaussianMixture,
    Gradient,
    InputError,
    OnlineEM,
    fit,
    initialise,
    load_model,
    open_source,
    save_model,
)
from mogul.algorithms import StopReason
from mogul.compute.checkpoint import atomic_write
from mogul.compute.collective import Group
from mogul.compute.heartbeat import LOST, Heartbeat
from mogul.compute.signals import StopSignals
from mogul.data import ArraySource, write_store

PASSES = 5


def rows(n=800, gaps=False):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 5)) + 4 * random.integers(0, 3, size=(n, 1))
    if gaps:
        x[::5, 1] = np.nan
    return x


def started(source, family="full"):
    model = GaussianMixture(3, 5, family, 2 if family == "ppca" else None)
    initialise(model, source)
    return model


def algorithm(name):
    made = {"gradient": Gradient(batch_size=50), "online": OnlineEM(batch_size=50)}
    return made.get(name) or EM(batch_size=20)


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("error")  # such as that of a schedule that is ahead of its optimiser
@pytest.mark.parametrize(("kind", "after"), [(signal.SIGTERM, 330), (signal.SIGINT, 1210)])
@pytest.mark.parametrize("case", ["full", "diagonal", "ppca", "gaps", "gradient", "online"])
def test_a_fit_that_a_signal_stops_goes_on_to_the_same_bits(tmp_path, threads, case, after, kind):
    source = ArraySource(rows(gaps=case == "gaps"))
    family = case if case in ("diagonal", "ppca") else "full"
    whole = started(source, family)
    undisturbed = fit(whole, source, algorithm(case), passes=PASSES, tolerance=0.0)
    count, lock = [0], threading.Lock()

    def seen(n):
        with lock:
            count[0] += n
            ask, count[1:] = count[0] >= after and len(count) == 1, [True] * (count[0] >= after)
        if ask:
            os.kill(os.getpid(), kind)

    model, path = started(source, family), tmp_path / "m.mogul"
    stopped = fit(
        model, source, algorithm(case), passes=PASSES, tolerance=0.0, seen=seen,
        checkpoint=Checkpoint(path),
    )  # fmt: skip
    assert stopped.reason is StopReason.INTERRUPTED
    assert "goes on" in stopped.reason.advice
    anew = GaussianMixture(3, 5, family, 2 if family == "ppca" else None)
    if not path.exists():  # gradient steps of the first pass leave nothing to go on with
        assert case in ("gradient", "online")
        assert after <= 800
        return
    done = fit(
        anew, source, algorithm(case), passes=PASSES, tolerance=0.0,
        checkpoint=Checkpoint(path, resume=True),
    )  # fmt: skip
    assert_equal(state(whole), state(anew))
    seconds = {"seconds": None}
    assert [r | seconds for r in done.history] == [r | seconds for r in undisturbed.history]


@pytest.mark.parametrize("case", ["full", "ppca", "gaps"])
def test_what_is_written_within_a_pass_goes_on_to_the_same_bits(tmp_path, threads, case):
    source = ArraySource(rows(gaps=case == "gaps"))
    family = "ppca" if case == "ppca" else "full"
    path, copies = tmp_path / "m.mogul", []

    class Copying(Checkpoint):
        def save(self, model, source, saved):
            super().save(model, source, saved)
            copies.append(path.read_bytes())

    whole = started(source, family)
    fit(whole, source, EM(batch_size=20), passes=3, tolerance=0.0,
        checkpoint=Copying(path, minutes=1e-9))  # fmt: skip
    assert len(copies) > 3 * 4
    for content in copies[:: len(copies) // 9][:-1]:
        path.write_bytes(content)
        anew = GaussianMixture(3, 5, family, 2 if family == "ppca" else None)
        fit(anew, source, EM(batch_size=20), passes=3, tolerance=0.0,
            checkpoint=Checkpoint(path, resume=True))  # fmt: skip
        assert_equal(state(whole), state(anew))


def test_an_unfinished_pass_of_other_threads_begins_again_and_says_so(tmp_path):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    asked = []

    def seen(n):
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))

    stopped = fit(
        started(source), source, EM(batch_size=20), seen=seen, checkpoint=Checkpoint(path)
    )
    assert stopped.reason is StopReason.INTERRUPTED
    torch.set_num_threads(1)
    try:
        model = GaussianMixture(3, 5, "full")
        done = fit(
            model, source, EM(batch_size=20), passes=2, tolerance=0.0,
            checkpoint=Checkpoint(path, resume=True),
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    assert "began again" in done.history[0]["events"][0]
    twin = started(source)
    expected = fit(twin, source, EM(batch_size=20), passes=2, tolerance=0.0)
    np.testing.assert_allclose(
        done.history[1]["objective"], expected.history[1]["objective"], atol=1e-6
    )


def test_the_second_signal_ends_at_once():
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.asked == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert {kind: signal.getsignal(kind) for kind in before} == before


def finished(tmp_path, passes=3):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"
    kept = Checkpoint(path)
    fit(started(source), source, EM(), passes=passes, tolerance=0.0, checkpoint=kept)
    return source, path


def test_a_damaged_file_is_told_and_the_one_before_it_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "ended", lambda self, source: None)  # as if killed at the end
    source, path = finished(tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="differs from what was written"):
        load_model(path)
    model = GaussianMixture(3, 5, "full")
    done = fit(model, source, EM(), passes=4, tolerance=0.0,
               checkpoint=Checkpoint(path, resume=True))  # fmt: skip
    assert [row["pass"] for row in done.history] == [1, 2, 3, 4]
    twin = started(source)
    fit(twin, source, EM(), passes=4, tolerance=0.0)
    assert_equal(state(model), state(twin))
    path.write_bytes(b"nothing")
    Checkpoint(path).before.unlink()
    with pytest.raises(InputError, match="damaged"):
        fit(model, source, EM(), passes=9, checkpoint=Checkpoint(path, resume=True))


def test_every_tensor_has_its_sha_256(tmp_path):
    _, path = finished(tmp_path)
    with safe_open(str(path), "pt") as file:
        about = json.loads(file.metadata()["mogul"])
        names = set(file.keys())
    assert set(about["sha256"]) == names | {"/configuration", "/layout"}
    assert all(len(digest) == 64 for digest in about["sha256"].values())
    changed = {n: t + 1 if t.is_floating_point() else t for n, t in load_tensors(path).items()}
    save_file(changed, path, {"mogul": json.dumps(about)})
    with pytest.raises(InputError, match="damaged"):
        load_model(path)


def load_tensors(path):
    with safe_open(str(path), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # ruff: ignore[in-dict-keys]


def test_stale_temporaries_of_this_file_alone_are_removed(tmp_path):
    source, path = finished(tmp_path)
    stale, other = tmp_path / ".m.mogul.abcdefgh.part", tmp_path / ".n.mogul.abcdefgh.part"
    stale.write_bytes(b"x")
    other.write_bytes(b"x")
    fit(started(source), source, EM(), passes=1, checkpoint=Checkpoint(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".n.mogul.abcdefgh.part", "m.mogul"]


FULL = """
import resource, sys
import torch
from mogul import GaussianMixture, InputError, save_model
small, large = GaussianMixture(1, 2), GaussianMixture(200, 100)
save_model(sys.argv[1], small)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_model(sys.argv[1], large)
except InputError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_the_earlier_file_is_intact(tmp_path):
    path = tmp_path / "m.mogul"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=120
    )
    assert "as it was before: make room" in done.stdout, done.stderr
    assert load_model(path)[0].n_components == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.mogul"]


def test_no_space_says_what_to_do(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device; nothing was written: make room"):
        atomic_write(tmp_path / "x", b"content")
    assert list(tmp_path.iterdir()) == []


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """Let only the owner read what is made."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_who_may_read_a_file_is_what_the_umask_or_the_file_before_says(tmp_path, umask):
    path = tmp_path / "x"
    atomic_write(path, b"first")
    assert mode(path) == 0o600
    os.chmod(path, 0o640)
    atomic_write(path, b"second")
    assert mode(path) == 0o640
    folder = tmp_path / "store"
    write_store(ArraySource(rows()), folder, rows_per_file=100)
    assert mode(folder) == 0o700
    assert {mode(part) for part in folder.iterdir()} == {0o600}


def test_a_link_stays_and_the_file_behind_it_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    link, real = tmp_path / "m.mogul", tmp_path / "far" / "real.mogul"
    link.symlink_to(real)
    stale = real.with_name(".real.mogul.abcdefgh.part")
    stale.write_bytes(b"x")
    source = ArraySource(rows())
    before = []
    checkpoint = Checkpoint(link)
    fit(
        started(source), source, EM(), passes=3, tolerance=0.0, checkpoint=checkpoint,
        callback=lambda row: before.append(
            checkpoint.before.exists() and len(load_model(checkpoint.before)[1]["history"])
        ),
    )  # fmt: skip
    assert before == [False, 1, 2]  # the file of the pass before, not a second link
    assert link.is_symlink()
    assert len(load_model(real)[1]["history"]) == 3
    assert not stale.exists()


def test_a_device_is_never_replaced(tmp_path, monkeypatch, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="a device or the like, not a file"):
        atomic_write(pipe, b"x")
    code, _, err = run_command(monkeypatch, capsys, "fit", "digits", "-o", str(pipe))
    assert code == 2
    assert "a device" in err
    pipe = pipe.rename(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="a device or the like, not a file"):
        write_store(ArraySource(rows()), pipe)
    assert pipe.is_fifo()


def test_a_finished_fit_whose_parameters_were_averaged_goes_on_with_those_before(tmp_path):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"
    whole, cut = started(source), started(source)
    fit(whole, source, OnlineEM(50), passes=4)
    kept = Checkpoint(path)
    fit(cut, source, OnlineEM(50), passes=2, checkpoint=kept)
    kept.finish(cut, source, {"history": [{"objective": 0.0}] * 2})
    assert_equal(state(load_model(path)[0]), state(cut))
    again, kept = GaussianMixture(3, 5, "full"), Checkpoint(path, resume=True)
    fit(again, source, OnlineEM(50), passes=2, checkpoint=kept)  # made before
    kept.finish(again, source, {"history": [{"objective": 0.0}] * 2})
    assert_equal(state(again), state(cut))
    anew = GaussianMixture(3, 5, "full")
    fit(anew, source, OnlineEM(50), passes=4, checkpoint=Checkpoint(path, resume=True))
    assert_equal(state(anew), state(whole))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s, p: (ArraySource(rows(700)), started(s), EM()), "800 rows, and 700 came"),
        (lambda s, p: (s, started(s, "diagonal"), EM()), "another model"),
        (lambda s, p: (s, started(s), Gradient()), "another algorithm"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, change, text):
    source, model, how = change(*finished(tmp_path))
    with pytest.raises(InputError, match=text):
        fit(model, source, how, passes=9, checkpoint=Checkpoint(tmp_path / "m.mogul", resume=True))


def test_a_run_begun_anew_knows_its_file_until_the_end(tmp_path):
    source, path = ArraySource(rows()).shard(Group(run="a")), tmp_path / "m.mogul"
    kept, model = Checkpoint(path), started(source)
    done = fit(model, source, EM(), passes=2, tolerance=0.0, checkpoint=kept)
    assert Checkpoint(path).held("a") is not None
    kept.finish(model, source, {"history": done.history, "rows": 800})
    assert Checkpoint(path).held("a") is not None
    assert Checkpoint(path).held("b") is None
    assert Checkpoint(path).held() is None
    again = fit(GaussianMixture(3, 5), source, EM(), passes=2, checkpoint=Checkpoint(path))
    assert again.history == done.history


def test_a_fit_whose_passes_are_made_is_returned_as_it_is(tmp_path):
    source, path = finished(tmp_path)
    model = GaussianMixture(3, 5, "full")
    done = fit(model, source, EM(), passes=3, checkpoint=Checkpoint(path, resume=True))
    assert [row["pass"] for row in done.history] == [1, 2, 3]
    assert done.reason is StopReason.PASS_LIMIT
    assert_equal(state(model), state(load_model(path)[0]))


def test_the_command_goes_on_with_a_fit(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", rows())
    fitting = f"fit {tmp_path / 'x.npy'} --model full --components 3 --tolerance 0 --json"

    def run(more):
        code, out, err = run_command(monkeypatch, capsys, *f"{fitting} {more}".split())
        return code, out, err

    whole, cut = tmp_path / "whole.mogul", tmp_path / "cut.mogul"
    assert run(f"-o {whole} --passes 6")[0] == 0
    assert run(f"-o {cut} --passes 2")[0] == 0
    code, out, err = run(f"-o {cut} --passes 6 --resume")
    assert code == 0, err
    assert json.loads(out)["passes"] == 6
    assert_equal(state(load_model(whole)[0]), state(load_model(cut)[0]))
    code, _, err = run(f"-o {cut} --passes 6 --resume")
    assert code == 2
    assert "made 6 passes before" in err
    code, _, err = run(f"-o {tmp_path / 'none.mogul'} --resume")
    assert code == 2
    assert "no fit in" in err
    code, _, err = run(f"-o {cut} --passes 9 --resume --limit 700")
    assert code == 2
    assert "read otherwise" in err


def test_the_command_stops_at_a_signal_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", rows())
    keep, asked = Checkpoint.save, []

    def save(self, model, source, saved):
        keep(self, model, source, saved)
        if len(saved.history) == 2 and not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoint, "save", save)
    path = tmp_path / "m.mogul"
    command = f"fit {tmp_path / 'x.npy'} -o {path} --model full --components 3 --tolerance 0"
    code, _, err = run_command(monkeypatch, capsys, *command.split())
    assert code == 130
    assert "holds 2 whole pass(es). The same command with --resume goes on" in " ".join(err.split())
    code, _, err = run_command(monkeypatch, capsys, "score", str(path), str(tmp_path / "x.npy"))
    assert code == 2
    assert "has not ended" in err
    code, out, err = run_command(monkeypatch, capsys, "show", str(path), "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert (shown["stopped"], shown["passes"]) == ("before its end", 2)
    assert shown["objective"] == shown["history"][-1]["objective"]
    for more, told in (("--seed 3", "seed was 0, and 3 came"), ("--components 2", "n_components")):
        given = f"{command} {more} --resume".split()
        code, _, err = run_command(monkeypatch, capsys, *given)
        assert code == 2
        assert told in err
    assert "n_components was 3, and 2 came" in err


def test_files_of_models_without_digests_are_read(tmp_path):
    model = GaussianMixture(2, 3)
    save_model(tmp_path / "m.mogul", model)
    tensors = load_tensors(tmp_path / "m.mogul")
    with safe_open(str(tmp_path / "m.mogul"), "pt") as file:
        about = json.loads(file.metadata()["mogul"])
    del about["sha256"]
    save_file(tensors, tmp_path / "old.mogul", {"mogul": json.dumps(about)})
    assert_equal(state(load_model(tmp_path / "old.mogul")[0]), state(model))


class Beats:
    """Counts that processes share, and a process that never beats."""

    def __init__(self):
        self.counts = {}

    def add(self, name, n):
        self.counts[name] = self.counts.get(name, 0) + n
        return self.counts[name]


def test_a_silent_process_ends_the_others(monkeypatch, capfd):
    ended, over = [], threading.Event()

    def end(code):
        ended.append(code)
        over.set()
        raise RuntimeError  # ends the thread, as the process would be

    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr("mogul.compute.heartbeat._EVERY", 0.01)
    monkeypatch.setattr("mogul.compute.heartbeat._SILENCE", 0.05)
    with Heartbeat(Beats(), 0, 2):
        assert over.wait(30)
    assert ended == [LOST]
    assert "Process 1 of 2 has not answered" in capfd.readouterr().err


def test_a_process_that_came_to_its_end_is_not_missed(monkeypatch):
    monkeypatch.setattr("os._exit", lambda code: pytest.fail("ended"))
    monkeypatch.setattr("mogul.compute.heartbeat._EVERY", 0.001)
    monkeypatch.setattr("mogul.compute.heartbeat._SILENCE", 0.0)
    beats = Beats()
    beats.add("1 ended", 1)
    with Heartbeat(beats, 0, 2):
        while beats.counts.get("0", 0) < 20:
            pass
        monkeypatch.undo()  # so that the end waits for the thread as long as in earnest
    assert beats.counts["0 ended"] == 1


def test_digits_go_on(tmp_path):
    source = open_source("digits")
    model = GaussianMixture(3, source.n_features, "ppca", 2)
    initialise(model, source)
    kept = Checkpoint(tmp_path / "d.mogul")
    done = fit(model, source, EM(), passes=2, checkpoint=kept)
    assert load_model(tmp_path / "d.mogul")[1]["history"] == done.history


def test_going_on_from_the_file_before_never_loses_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "ended", lambda self, source: None)
    source, path = finished(tmp_path)
    path.write_bytes(b"damaged")
    good = Checkpoint(path).before.read_bytes()

    def fails(*arguments):
        raise InputError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr("mogul.models.checkpoint.save_model", fails)
        with pytest.raises(InputError, match="No space"):
            fit(started(source), source, EM(), passes=9, checkpoint=Checkpoint(path, resume=True))
    assert Checkpoint(path).before.read_bytes() == good


def test_a_new_fit_forgets_what_another_left(tmp_path):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"
    Checkpoint(path).before.write_bytes(b"of another fit")
    asked = []

    def seen(n):
        if not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))

    kept = Checkpoint(path)
    stopped = fit(started(source), source, Gradient(), seen=seen, checkpoint=kept)
    assert stopped.reason is StopReason.INTERRUPTED
    assert not kept.kept
    assert not kept.before.exists()


def test_a_changed_configuration_is_damage(tmp_path):
    _, path = finished(tmp_path)
    content = path.read_bytes()
    at = content.index(b"log_likelihood")
    for bit in range(3):
        changed = bytearray(content)
        changed[at + bit] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(InputError, match="damaged"):
            load_model(path)


def test_other_rows_of_the_same_shape_are_refused(tmp_path):
    source, path = finished(tmp_path)
    other = ArraySource(rows() + 1)
    with pytest.raises(InputError, match="other rows"):
        fit(started(source), other, EM(), passes=9, checkpoint=Checkpoint(path, resume=True))


@pytest.mark.parametrize("of", [ArraySource, lambda x: open_source(np.split(x, 2))])
def test_one_changed_value_among_the_last_rows_is_refused(tmp_path, of):
    x = rows()
    path = tmp_path / "m.mogul"
    fit(started(of(x)), of(x), EM(), passes=1, checkpoint=Checkpoint(path))
    x[-2, 1] += 0.1
    with pytest.raises(InputError, match="other rows"):
        fit(started(of(x)), of(x), EM(), passes=9, checkpoint=Checkpoint(path, resume=True))


def test_of_large_data_rows_from_all_over_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("mogul.models.checkpoint._VALUES", 1)
    monkeypatch.setattr("mogul.models.checkpoint._SPREAD", 4)
    source, path = finished(tmp_path)
    x = rows()
    x[len(x) // 2 :] *= 2  # the later half was written anew, in other units
    with pytest.raises(InputError, match="other rows"):
        fit(
            started(source),
            ArraySource(x),
            EM(),
            passes=9,
            checkpoint=Checkpoint(path, resume=True),
        )


def test_the_command_goes_on_from_the_file_before(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", rows())
    path = tmp_path / "m.mogul"
    command = f"fit {tmp_path / 'x.npy'} -o {path} --model full --components 3 --tolerance 0 --json"
    code, _, err = run_command(monkeypatch, capsys, *f"{command} --passes 3".split())
    assert code == 0, err
    Checkpoint(path).before.write_bytes(path.read_bytes())
    path.write_bytes(b"damaged")
    code, out, err = run_command(monkeypatch, capsys, *f"{command} --passes 5 --resume".split())
    assert code == 0, err
    assert json.loads(out)["passes"] == 5


def test_a_folder_that_cannot_be_written_is_told_before_the_first_pass(tmp_path, monkeypatch):
    source, path = ArraySource(rows()), tmp_path / "m.mogul"

    def read_only(self, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", read_only)
    with pytest.raises(InputError, match=r"Read-only file system; choose a folder"):
        fit(started(source), source, EM(), passes=1, checkpoint=Checkpoint(path))
