"""Where online EM stands between batches, and how that is written down."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mogul.distributions import MaskedMoments, Moments


@dataclass
class OnlineState:
    """Where online EM stands; all but what can be had again can be written to a file.

    `statistics` are those of the present parameters, `average` their mean over steps; both are
    about the present centres. `steps` and `done` count steps and whole passes, `mass` and `rows`
    what the present pass has seen, `whole` the mass of the pass before. `seen` (D,) marks columns
    that had a value.
    """

    done: int = 0
    steps: int = 0
    rows: int = 0
    mass: float = 0.0
    whole: float = 0.0
    statistics: Any = None
    average: Any = None
    seen: Tensor | None = None
    workspaces: list[dict[str, Tensor]] = field(default_factory=list)
    weights: Tensor | None = None  # of all rows, read again by a fit that goes on

    def flat(self) -> dict[str, Tensor]:
        """Return copies of all tensors by name, and the counts as tensors."""
        out = {name: torch.tensor(getattr(self, name)) for name in ("done", "steps", "rows")}
        for name in ("mass", "whole"):
            out[name] = torch.tensor(getattr(self, name), dtype=torch.float64)
        if self.seen is not None:
            out["seen"] = self.seen.clone()
        for part in ("statistics", "average"):
            held = getattr(self, part)
            for f in () if held is None else dataclasses.fields(held):
                value = getattr(held, f.name)
                if value is not None:
                    out[f"{part}/{f.name}"] = value.clone(memory_format=torch.contiguous_format)
        return out

    @classmethod
    def restored(cls, tensors: dict[str, Tensor]) -> OnlineState:
        """Return the state that `flat` told of."""
        kinds = {int: ("done", "steps", "rows"), float: ("mass", "whole")}
        state = cls(**{n: kind(tensors[n]) for kind, names in kinds.items() for n in names})
        state.seen = tensors.get("seen")
        for part in ("statistics", "average"):
            own = {k.removeprefix(f"{part}/"): v for k, v in tensors.items() if k.startswith(part)}
            if own:
                setattr(state, part, (MaskedMoments if "gram" in own else Moments)(**own))
        return state
