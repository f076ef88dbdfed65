"""Models as files: tensors and a JSON configuration in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mogul.compute.checkpoint import load_tensors, save_tensors
from mogul.distributions import Prior
from mogul.errors import InputError
from mogul.models.autoencoder import VariationalAutoencoder
from mogul.models.decoder import LatentVariableModel
from mogul.models.gaussian_mixture import GaussianMixture
from mogul.models.mixture_density import MixtureDensityNetwork

_TRAINING = "training/"  # before the names of what a fit needs to go on
_MEMORY = "memory/"  # the same, where `fit` keeps it
_FORMAT = 1
_PARTS = ("format", "model", "arguments", "extra")  # of a configuration
_KINDS: dict[type, str] = {
    GaussianMixture: "gaussian-mixture",
    LatentVariableModel: "decoder",
    VariationalAutoencoder: "autoencoder",
    MixtureDensityNetwork: "mixture-density",
}
Model = GaussianMixture | LatentVariableModel | MixtureDensityNetwork


def save_model(
    path: str | Path,
    model: Model,
    extra: dict[str, Any] | None = None,
    memory: dict[str, Tensor] | None = None,
) -> None:
    """Write a model atomically; an interrupted save leaves the old file as it was.

    With a latent-variable model go its particles and the state of its fit, so that this can go on.

    Args:
        path: the file to write.
        model: the model.
        extra: JSON-like facts to keep beside it (data options, history, command).
        memory: what a fit that goes on from here needs; see `Checkpoint`.

    Raises:
        InputError: for a model of another class, or a path that cannot be written.
    """
    if not isinstance(path, str | Path):
        raise InputError(
            f"A {type(path).__name__} came as the path; write save_model(path, model)."
        )
    kind = kind_of(model)
    tensors = dict(model.state_dict())
    if isinstance(model, LatentVariableModel):
        tensors |= {_TRAINING + name: t for name, t in model.training_state.items()}
    tensors |= {_MEMORY + name: t for name, t in (memory or {}).items()}
    config = {"format": _FORMAT, "model": kind, "arguments": model.config(), "extra": extra or {}}
    # Cloned, because what shares memory cannot be written.
    copies = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    save_tensors(Path(path), copies, config)


def kind_of(model: Any) -> str:
    """Return the name of a model's class in its file.

    Raises:
        InputError: for a class that is not written.
    """
    if type(model) not in _KINDS:
        raise InputError(
            f"A {type(model).__name__} cannot be written; write its as_gaussian_mixture()."
        )
    return _KINDS[type(model)]


def load_model(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[Model, dict[str, Any]]:
    """Read a model written by `save_model`; no code in the file is run.

    Args:
        path: the file.
        device: where to put the parameters.

    Returns:
        the model, and the facts kept beside it.

    Raises:
        InputError: if the file is not a model of this library, or its tensors contradict it.
    """
    tensors, config, _ = load_fit(path)
    try:
        with torch.device("meta"):  # of which nothing is allocated, whatever sizes are told
            _check_tensors(_built(config), tensors)
        model = _built(config)
        fill(model, tensors)
    except InputError:
        raise
    except Exception as error:  # what a configuration may hold, classes refuse in many ways
        raise InputError(
            f"{path} is not a readable mogul model ({type(error).__name__}); fit it again with "
            "`mogul fit`."
        ) from error
    if not isinstance(model, GaussianMixture):
        model.eval()
    return model.to(device), config.get("extra", {})


def load_fit(
    path: str | Path,
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """Read the tensors of a model, its configuration, and what a fit that goes on needs.

    Raises:
        InputError: if the file is missing, damaged, or of another format.
    """
    tensors, config = load_tensors(Path(path))
    if config.get("format") != _FORMAT:
        raise InputError(
            f"{path} has model format {config.get('format')}, and this version reads format "
            f"{_FORMAT}; install a mogul version that knows it."
        )
    odd = [name for name in config if name not in _PARTS]
    if odd or not isinstance(config.get("extra", {}), dict):
        raise InputError(
            f"{path} is damaged: its configuration holds {', '.join(odd)[:80] or 'no facts'}; "
            "fetch the file again, or fit again."
        )
    own = {name: t for name, t in tensors.items() if not name.startswith(_MEMORY)}
    memory = {
        name.removeprefix(_MEMORY): t for name, t in tensors.items() if name.startswith(_MEMORY)
    }
    return own, config, memory


def _built(config: dict[str, Any]) -> Model:
    """Return the model of a configuration, with fresh parameters."""
    cls = {name: cls for cls, name in _KINDS.items()}[config["model"]]
    arguments = dict(config["arguments"])
    if cls is not GaussianMixture:
        return cls.from_config(arguments)  # pyright: ignore[reportAttributeAccessIssue]
    arguments["dtype"] = getattr(torch, arguments["dtype"])
    if arguments["prior"] is not None:
        arguments["prior"] = Prior(**arguments["prior"])
    return GaussianMixture(**arguments, device=torch.get_default_device())


def _check_tensors(model: Model, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors of other shapes or types than the parameters of a model.

    Raises:
        InputError: naming the first.
    """
    for name, own in model.state_dict().items():
        found = tensors.get(name)
        if name == "particles" or (
            found is not None and found.shape == own.shape and found.dtype == own.dtype
        ):
            continue
        came = "none" if found is None else f"{tuple(found.shape)} of {found.dtype}"
        raise InputError(
            f"The file holds another model than it says: {name} should be {tuple(own.shape)} of "
            f"{own.dtype}, and {came} came; fit the model again."
        )


def fill(model: Model, tensors: dict[str, Tensor]) -> None:
    """Give a model the tensors of a file, with particles and the state of a fit where it has any.

    Raises:
        KeyError: if some of its parameters are not among them.
    """
    if not isinstance(model, LatentVariableModel):
        model.load_state_dict(tensors)
        return
    own = {name: t for name, t in tensors.items() if not name.startswith(_TRAINING)}
    model.particles = own.pop("particles", None)
    model.load_state_dict(own, strict=False)
    missing = set(model.state_dict()) - set(own) - {"particles"}
    if missing:
        raise KeyError(*missing)
    model.training_state = {
        name.removeprefix(_TRAINING): t for name, t in tensors.items() if name.startswith(_TRAINING)
    }
