"""Networks between latents and data: what a latent-variable model is built from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mogul.errors import InputError

_BASE = 16  # side of the smallest maps
_MAPS = 4  # how many of them the latents are spread over


class LinearDecoder(nn.Linear):
    """f(z) = W z + b: with Gaussian noise, probabilistic principal component analysis.

    Args:
        n_latents: latent dimension d.
        feature_shape: shape of one row of the data.

    Raises:
        InputError: if the number of latents is not positive.
    """

    def __init__(self, n_latents: int, feature_shape: Sequence[int]) -> None:
        """Allocate W (D, d) and b (D,).

        Raises:
            InputError: as the class says.
        """
        _check_sizes(n_latents=n_latents)
        super().__init__(n_latents, math.prod(feature_shape))
        self._config = {"n_latents": n_latents, "feature_shape": list(feature_shape)}

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""
        return self._config


class _Residual(nn.Module):
    """x + GELU(BN(conv3(GELU(BN(conv5(x)))))), at the same size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2), nn.BatchNorm2d(width), nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.GELU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ConvDecoder(nn.Module):
    """Latents to images of 32×32 pixels in (0, 1), by the network of Kuntz, Lim & Johansen (2023).

    A linear layer to 4×16×16, a transposed convolution to `width` channels, two residual blocks,
    and a transposed convolution to 32×32; batch normalisation and GELU between. The last layer's
    tanh, in (−1, 1), is moved to the unit interval that pixels live in here.

    Args:
        n_latents: latent dimension d.
        feature_shape: (32, 32) for grey images, (32, 32, 3) for colour; rows are flattened so.
        width: channels inside; 64 in the paper.
        squash: whether the tanh brings outputs to (0, 1); without, they are real, such as logits.

    Raises:
        InputError: for images of another size, or numbers that are not positive.

    Example:
        >>> import torch
        >>> from mogul.models import ConvDecoder
        >>> ConvDecoder(10, (32, 32))(torch.zeros(5, 10)).shape
        torch.Size([5, 1024])
    """

    def __init__(
        self, n_latents: int, feature_shape: Sequence[int], width: int = 64, squash: bool = True
    ) -> None:
        """Build the layers.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        _check_sizes(n_latents=n_latents, width=width)
        self.channels = image_channels(feature_shape, 2 * _BASE)
        self.squash = squash
        self._config = {
            "n_latents": n_latents, "feature_shape": list(feature_shape), "width": width,
            "squash": squash,
        }  # fmt: skip
        n_units = _MAPS * _BASE * _BASE
        self.spread = nn.Sequential(
            nn.Linear(n_latents, n_units), nn.BatchNorm1d(n_units), nn.GELU()
        )
        self.body = nn.Sequential(
            nn.ConvTranspose2d(_MAPS, width, 5, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.GELU(),
            _Residual(width),
            _Residual(width),
            nn.ConvTranspose2d(width, self.channels, 4, stride=2, padding=1),
        )

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""
        return self._config

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents (n, d) to rows (n, 1024 · channels)."""
        maps = self.spread(z).view(-1, _MAPS, _BASE, _BASE)
        # Convolutions are faster with the channels of a pixel side by side.
        images = self.body(maps.contiguous(memory_format=torch.channels_last))
        if self.squash:
            images = images.tanh().add(1).mul(0.5)
        return images.permute(0, 2, 3, 1).reshape(len(z), -1)


class ConvEncoder(nn.Module):
    """Images of 32×32 pixels to the numbers that a posterior over latents is made of.

    Three strided convolutions with batch normalisation and GELU, and a linear layer.

    Args:
        n_outputs: numbers per row; `PosteriorFamily.n_outputs` tells.
        feature_shape: (32, 32) or (32, 32, 3).
        width: channels of the first layer.

    Raises:
        InputError: for images of another size, or numbers that are not positive.
    """

    def __init__(self, n_outputs: int, feature_shape: Sequence[int], width: int = 32) -> None:
        """Build the layers.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        _check_sizes(n_outputs=n_outputs, width=width)
        self.channels = image_channels(feature_shape, 2 * _BASE)
        self._config = {
            "n_outputs": n_outputs, "feature_shape": list(feature_shape), "width": width,
        }  # fmt: skip
        widths = [self.channels, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.GELU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(4 * width * (_BASE // 4) ** 2, n_outputs)

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""
        return self._config

    def forward(self, x: Tensor) -> Tensor:
        """Encode rows (n, 1024 · channels) as (n, n_outputs)."""
        side = 2 * _BASE
        images = (2 * x - 1).view(-1, side, side, self.channels).permute(0, 3, 1, 2)
        return self.head(self.body(images))


class _Gated(nn.Module):
    """A(x) ⊙ sigmoid(B(x)), both from one product (Dauphin et al. 2017)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.both = nn.Linear(n_in, 2 * n_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.both(x))


class _Units(nn.Module):
    """What standardises features: their centre and spread, (D,), of the data or zero and one."""

    centre: Tensor
    spread: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))

    @torch.no_grad()
    def set(self, centre: Tensor, spread: Tensor) -> None:
        self.centre.copy_(centre)
        self.spread.copy_(spread)


