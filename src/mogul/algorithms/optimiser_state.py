"""What a fit that goes on from a file needs of an optimiser: its moments, as tensors by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mogul.errors import InputError


def moments_of(optimiser: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the moments of parameters, as `NAME/PART`.

    Args:
        optimiser: the optimiser.
        names: of its parameters, in its order.
    """
    held = optimiser.state_dict()["state"]
    # Cloned, because the optimiser goes on writing into its own.
    return {f"{names[i]}/{k}": t.clone() for i, each in held.items() for k, t in each.items()}


def restore_moments(
    optimiser: torch.optim.Optimizer, names: Sequence[str], held: dict[str, Tensor]
) -> None:
    """Give an optimiser the moments that `moments_of` returned; its rates stay as they are.

    Raises:
        InputError: if they are none, or those of other parameters.
    """
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in held.items():
        name, _, part = key.rpartition("/")
        moments.setdefault(name, {})[part] = tensor.clone()
    if not moments or not set(moments) <= set(names):
        raise InputError(
            "The model was trained by another algorithm, or other parts of it were learned; build "
            "it anew, or go on with the algorithm it was trained by."
        )
    whole: dict[str, Any] = optimiser.state_dict()
    whole["state"] = {i: moments[n] for i, n in enumerate(names) if n in moments}
    optimiser.load_state_dict(whole)
