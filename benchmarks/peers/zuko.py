"""Claims about zuko."""

from __future__ import annotations

import io
from typing import Any

import torch

from benchmarks.peers.claims import (
    FULL,
    NO,
    PARTLY,
    Claim,
    ClaimError,
    Library,
    expect,
    gaps,
    nats,
    no_commands,
    refused,
    rows,
)

X = torch.as_tensor(rows())
YOURS = "the training loop is yours, and so is this"


def fitted(
    x: torch.Tensor = X, weight: torch.Tensor | None = None, steps: int = 100, **options: Any
) -> Any:
    """Return a mixture of two components, fitted by Adam in a loop of one's own."""
    import zuko

    torch.manual_seed(0)
    model = zuko.mixtures.GMM(3, components=2, **options)
    model.initialize(x, "kmeans++")
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    share = torch.full((len(x),), 1 / len(x)) if weight is None else weight / weight.sum()
    for _ in range(steps):
        optimiser.zero_grad()
        loss = -(share * model().log_prob(x)).sum()
        loss.backward()
        optimiser.step()
    return model


def score(model: Any, x: torch.Tensor = X) -> str:
    """Write the mean log-likelihood."""
    return nats(model().log_prob(x).mean().detach())


def flow() -> str:
    """Score under a spline flow, and a conditional one."""
    import zuko

    torch.manual_seed(0)
    given = zuko.flows.NSF(2, context=1)(X[:, :1]).log_prob(X[:, 1:])
    free = nats(zuko.flows.NSF(3)().log_prob(X).mean().detach())
    return f"NSF {free} unfitted; given a context {tuple(given.shape)}"


def network() -> str:
    """Condition a mixture on a context."""
    import zuko

    loss = -zuko.mixtures.GMM(2, context=1, components=3)(X[:, :1]).log_prob(X[:, 1:]).mean()
    loss.backward()
    return f"GMM(2, context=1): loss {float(loss.detach()):.3f}, with gradients"


def gradients() -> str:
    """Count the parameters that want gradients; try samples."""
    model = fitted(steps=1)
    n = sum(p.requires_grad for p in model.parameters())
    drawn = refused(lambda: model().rsample((2,)))
    return f"{n} parameters with gradients; of samples, rsample {drawn}"


def state() -> str:
    """Keep the parameters alone."""
    import zuko

    model, file = fitted(steps=1), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = zuko.mixtures.GMM(3, components=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    return expect(
        torch.equal(model().log_prob(X), other().log_prob(X)),
        True,
        "a state_dict, put into a model of the same make",
    )


def far() -> str:
    """Fit far from zero, and the same rows about zero.

    Raises:
        ClaimError: if both agree.
    """
    x = 1e5 + X
    there, here = (float(fitted(v)().log_prob(v).mean().detach()) for v in (x, x - 1e5))
    if abs(there - here) < 1e-3:
        raise ClaimError(f"float32 far from zero is fine: {there} and {here}")
    return f"{there:.4f} nats about 100,000, {here:.4f} about zero"


def other_components() -> str:
    """Mix other distributions."""
    from zuko.distributions import GeneralizedNormal, Mixture

    made = Mixture(GeneralizedNormal(torch.tensor([1.5, 3.0])), torch.zeros(2))
    return f"Mixture of GeneralizedNormal: {nats(made.log_prob(X[:, 0]).mean())}"


LIBRARY = Library(
    "zuko",
    "zuko",
    "zuko",
    {
        "simple": Claim(
            FULL,
            lambda: ", ".join(
                f"{c} {score(fitted(covariance_type=c))}" for c in ("full", "diagonal", "spherical")
            ),
        ),
        "tied": Claim(FULL, lambda: score(fitted(tied=True))),
        "em": Claim(
            NO,
            lambda: expect(
                hasattr(fitted(steps=1), "fit"),
                False,
                "no fit method: parameters are fitted by gradient",
            ),
        ),
        "gradient": Claim(FULL, gradients),
        "weights": Claim(PARTLY, lambda: score(fitted(weight=torch.linspace(0, 1, 600))), YOURS),
        "missing": Claim(NO, lambda: refused(lambda: fitted(torch.as_tensor(gaps())))),
        "conditional": Claim(PARTLY, network, "on a context chosen before training"),
        "memory": Claim(PARTLY, "1.6.0, Training tutorial: a loop over a DataLoader", YOURS),
        "processes": Claim(PARTLY, "1.6.0: its models are modules of torch", YOURS),
        "gpu": Claim(FULL, "1.6.0: its models are modules of torch, moved by `.to`"),
        "far": Claim(NO, far),
        "cli": Claim(NO, lambda: no_commands("zuko")),
        "mdn": Claim(FULL, network),
        "flows": Claim(FULL, flow),
        "others": Claim(FULL, other_components),
        "files": Claim(PARTLY, state, "parameters alone, put into a model that your code builds"),
    },
)
