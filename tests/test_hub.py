"""Models in folders and repositories of the Hub, without a network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from families import random_mixture
from mogul import GaussianMixture, InputError, load_model
from mogul.distributions import Prior, families
from mogul.models import (
    MLP,
    BayesianGaussianMixture,
    LatentVariableModel,
    MixtureDensityNetwork,
    MLPDecoder,
    MLPEncoder,
    PosteriorFamily,
    VampPrior,
    VariationalAutoencoder,
    hub,
)


def mixture(name="ppca", sharing="own"):
    rank = 2 if families()[name].low_rank else None
    model = GaussianMixture(3, 5, name, rank, sharing, prior=Prior(), dtype=torch.float64)
    model.load(random_mixture(name, 3, 5, 3 if sharing == "own" else 1))
    return model


def decoder():
    prior = GaussianMixture(3, 2, "diagonal")
    model = LatentVariableModel(MLPDecoder(2, (4,), (8,)), 2, (4,), prior=prior)
    model.particles = torch.randn(6, 2, 2)
    return model


def autoencoder(prior="vamp"):
    posterior = PosteriorFamily(2, 2)
    networks = MLPEncoder(posterior.n_outputs, (4,), (8,)), MLPDecoder(2, (4,), (8,))
    vamp = VampPrior(3, (4,)) if prior == "vamp" else None
    return VariationalAutoencoder(*networks, posterior, (4,), prior=vamp)


def network():
    return MixtureDensityNetwork(MLP(3, [6]), 2, 2, "full")


MODELS = {
    **{f"{name} {s}": (mixture, name, s) for name in families() for s in ("own", "shared")},
    "decoder": (decoder,),
    "vamp autoencoder": (autoencoder,),
    "autoencoder": (autoencoder, "normal"),
    "network": (network,),
}


@pytest.fixture
def uploaded(monkeypatch):
    """What would be uploaded: the repositories made, and {file name: content}."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    seen = {"made": [], "files": {}, "told": {}}

    class Made:
        def __init__(self, repo_id):
            self.repo_id = repo_id

    def create_repo(api, repo_id, **told):
        seen["made"].append(repo_id)
        seen["told"] |= told
        return Made(repo_id)

    def upload_folder(api, *, repo_id, folder_path, **told):
        seen["told"] |= told | {"repo_id": repo_id}
        for path in Path(folder_path).rglob("*"):
            seen["files"][path.name] = path.read_bytes()
        return f"https://example.org/{repo_id}/commit/1"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    return seen


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_comes_back_from_a_folder(tmp_path, kind):
    pytest.importorskip("huggingface_hub")
    make, *arguments = MODELS[kind]
    model = make(*arguments)
    model.save_pretrained(tmp_path / "m")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "model.mogul", "config.json", "README.md",
    }  # fmt: skip
    again = type(model).from_pretrained(tmp_path / "m")
    assert again.config() == model.config()
    assert json.loads((tmp_path / "m" / "config.json").read_text()).items() > model.config().items()
    state = again.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_what_is_pushed_is_what_comes_back(tmp_path, uploaded, monkeypatch):
    import huggingface_hub

    model = mixture()
    extra = {"figures": {"log_likelihood": -1.25}, "options": {"data": "digits"}}
    address = model.push_to_hub("someone/digits", extra, private=True, commit_message="first")
    assert address == "https://example.org/someone/digits/commit/1"
    assert uploaded["made"] == ["someone/digits"]
    assert uploaded["told"]["private"] is True
    assert uploaded["told"]["commit_message"] == "first"
    assert set(uploaded["files"]) == {"model.mogul", "config.json", "README.md"}
    card = uploaded["files"]["README.md"].decode()
    assert "library_name: mogul" in card
    assert "| log likelihood | -1.25 |" in card
    assert "| covariance | ppca |" in card
    asked = []

    def download(repo_id, filename, revision=None, **options):
        asked.append((repo_id, filename, revision))
        path = tmp_path / filename
        path.write_bytes(uploaded["files"][filename])
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    again = GaussianMixture.from_pretrained("someone/digits", revision="v1")
    assert asked == [("someone/digits", name, "v1") for name in ("config.json", "model.mogul")]
    torch.testing.assert_close(again().means, model().means, rtol=0, atol=0)
    assert load_model(tmp_path / "model.mogul")[1] == extra


def test_figures_on_the_card_are_no_markup(tmp_path):
    pytest.importorskip("huggingface_hub")
    bad = "<script>x</script> | [a](b) `c`\n\n# {{ 7 * 7 }} _d_"
    mixture().save_pretrained(tmp_path, {"figures": {bad: bad, "n": 3, "of": [1]}})
    card = (tmp_path / "README.md").read_text()
    line = next(line for line in card.splitlines() if "script" in line)
    assert card.count("script") == 4  # all in one line
    assert not set(line[2:-2].replace(" | ", "", 1)) & set("<>|[]()`{}*_")
    assert "&#60;script&#62;" in line
    assert "| n | 3 |" in card


def test_a_card_that_is_there_stays(tmp_path):
    pytest.importorskip("huggingface_hub")
    (tmp_path / "README.md").write_text("mine")
    mixture().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_models_of_another_class_and_bad_folders_are_refused(tmp_path):
    pytest.importorskip("huggingface_hub")
    autoencoder().save_pretrained(tmp_path / "vae")
    assert isinstance(LatentVariableModel.from_pretrained(tmp_path / "vae"), VariationalAutoencoder)
    with pytest.raises(InputError, match=r"VariationalAutoencoder\.from_pretrained"):
        GaussianMixture.from_pretrained(tmp_path / "vae")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No model file"):
        GaussianMixture.from_pretrained(tmp_path / "empty")
    path = tmp_path / "vae" / "model.mogul"
    with pytest.raises(TypeError, match="unknown"):
        VariationalAutoencoder.from_pretrained(tmp_path / "vae", unknown=1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        VariationalAutoencoder.from_pretrained(tmp_path / "vae")
    with pytest.raises(InputError, match="as_gaussian_mixture"):
        BayesianGaussianMixture(2, 2).save_pretrained(tmp_path / "bayes")
    assert not (tmp_path / "bayes").exists()


def test_what_config_json_says_is_not_believed(tmp_path):
    pytest.importorskip("huggingface_hub")
    model = mixture()
    model.save_pretrained(tmp_path)
    lies = {"n_components": 99, "device": "tpu", "model": 1, "extra": 2, "model_type": "decoder"}
    (tmp_path / "config.json").write_text(json.dumps(lies))
    assert GaussianMixture.from_pretrained(tmp_path).n_components == model.n_components


def test_without_huggingface_hub_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    hub._held_class.cache_clear()
    model = mixture()
    for use in (
        lambda: model.save_pretrained(tmp_path),
        lambda: model.push_to_hub("a/b"),
        lambda: GaussianMixture.from_pretrained("a/b"),
    ):
        with pytest.raises(InputError, match=r"pip install 'mogul\[hub\]'"):
            use()


def test_nobody_waits_for_huggingface_hub_who_does_not_use_it():
    code = "import sys, mogul.models; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
