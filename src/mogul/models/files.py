"""Models as files: tensors and a JSON configuration in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mogul.compute.checkpoint import load_tensors, save_tensors
from mogul.distributions import Prior
from mogul.errors import InputError
from mogul.models.gaussian_mixture import GaussianMixture

_FORMAT = 1


def save_model(
    path: str | Path, model: GaussianMixture, extra: dict[str, Any] | None = None
) -> None:
    """Write a model atomically; an interrupted save leaves the old file as it was.

    Args:
        path: the file to write.
        model: the model.
        extra: JSON-like facts to keep beside it (data options, history, command).

    Raises:
        InputError: for a model of another class, or a path that cannot be written.
    """
    if not isinstance(path, str | Path):
        raise InputError(
            f"A {type(path).__name__} came as the path; write save_model(path, model)."
        )
    if type(model) is not GaussianMixture:
        raise InputError(
            f"A {type(model).__name__} cannot be written; write its as_gaussian_mixture()."
        )
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    config = {"format": _FORMAT, "model": "gaussian-mixture", "arguments": model.config()}
    save_tensors(Path(path), tensors, config | {"extra": extra or {}})


def load_model(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[GaussianMixture, dict[str, Any]]:
    """Read a model written by `save_model`; no code in the file is run.

    Args:
        path: the file.
        device: where to put the parameters.

    Returns:
        the model, and the facts kept beside it.

    Raises:
        InputError: if the file is not a model of this library, or its tensors contradict it.
    """
    tensors, config = load_tensors(Path(path))
    try:
        if config["format"] != _FORMAT:
            raise InputError(
                f"{path} has model format {config['format']}, and this version reads format "
                f"{_FORMAT}; install a mogul version that knows it."
            )
        arguments = dict(config["arguments"])
        arguments["dtype"] = getattr(torch, arguments["dtype"])
        if arguments["prior"] is not None:
            arguments["prior"] = Prior(**arguments["prior"])
        model = GaussianMixture(**arguments)
        model.load_state_dict(tensors)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{path} is not a readable mogul model ({type(error).__name__}); fit it again with "
            "`mogul fit`."
        ) from error
    return model.to(device), config.get("extra", {})
