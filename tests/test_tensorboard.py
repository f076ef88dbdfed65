"""Histories as TensorBoard reads them, from Python and from the command line."""

import json

import numpy as np
import pytest

from command_line import run_command
from mogul import EM, GaussianMixture, InputError, TruncatedEM, fit, initialise, load_model
from mogul.data import ArraySource
from mogul.report import TensorBoard


def read(folder):
    """The scalars of a folder as {name: [(step, value), …]}, and its text as {name: […]}."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in tags["scalars"]}
    texts = {
        name: [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(name)]
        for name in tags["tensors"]
    }
    return scalars, texts


def same(scalars, history):
    """Check that all numbers of a history were written, and nothing else."""
    names = {k for row in history for k, v in row.items() if isinstance(v, float) and k != "pass"}
    assert set(scalars) == names
    for name in names:
        expected = [(row["pass"], row[name]) for row in history if row[name] is not None]
        assert [step for step, _ in scalars[name]] == [step for step, _ in expected]
        np.testing.assert_allclose(
            [v for _, v in scalars[name]], [v for _, v in expected], rtol=1e-6
        )


@pytest.fixture
def source():
    return ArraySource(np.random.default_rng(0).normal(size=(200, 3)))


def started(source, k=4):
    model = GaussianMixture(k, 3, "diagonal")
    initialise(model, source)
    return model


def test_every_number_of_a_history_is_a_scalar(tmp_path, source):
    pytest.importorskip("tensorboard")
    with TensorBoard(tmp_path / "run") as board:
        algorithm = TruncatedEM(2, 2, 0, dense=False)
        done = fit(started(source, 20), source, algorithm, passes=4, callback=board)
        scalars, texts = read(tmp_path / "run")  # before it is closed
    same(scalars, done.history)
    assert {"free_energy", "evaluations", "seconds"} <= set(scalars)
    told = [(row["pass"], "\n\n".join(row["events"])) for row in done.history if row["events"]]
    assert told
    assert texts["events/text_summary"] == told


def test_a_fit_that_begins_anew_hides_the_one_before(tmp_path, source):
    pytest.importorskip("tensorboard")
    histories = []
    for passes in (5, 2):
        with TensorBoard(tmp_path) as board:
            done = fit(started(source), source, EM(), passes=passes, tolerance=0, callback=board)
        histories.append(done.history)
    same(read(tmp_path)[0], histories[1])


def test_a_fit_that_goes_on_goes_on_in_its_folder(tmp_path, source):
    pytest.importorskip("tensorboard")
    history = fit(started(source), source, EM(), passes=5, tolerance=0).history
    for part in (history[:3], history[3:]):
        with TensorBoard(tmp_path) as board:
            for row in part:
                board(row)
    same(read(tmp_path)[0], history)


def test_what_cannot_be_written_is_told_before_a_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("mogul.report.tensorboard.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'mogul\[tensorboard\]'"):
        TensorBoard(tmp_path)
    monkeypatch.setattr("mogul.report.tensorboard.find_spec", lambda name: object())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        TensorBoard(tmp_path / "file")
    with pytest.raises(InputError, match="is not a writable folder"):
        TensorBoard(tmp_path / "file" / "runs")
    monkeypatch.setattr("os.access", lambda path, how: False)
    with pytest.raises(InputError, match="is not a writable folder"):
        TensorBoard(tmp_path / "runs")


def test_a_folder_that_cannot_be_written_any_more_is_told(tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path / "runs")
    (tmp_path / "runs").touch()
    with pytest.raises(InputError, match="cannot be written into"):
        board({"pass": 1, "log_likelihood": -1.0, "events": []})


@pytest.mark.parametrize(
    "options",
    [
        "--model diagonal --components 3",
        "--model ppca --rank 2 --components 3 --algorithm online-em",
        "--model decoder --decoder linear --limit 40 --latents 2 --particles 2",
        "--model vae --limit 60 --latent 2",
    ],
)
def test_fits_of_every_kind_tell_their_passes(tmp_path, monkeypatch, capsys, options):
    pytest.importorskip("tensorboard")
    line = f"fit digits -o {tmp_path}/m --passes 2 --tensorboard {tmp_path}/run --json {options}"
    code, _, err = run_command(monkeypatch, capsys, *line.split())
    assert code == 0, err
    same(read(tmp_path / "run")[0], load_model(tmp_path / "m")[1]["history"])


def test_a_network_tells_its_passes_too(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    rows = np.random.default_rng(0).normal(size=(60, 2))
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header="a,b", comments="")
    line = f"fit {tmp_path}/t.csv -o {tmp_path}/m --model mdn --target b --hidden 4 --passes 3"
    line += f" --tensorboard {tmp_path}/run --json"
    code, out, err = run_command(monkeypatch, capsys, *line.split())
    assert code == 0, err
    assert json.loads(out)["passes"] == 3
    same(read(tmp_path / "run")[0], load_model(tmp_path / "m")[1]["history"])


def test_without_tensorboard_the_command_line_says_so_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mogul.report.tensorboard.find_spec", lambda name: None)
    line = f"fit digits -o {tmp_path}/m --tensorboard {tmp_path}/run".split()
    code, _, err = run_command(monkeypatch, capsys, *line)
    assert code == 2
    assert "pip install 'mogul[tensorboard]'" in " ".join(err.split())
    assert not list(tmp_path.iterdir())
