"""mogul: density modelling with mixtures of Gaussians and Gaussian latent-variable models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mogul.algorithms import EM, Gradient, OnlineEM, TruncatedEM, fit, initialise
    from mogul.compute.collective import joined
    from mogul.data import open_source
    from mogul.distributions import Mixture
    from mogul.errors import InputError
    from mogul.models import Checkpoint, GaussianMixture, load_model, save_model

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "mogul.models",
    "EM": "mogul.algorithms",
    "GaussianMixture": "mogul.models",
    "Gradient": "mogul.algorithms",
    "InputError": "mogul.errors",
    "Mixture": "mogul.distributions",
    "OnlineEM": "mogul.algorithms",
    "TruncatedEM": "mogul.algorithms",
    "fit": "mogul.algorithms",
    "initialise": "mogul.algorithms",
    "joined": "mogul.compute.collective",
    "load_model": "mogul.models",
    "open_source": "mogul.data",
    "save_model": "mogul.models",
}

__all__ = [
    "EM",
    "Checkpoint",
    "GaussianMixture",
    "Gradient",
    "InputError",
    "Mixture",
    "OnlineEM",
    "TruncatedEM",
    "fit",
    "initialise",
    "joined",
    "load_model",
    "open_source",
    "save_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `mogul --help` need not wait for torch.

    Raises:
        AttributeError: if there is no such public name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'mogul' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
