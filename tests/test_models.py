"""Model files come back as they were written, and nothing half-written is ever seen."""

import json
import os

import numpy as np
import pytest
import torch

from families import random_mixture
from mogul import GaussianMixture, InputError, load_model, save_model
from mogul.compute.checkpoint import save_tensors
from mogul.distributions import families
from mogul.models.gaussian_mixture import SHARINGS


def _model(name="ppca", sharing="own"):
    rank = 2 if families()[name].low_rank else None
    model = GaussianMixture(3, 5, name, rank, sharing, dtype=torch.float64)
    model.load(random_mixture(name, 3, 5, 3 if sharing == "own" else 1))
    return model


@pytest.mark.parametrize("name", list(families()))
@pytest.mark.parametrize("sharing", SHARINGS)
def test_round_trip(tmp_path, name, sharing):
    model = _model(name, sharing)
    save_model(tmp_path / "m.mogul", model, {"note": [1, "two"]})
    again, extra = load_model(tmp_path / "m.mogul")
    assert extra == {"note": [1, "two"]}
    assert again.config() == model.config()
    x = model().sample((20,), seed=0)
    torch.testing.assert_close(again().log_prob(x), model().log_prob(x), rtol=0, atol=0)
    assert os.listdir(tmp_path) == ["m.mogul"]


def test_the_number_of_parameters_is_that_of_information_criteria():
    # full: K − 1 + KD + KD(D+1)/2 = 2 + 15 + 45
    assert _model("full").n_parameters == 62
    assert _model("full", "shared").n_parameters == 32
    assert _model("full", "constant").n_parameters == 17
    # ppca: DH − H(H−1)/2 + 1 = 10 per component
    assert _model("ppca").n_parameters == 47
    assert _model("isotropic").n_parameters == 20


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.mogul"
    save_model(path, _model())
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(InputError, match="No space"):
        save_model(path, _model())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.mogul"]


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "m.mogul"
    with pytest.raises(InputError, match="No model file"):
        load_model(path)
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match="not a mogul model"):
        load_model(path)
    save_model(path, _model())
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="damaged"):
        load_model(path)
    save_tensors(path, {"a": torch.zeros(1)}, {"format": 99})
    with pytest.raises(InputError, match="format 99"):
        load_model(path)
    config = {"format": 1, "arguments": _model().config()}
    save_tensors(path, {"a": torch.zeros(1)}, config)
    with pytest.raises(InputError, match="not a readable mogul model"):
        load_model(path)


def test_the_file_is_safetensors_with_json(tmp_path):
    save_model(tmp_path / "m.mogul", _model())
    content = (tmp_path / "m.mogul").read_bytes()
    size = int(np.frombuffer(content[:8], "<u8")[0])
    header = json.loads(content[8 : 8 + size])
    config = json.loads(header["__metadata__"]["mogul"])
    assert config["arguments"]["covariance"] == "ppca"


def test_load_refuses_another_family():
    with pytest.raises(InputError, match="does not fit"):
        _model("ppca").load(random_mixture("full", 3, 5, 3))
