"""Autoencoders on the command line: fit, go on, score, sample, in-paint, report."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import mogul
from command_line import run_command
from mogul.cli import main
from mogul.models import VariationalAutoencoder
from mogul.tasks import decode_rows

SMALL = "--model vae --limit 120 --latent 2 --batch-size 40"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command line in this process."""
    return lambda line: run_command(monkeypatch, capsys, *line.split())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """An autoencoder of binarised digits after three passes."""
    path = tmp_path_factory.mktemp("vae") / "small.mogul"
    with pytest.MonkeyPatch.context() as patch:
        options = "--prior mixture --components 5 --binarise dynamic --passes 3 --json"
        patch.setattr(sys, "argv", f"mogul fit digits -o {path} {SMALL} {options}".split())
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    assert path.with_suffix(".png").exists()
    return path


@pytest.mark.parametrize(
    "options",
    [
        "--prior vamp --components 4 --binarise static",
        "--posterior-components 2 --objective iwae --samples 3 --likelihood bernoulli",
        "--likelihood discretised-logistic --divergence variational --free-bits 1 --warm-up 2",
        "--decoder conv --width 4 --limit 40",
        "--decoder linear --prior mixture --components 2 --prior-learning em",
    ],
)
def test_parts_of_every_kind_go_together(run, tmp_path, options):
    code, out, err = run(
        f"fit digits -o {tmp_path / 'm.mogul'} {SMALL} {options} --passes 2 --json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["passes"] == 2
    assert found["test_log_likelihood_500"] >= found["test_log_likelihood_1"] - 1


def test_a_fit_goes_on_to_the_same_end(run, tmp_path):
    whole, cut = tmp_path / "whole.mogul", tmp_path / "cut.mogul"
    options = "--prior mixture --components 3 --warm-up 3 --json"
    assert run(f"fit digits -o {whole} {SMALL} {options} --passes 3")[0] == 0
    assert run(f"fit digits -o {cut} {SMALL} {options} --passes 2")[0] == 0
    code, out, _ = run(f"fit digits -o {cut} --model vae --limit 120 --resume --passes 3 --json")
    assert code == 0
    assert json.loads(out)["passes"] == 3
    a, b = mogul.load_model(whole)[0], mogul.load_model(cut)[0]
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert bool((x == y).all())


def test_a_fit_goes_on_with_the_data_it_began_with(run, tmp_path):
    out = tmp_path / "m.mogul"
    options = "--binarise dynamic --seed 1 --json"
    assert run(f"fit digits -o {out} {SMALL} {options} --passes 4")[0] == 0
    whole = mogul.load_model(out)[1]
    assert run(f"fit digits -o {out} {SMALL} {options} --passes 2")[0] == 0
    # The same options again are no change, and those left out are those of the file.
    assert run(f"fit digits -o {out} --model vae --latent 2 --resume --passes 3 --json")[0] == 0
    assert run(f"fit digits -o {out} {SMALL} {options} --resume --passes 4")[0] == 0
    cut = mogul.load_model(out)[1]
    assert cut["settings"]["rows"] == 120
    assert cut["command"].count("mogul fit") == 3
    for name, value in whole["figures"].items():
        assert name == "seconds" or cut["figures"][name] == value
    code, _, err = run(f"fit digits -o {out} --model vae --limit 60 --resume --passes 5")
    assert code == 2
    assert "limit is 120" in err


def test_columns_of_tables_are_learned_in_their_units(run, tmp_path):
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(300, 3)) * [1e-3, 1.0, 1e4] + [5.0, 0.0, -1e5]
    header = {"delimiter": ",", "header": "a,b,c", "comments": ""}
    np.savetxt(tmp_path / "t.csv", rows[:200], **header)
    np.savetxt(tmp_path / "u.csv", rows[200:], **header)
    line = (
        f"fit {tmp_path / 't.csv'} --model vae --test {tmp_path / 'u.csv'} --latent 1 --passes 120"
    )
    code, out, err = run(f"{line} --batch-size 20 -o {tmp_path / 'm.mogul'} --json")
    assert code == 0, err
    exact = -0.5 * 3 * (1 + np.log(2 * np.pi)) - np.log(1e-3 * 1e4)
    assert json.loads(out)["test_log_likelihood_500"] == pytest.approx(exact, abs=0.4)
    made = tmp_path / "s.npy"
    assert run(f"sample {tmp_path / 'm.mogul'} -n 500 -o {made} --noise --json")[0] == 0
    sampled = np.load(made)
    assert sampled.std(0) == pytest.approx(rows.std(0), rel=0.3)


