"""A small classifier whose inner layer says what images show: features to compare sets by.

Distances on these features rank models of the same data by the same classifier. They are not those
on the features of the Inception network, and numbers of the two cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mogul.compute.backend import make_generator
from mogul.compute.checkpoint import load_tensors, save_tensors
from mogul.errors import InputError

_SIDES = (28, 32)
_WIDTH = 128
_BATCH = 512
_RATE = 1e-3
_FORMAT = 1


class Classifier(nn.Module):
    """Images in (0, 1) to classes: two convolutions with pooling, and two linear layers.

    Args:
        feature_shape: (28, 28) or (32, 32) for grey images, with 3 after it for colour; rows are
            flattened so.
        n_classes: number of classes.
        seed: seed of the first parameters; the global generator is not moved.

    Raises:
        InputError: for images of another size, or fewer than two classes.

    Example:
        >>> import torch
        >>> from mogul.evaluation.features import Classifier
        >>> Classifier((28, 28)).features(torch.zeros(5, 784)).shape
        torch.Size([5, 128])
    """

    def __init__(self, feature_shape: Sequence[int], n_classes: int = 10, seed: int = 0) -> None:
        """Build the layers.

        Raises:
            InputError: as the class says.
        """
        super().__init__()
        self.feature_shape = tuple(feature_shape)
        self.n_classes = n_classes
        side, channels = _side_and_channels(self.feature_shape)
        if n_classes < 2:
            raise InputError(f"{n_classes} class(es) came; there must be two to tell apart.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.GELU(),
                nn.MaxPool2d(2),
                nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.GELU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(64 * (side // 4) ** 2, _WIDTH), nn.GELU(),
            )  # fmt: skip
            self.head = nn.Linear(_WIDTH, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, n_classes) of rows (n, H·W·C).

        Raises:
            InputError: if rows have another width.
        """
        return self.head(self.body(self._images(x)))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer but one says, (n, 128), of rows (n, H·W·C).

        Raises:
            InputError: if there are no rows, they have another width, or a value is not finite.
        """
        _check_rows(x, self.feature_shape)
        training = self.training
        self.eval()
        found = [self.body(self._images(part)) for part in x.split(_BATCH)]
        self.train(training)
        return torch.cat(found)

    def _images(self, x: Tensor) -> Tensor:
        """Return images (n, C, H, W) in (−1, 1).

        Raises:
            InputError: if rows have another width.
        """
        side, channels = _side_and_channels(self.feature_shape)
        if x.ndim != 2 or x.shape[1] != side * side * channels:
            raise InputError(
                f"Rows of shape {tuple(x.shape)} came to a classifier of images of shape "
                f"{self.feature_shape}; flatten images of that shape to rows."
            )
        x = x.to(self.head.weight)
        return (2 * x - 1).view(-1, side, side, channels).permute(0, 3, 1, 2)


def train_classifier(
    x: Tensor,
    labels: Tensor,
    feature_shape: Sequence[int],
    epochs: int = 3,
    batch_size: int = 128,
    seed: int = 0,
) -> Classifier:
    """Train a classifier by Adam on the cross-entropy.

    Args:
        x: images in (0, 1) as rows (n, H·W·C).
        labels: classes (n,), integers from 0.
        feature_shape: shape of one image before it is flattened.
        epochs: passes over the rows.
        batch_size: rows per step.
        seed: seed of the first parameters and of the order of rows.

    Returns:
        the classifier, set to score.

    Raises:
        InputError: if images and labels do not fit each other or the classifier, or a setting is
            below one.
    """
    _check_rows(x, feature_shape)
    _check_labels(labels, len(x))
    if min(epochs, batch_size) < 1:
        raise InputError(
            f"{epochs} epochs and batches of {batch_size} rows came; both must be at least 1."
        )
    labels = labels.long()
    model = Classifier(feature_shape, int(labels.max()) + 1, seed).to(x.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=_RATE)
    draw = make_generator(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=draw).split(batch_size):
            optimiser.zero_grad()
            F.cross_entropy(model(x[index]), labels[index].to(x.device)).backward()
            optimiser.step()
    return model.eval()


def save_classifier(path: str | Path, model: Classifier) -> None:
    """Write a classifier atomically.

    Raises:
        InputError: if the path cannot be written.
    """
    config = {
        "format": _FORMAT, "model": "classifier", "feature_shape": list(model.feature_shape),
        "n_classes": model.n_classes,
    }  # fmt: skip
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    save_tensors(path, tensors, config)


def load_classifier(path: str | Path) -> Classifier:
    """Read what `save_classifier` wrote; nothing in the file is run.

    Raises:
        InputError: if the file is missing, damaged, or does not hold a classifier.
    """
    tensors, config = load_tensors(path)
    if config.get("model") != "classifier" or config.get("format") != _FORMAT:
        raise InputError(
            f"{path} does not hold a classifier of format {_FORMAT}; give a file that "
            "`python -m benchmarks train_classifier` or save_classifier wrote."
        )
    try:
        model = Classifier(config["feature_shape"], config["n_classes"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} is not a readable classifier ({type(error).__name__}); train it again."
        ) from error
    return model.eval()


def _side_and_channels(feature_shape: Sequence[int]) -> tuple[int, int]:
    """Return side and channels of images.

    Raises:
        InputError: if images of that shape cannot be classified.
    """
    shape = tuple(feature_shape)
    sides, rest = shape[:2], shape[2:]
    if sides not in {(s, s) for s in _SIDES} or rest not in {(), (1,), (3,)}:
        raise InputError(
            f"Rows of shape {shape} came; the classifier takes images of 28×28 or 32×32 pixels, "
            "grey or of 3 colours: bring them to such a size."
        )
    return shape[0], math.prod(rest)


def _check_rows(x: Tensor, feature_shape: Sequence[int]) -> None:
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != math.prod(feature_shape):
        raise InputError(
            f"Rows of shape {tuple(x.shape)} came for images of shape {tuple(feature_shape)}; "
            f"they must have shape (n, {math.prod(feature_shape)}) with at least one row."
        )
    if not bool(x.isfinite().all()):
        raise InputError(
            "Images with missing or infinite pixels cannot be classified; fill them in first."
        )


def _check_labels(labels: Tensor, n: int) -> None:
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (n,) or not whole or int(labels.min()) < 0:
        raise InputError(
            f"Labels of shape {tuple(labels.shape)} and type {labels.dtype} came for {n} rows; "
            "give one integer from 0 for each."
        )
