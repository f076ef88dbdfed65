"""The variational autoencoder as a way to train a decoder: an encoder in place of particles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mogul.algorithms.base import Pass
from mogul.algorithms.particles import batches_of, check_latent_model
from mogul.compute.backend import make_generator
from mogul.errors import InputError
from mogul.protocols import HasLogJoint, Source


@dataclass
class _State:
    optimiser: torch.optim.Optimizer
    done: int = 0


class Amortised:
    r"""Raise the evidence lower bound with an encoder of Gaussians (Kingma & Welling 2014).

    $\mathcal L = E_q[\log p(x, z)] + H[q(z \mid x)]$, with the entropy
    $H = \tfrac12 \sum_j (1 + \log 2\pi + \log s_j^2)$ added: to subtract it would shrink every
    posterior to a point.

    The history's objective is the mean bound per row in nats. The encoder and the state of Adam are
    not part of the model, so a fit does not go on from a file.

    Args:
        encoder: rows (n, D) to mean and log-variance, (n, d) each; trained with the decoder.
        learning_rate: of Adam (Kingma & Ba 2015).
        batch_size: rows per step.
        seed: seed of the order of rows and of the draws.

    Raises:
        InputError: for numbers that are not positive.
    """

    monotone = False

    def __init__(
        self, encoder: nn.Module, learning_rate: float = 1e-3, batch_size: int = 128, seed: int = 0
    ) -> None:
        """Check the settings.

        Raises:
            InputError: as the class says.
        """
        if not learning_rate > 0 or batch_size < 1:
            raise InputError(
                f"Learning rate {learning_rate} and batch size {batch_size} came; both must be "
                "positive."
            )
        self.encoder = encoder
        self.learning_rate, self.batch_size, self.seed = learning_rate, batch_size, seed

    def init(self, model: HasLogJoint, source: Source, passes: int) -> _State:
        """Build the optimiser of encoder and decoder.

        Raises:
            InputError: if data and model do not fit each other.
        """
        check_latent_model(model, source)
        self.encoder.to(model.device, model.dtype)
        moving = [p for p in model.parameters() if p.requires_grad] + list(
            self.encoder.parameters()
        )
        return _State(torch.optim.Adam(moving, lr=self.learning_rate))

    def step(
        self, model: HasLogJoint, source: Source, state: _State, seen: Callable[[int], None]
    ) -> tuple[_State, Pass]:
        """Take one step per minibatch, over all rows in a random order.

        Raises:
            InputError: if rows have gaps, or the bound stops being finite.
        """
        draw = make_generator(self.seed * 1_000_003 + state.done, model.device)
        order = torch.randperm(len(source), generator=make_generator(self.seed + state.done))
        total = 0.0
        model.train()
        self.encoder.train()
        for index in batches_of(order, self.batch_size):
            x = source.take(index, model.dtype, model.device)
            if bool(x.isnan().any()):
                raise InputError(
                    "The data have gaps (NaN), which an encoder cannot read; leave the rows out, "
                    "or fit by particles, such as pga, which need no encoder."
                )
            bound = evidence_bound(model, self.encoder, x, draw).mean()
            if not bool(bound.isfinite()):
                raise InputError(
                    "The evidence lower bound stopped being finite; choose a smaller learning_rate."
                )
            state.optimiser.zero_grad(set_to_none=True)
            (-bound).backward()
            state.optimiser.step()
            total += float(bound.detach()) * len(index)
            seen(len(index))
        model.eval()
        self.encoder.eval()
        state.done += 1
        mean = total / len(source)
        return state, Pass(None, [], mean, disturbed=False, figures={"evidence_bound": mean})


def evidence_bound(
    model: HasLogJoint, encoder: Callable[[Tensor], Any], x: Tensor, draw: torch.Generator
) -> Tensor:
    """Return one-sample estimates of E_q[log p(x, z)] + H[q], (n,), in nats, of rows (n, D)."""
    mean, log_variance = encoder(x)
    noise = torch.empty_like(mean).normal_(generator=draw)
    z = mean + (0.5 * log_variance).exp() * noise
    entropy = 0.5 * (1 + math.log(2 * math.pi) + log_variance).sum(-1)
    return model.log_joint(x, z) + entropy
