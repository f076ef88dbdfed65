"""Neural decoders on the command line: fit, go on, sample, in-paint, report."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import mogul
from command_line import run_command
from mogul.cli import main
from mogul.models import checkpoint

SMALL = "--model decoder --limit 24 --width 4 --latents 3 --particles 2"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process."""
    return lambda line: run_command(monkeypatch, capsys, *line.split())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A decoder of digits after two passes."""
    path = tmp_path_factory.mktemp("decoder") / "small.mogul"
    with pytest.MonkeyPatch.context() as patch:
        line = f"mogul fit digits -o {path} {SMALL} --passes 2 --json"
        patch.setattr(sys, "argv", line.split())
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return path


def test_a_fit_tells_its_time_first_and_leaves_a_picture(run, tmp_path):
    code, _, err = run(f"fit digits -o {tmp_path / 'a.mogul'} {SMALL} --passes 1")
    assert code == 0
    assert "about" in err
    assert "for 1 passes" in err
    assert "particles moved" in err
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.ndim == 2
    assert picture.shape[1] > 12 * 32


def test_a_fit_goes_on_to_the_same_end(run, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole.mogul", tmp_path / "cut.mogul"
    save = checkpoint.save_model

    def save_and_keep(path, model, extra, memory):
        save(path, model, extra, memory)
        if len(extra["history"]) == 2:
            cut.write_bytes(whole.read_bytes())  # what an interrupted fit leaves

    monkeypatch.setattr(checkpoint, "save_model", save_and_keep)
    assert run(f"fit digits -o {whole} {SMALL} --passes 3 --json")[0] == 0
    monkeypatch.setattr(checkpoint, "save_model", save)
    code, out, _ = run(f"fit digits -o {cut} --model decoder --resume --passes 3 --json")
    assert code == 0
    assert json.loads(out)["passes"] == 3
    a, b = mogul.load_model(whole)[0], mogul.load_model(cut)[0]
    assert all(
        bool((x == y).all())
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("latents", ["prior", "gaussian", "mixture"])
def test_samples_come_from_each_summary(run, tmp_path, fitted, latents):
    code, out, _ = run(f"sample {fitted} --latents {latents} -n 5 -o {tmp_path / 'x.npy'} --json")
    assert code == 0
    assert json.loads(out)["n"] == 5
    assert np.load(tmp_path / "x.npy").shape == (5, 32, 32)


def test_samples_come_from_each_class(run, tmp_path):
    enough = "--model decoder --limit 60 --width 4 --latents 1 --particles 1 --passes 1"
    model, labels = tmp_path / "m.mogul", tmp_path / "labels.npy"
    assert run(f"fit digits -o {model} {enough} --json")[0] == 0
    line = f"sample {model} --latents class -n 5 -o {tmp_path / 'x.npy'} --json"
    assert run(line)[0] == 0
    np.save(labels, np.arange(60) % 2)
    assert run(f"{line} --labels {labels}")[0] == 0
    code, _, err = run(f"{line} --labels nowhere")
    assert code == 2
    assert "no labels called 'nowhere'" in err


def test_a_mixture_prior_is_learned_from_particles(run, tmp_path):
    out = tmp_path / "m.mogul"
    parts = "--prior mixture --components 3 --decoder mlp --batch-size 12 --warm-up 1"
    code, _, err = run(f"fit digits -o {out} {SMALL} {parts} --passes 3 --json --size 8x8")
    assert code == 0, err
    model, extra = mogul.load_model(out)
    assert model.prior.n_components == 3
    assert float(model.prior.weights.std()) > 0
    assert extra["settings"]["warm_up"] == 1
    assert extra["settings"]["batch_size"] == 12


def test_inpainting_keeps_what_is_seen(run, tmp_path, fitted):
    line = f"inpaint {fitted} digits:test --mask centre -n 3 --samples 2 -o {tmp_path / 'f.npz'}"
    code, out, _ = run(f"{line} --json")
    assert code == 0
    assert json.loads(out)["inpainting_mse"] > 0
    with np.load(tmp_path / "f.npz") as found:
        assert found["samples"].shape == (2, 3, 32, 32)
        seen = found["observed"]
        assert np.allclose(found["samples"][0][seen], found["mean"][seen], atol=1e-6)


def test_a_report_holds_its_pictures(run, tmp_path, fitted):
    assert run(f"report {fitted} -o {tmp_path / 'r.html'} --json")[0] == 0
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64,") >= 7
    for heading in ("Data and samples", "Reconstruction", "In-painting", "Interpolation"):
        assert heading in page
    assert 'src="http' not in page


def test_rows_are_rebuilt_from_their_latents(run, tmp_path, fitted):
    code, out, _ = run(f"reconstruct {fitted} digits:test -n 2 -o {tmp_path / 'x.npy'} --json")
    assert code == 0
    assert 0 < json.loads(out)["reconstruction_mse"] < 0.5
    assert np.load(tmp_path / "x.npy").shape == (2, 32, 32)


def test_show_tells_what_a_decoder_is(run, fitted):
    code, out, _ = run(f"show {fitted} --json")
    assert code == 0
    found = json.loads(out)
    assert found["algorithm"] == "pga"
    assert found["latents"] == 3
    assert len(found["history"]) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit digits -o OUT --model decoder --preset huge", "Unknown preset 'huge'"),
        ("fit digits -o OUT --model decoder --algorithm sgd --limit 9", "Unknown algorithm 'sgd'"),
        ("fit digits -o OUT --model ppca --preset mnist-small", "--preset: a mixture has no use"),
        ("fit digits -o OUT.png --model decoder", "choose another ending"),
        ("fit digits -o OUT --model decoder --size 8x8 --limit 9", "32×32"),
        ("fit digits -o OUT --model decoder --resume", "No model file"),
        ("fit digits -o MODEL --model decoder --resume --passes 2", "made 2 passes"),
        ("score MODEL digits:test", "not tractable"),
        ("fit digits -o OUT --model decoder --rank 5", "--rank: a decoder has no use"),
        ("fit digits -o OUT --model decoder --components 5", "no use for components"),
        ("fit digits -o OUT --model decoder --prior vamp --limit 9", "Unknown prior 'vamp'"),
        ("fit digits -o OUT --model decoder --algorithm coin --rate 1", "no use for rate"),
        ("fit digits -o OUT --model decoder --limit 9 --latents -1", "n_latents is -1"),
        ("fit digits -o OUT --model decoder --limit 9 --step-size 0", "step_size is 0"),
        ("fit digits -o OUT --model decoder --passes 0", "0 passes"),
        ("fit digits -o OUT --model decoder --limit 1", "at least 2"),
        ("fit digits -o MODEL --model decoder --resume --latents 6", "latents is 3"),
        ("sample MODEL -o OUT.npy --latents cloud", "Unknown latents"),
        ("inpaint MODEL digits:test -o OUT.npy --samples -2", "zero or more"),
    ],
)
def test_errors_are_one_sentence(run, tmp_path, fitted, line, message):
    line = line.replace("OUT", str(tmp_path / "out")).replace("MODEL", str(fitted))
    code, _, err = run(line)
    assert code == 2
    assert "Traceback" not in err
    assert message in " ".join(err.split())
