"""Random members of every registered family, for the tests."""

import torch

from mogul.distributions import Covariance, Full, Mixture, family


def random_covariance(name: str, n: int, n_features: int, seed: int = 0) -> Covariance:
    """Well-conditioned random covariances (n, D, D) of a family, in float64."""
    cls = family(name)
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if cls is Full:
        a = randn(n, n_features, n_features) / n_features**0.5
        return Full.from_covariance(a @ a.mT + 0.5 * torch.eye(n_features, dtype=torch.float64))
    shapes = cls.raw_shapes(n, n_features, 2)
    return cls.from_raw({key: 0.5 * randn(*shape) for key, shape in shapes.items()}, n_features)


def random_mixture(
    name: str, k: int, n_features: int, n_covariances: int, seed: int = 0
) -> Mixture:
    """A random mixture in float64 with means of size 2."""
    generator = torch.Generator().manual_seed(seed + 1)
    logits = torch.randn(k, generator=generator, dtype=torch.float64)
    centres = 2 * torch.randn(k, n_features, generator=generator, dtype=torch.float64)
    return Mixture(logits, centres, random_covariance(name, n_covariances, n_features, seed))