def test_rows_are_scored_by_importance_sampling(run, tmp_path, fitted):
    line = f"score {fitted} digits:test -o {tmp_path / 's.npy'} --samples 20 --json"
    code, out, _ = run(line)
    assert code == 0
    found = json.loads(out)
    scores = np.load(tmp_path / "s.npy")
    assert found["log_likelihood"] == pytest.approx(scores.mean())
    assert found["bits_per_dim"] == pytest.approx(-scores.mean() / (64 * np.log(2)))
    assert run(line)[1].partition('"seconds"')[0] == out.partition('"seconds"')[0]


def test_evaluate_tells_of_likelihood_latents_and_clusters(run, tmp_path, fitted):
    code, out, err = run(f"evaluate {fitted} --json")
    assert code == 0, err
    found = json.loads(out)
    assert found["log_likelihood_500"] >= found["log_likelihood_1"] - 1
    assert found["active_latents"] <= 2
    assert 0 < found["purity"] <= 1
    code, out, err = run(f"evaluate {fitted} --json --labels digits:train")
    assert code == 2
    assert "every row" in err


def test_an_autoencoder_is_used_as_a_decoder_is(run, tmp_path, fitted):
    made = tmp_path / "x.npy"
    assert run(f"sample {fitted} -n 5 -o {made} --json")[0] == 0
    assert np.load(made).shape == (5, 8, 8)
    code, out, _ = run(f"reconstruct {fitted} digits:test -n 4 -o {made} --json")
    assert code == 0
    assert 0 < json.loads(out)["reconstruction_mse"] < 0.5
    assert run(f"inpaint {fitted} digits:test --mask right -n 2 -o {made} --json")[0] == 0
    code, out, _ = run(f"show {fitted} --json")
    assert code == 0
    assert json.loads(out)["prior"] == "mixture"


def test_show_draws_the_components_of_a_prior(run, tmp_path, fitted):
    assert run(f"show {fitted} -n 3 -o {tmp_path / 'c.png'} --json")[0] == 0
    drawn = np.asarray(Image.open(tmp_path / "c.png"))
    assert drawn.shape == (5 * 48 + 4 * 3, 3 * 48 + 2 * 3)  # means and four draws of each
    model, _ = mogul.load_model(fitted)
    assert isinstance(model, VariationalAutoencoder)
    heaviest = model.prior.log_weights.argsort(descending=True)[:3]
    means = decode_rows(model, model.prior.means[heaviest]).detach()
    expected = np.floor(means.numpy().reshape(3, 8, 8) * 17).clip(0, 16) * 255 / 16
    for i, image in enumerate(expected):
        np.testing.assert_allclose(drawn[3:48:6, 51 * i + 3 : 51 * i + 48 : 6], image, atol=1)


def test_show_tells_of_a_prior_without_components(run, tmp_path):
    path = tmp_path / "normal.mogul"
    assert run(f"fit digits -o {path} {SMALL} --passes 1 --json")[0] == 0
    code, _, err = run(f"show {path} -o {tmp_path / 'c.png'}")
    assert code == 2
    assert "no components to show" in " ".join(err.split())


def test_a_report_shows_islands_and_the_map_of_latents(run, tmp_path, fitted):
    assert run(f"report {fitted} -o {tmp_path / 'r.html'} --json")[0] == 0
    page = (tmp_path / "r.html").read_text()
    for text in ("What the prior holds", "Where the data lie", "coloured by their labels",
                 "used components", "Reconstruction", "In-painting", "Interpolation"):  # fmt: skip
        assert text in page
    assert 'src="http' not in page


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--prior wide", "Unknown prior 'wide'"),
        ("--objective vae", "Unknown objective 'vae'"),
        ("--decoder rnn", "Unknown decoder 'rnn'"),
        ("--likelihood wrong", "Unknown likelihood 'wrong'"),
        ("--divergence exact", "Unknown divergence 'exact'"),
        ("--components 5", "--components has no use"),
        ("--scale 2 --binarise static", "--scale has no use"),
        ("--rank 2", "--rank: a vae has no use"),
        ("--preset mnist-small", "--preset: a vae has no use"),
        ("--likelihood discretised-logistic --binarise static", "not binarised"),
        ("--binarise often", "static or dynamic"),
        ("--latents 0", "at least 1"),
        ("--samples 0", "at least one"),
        ("--decoder conv --size 8x8", "32×32"),
    ],
)
def test_errors_are_one_sentence(run, tmp_path, line, message):
    out = tmp_path / "out.mogul"
    code, _, err = run(f"fit digits -o {out} --model vae --limit 30 --passes 1 {line}")
    assert code == 2
    assert message in " ".join(err.split())
    assert not out.exists()