class MLPEncoder(nn.Module):
    """Rows to the numbers that a posterior over latents is made of, by gated layers.

    Two of 300 are the network of Tomczak & Welling (2018).

    Args:
        n_outputs: numbers per row; `PosteriorFamily.n_outputs` tells.
        feature_shape: shape of one row before it is flattened.
        hidden: widths of the gated layers.
        units: whether to standardise rows by what `units.set(centre, spread)` is told.

    Raises:
        InputError: for numbers that are not positive.
    """

    def __init__(
        self,
        n_outputs: int,
        feature_shape: Sequence[int],
        hidden: Sequence[int] = (300, 300),
        units: bool = False,
    ) -> None:
        """Build the layers.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        _check_sizes(n_outputs=n_outputs, **{f"hidden {i}": n for i, n in enumerate(hidden)})
        self._config = {
            "n_outputs": n_outputs, "feature_shape": list(feature_shape), "hidden": list(hidden),
            "units": units,
        }  # fmt: skip
        self.units = _Units(math.prod(feature_shape)) if units else None
        self.body = _layers([math.prod(feature_shape), *hidden], n_outputs)

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""
        return self._config

    def forward(self, x: Tensor) -> Tensor:
        """Encode rows (n, D) as (n, n_outputs)."""
        if self.units is not None:
            x = (x - self.units.centre) / self.units.spread
        return self.body(x)


class MLPDecoder(nn.Module):
    """Latents to rows by gated layers; outputs are real numbers, such as means or logits.

    Args:
        n_latents: latent dimension d.
        feature_shape: shape of one row before it is flattened.
        hidden: widths of the gated layers.
        units: whether to bring outputs to the units that `units.set(centre, spread)` is told.

    Raises:
        InputError: for numbers that are not positive.

    Example:
        >>> import torch
        >>> from mogul.models import MLPDecoder
        >>> MLPDecoder(40, (28, 28))(torch.zeros(5, 40)).shape
        torch.Size([5, 784])
    """

    def __init__(
        self,
        n_latents: int,
        feature_shape: Sequence[int],
        hidden: Sequence[int] = (300, 300),
        units: bool = False,
    ) -> None:
        """Build the layers.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        _check_sizes(n_latents=n_latents, **{f"hidden {i}": n for i, n in enumerate(hidden)})
        self._config = {
            "n_latents": n_latents, "feature_shape": list(feature_shape), "hidden": list(hidden),
            "units": units,
        }  # fmt: skip
        self.units = _Units(math.prod(feature_shape)) if units else None
        self.body = _layers([n_latents, *hidden], math.prod(feature_shape))

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""
        return self._config

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents (n, d) to rows (n, D)."""
        made = self.body(z)
        return made if self.units is None else made * self.units.spread + self.units.centre


class MLP(nn.Module):
    """Rows to hidden features by fully connected layers with SiLU after each.

    Args:
        n_inputs: features of a row.
        hidden: widths of the layers.

    Raises:
        InputError: for numbers that are not positive, or without layers.
    """

    def __init__(self, n_inputs: int, hidden: Sequence[int] = (64, 64)) -> None:
        """Build the layers.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        _check_sizes(
            n_inputs=n_inputs, layers=len(hidden),
            **{f"hidden {i}": n for i, n in enumerate(hidden)},
        )  # fmt: skip
        self.n_inputs, self.n_outputs = n_inputs, hidden[-1]
        layers: list[nn.Module] = []
        for before, after in pairwise([n_inputs, *hidden]):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self._config = {"n_inputs": n_inputs, "hidden": list(hidden)}

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON types."""
        return self._config

    def forward(self, x: Tensor) -> Tensor:
        """Return hidden features (n, hidden[-1]) of rows (n, n_inputs)."""
        return self.body(x)


def _layers(widths: Sequence[int], n_out: int) -> nn.Sequential:
    """Return gated layers of these widths, and a linear one to n_out."""
    gated = [_Gated(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(*gated, nn.Linear(widths[-1], n_out))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} is {size}; it must be at least 1.")


def image_channels(feature_shape: Sequence[int], side: int) -> int:
    """Return the channels of square images of a given side.

    Raises:
        InputError: if rows are not such images.
    """
    shape = tuple(feature_shape)
    if shape[:2] != (side, side) or shape[2:] not in ((), (1,), (3,)):
        raise InputError(
            f"Rows of shape {shape} came; the convolutional decoder makes images of {side}×{side} "
            f"pixels: bring them to that size (`--size {side}x{side}`), or use the linear decoder."
        )
    return shape[2] if len(shape) == 3 else 1


DECODERS: dict[str, type[nn.Module]] = {
    "conv": ConvDecoder, "linear": LinearDecoder, "mlp": MLPDecoder,
}  # fmt: skip
ENCODERS: dict[str, type[nn.Module]] = {"conv": ConvEncoder, "mlp": MLPEncoder}
BACKBONES: dict[str, type[nn.Module]] = {"mlp": MLP}
