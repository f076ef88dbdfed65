"""A model file opened for use: the model, and data treated as its training data were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mogul.algorithms import log_likelihoods
from mogul.compute.backend import make_generator, resolve_device
from mogul.data import (
    ArraySource,
    DataSource,
    PixelScale,
    counterpart,
    holds_columns,
    is_csv,
    open_labels,
    open_source,
)
from mogul.distributions import Mixture
from mogul.errors import InputError
from mogul.evaluation import importance_log_likelihood
from mogul.models import (
    LatentVariableModel,
    MixtureDensityNetwork,
    VariationalAutoencoder,
    load_model,
)
from mogul.tasks import decode_rows, encode

DRAWS = 500  # per row of importance sampling, by which autoencoders are scored
_ENCODED = 1280  # rows encoded at a time
_USUAL = 1000  # training rows that others are compared with
_NAMED = 12  # columns in one message


@dataclass(frozen=True)
class _OpenedFile:
    """A model's configuration, and the facts kept with it."""

    config: dict[str, Any]
    extra: dict[str, Any]
    path: Path

    @property
    def n_features(self) -> int:
        """Number of features of a row."""
        return math.prod(self.feature_shape)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row of the training data."""
        return tuple(self.extra["feature_shape"])

    @property
    def is_image(self) -> bool:
        """Whether rows are pictures."""
        shape = self.feature_shape
        return len(shape) == 2 or (len(shape) == 3 and shape[-1] == 3)

    @property
    def reached(self) -> dict[str, Any]:
        """Figures of the fit, by name; where it has not come to its end, how far it came."""
        if "figures" in self.extra:
            return self.extra["figures"]
        history = self.extra["history"]
        made = {"objective": history[-1]["objective"]} if history else {}
        return {"stopped": "before its end", "passes": len(history)} | made

    @property
    def columns(self) -> list[str]:
        """Names of the columns of a table, or "column 0" and so on where they have none."""
        known = self.extra["options"].get("columns") or []
        if len(known) != self.n_features:
            known = map(str, range(self.n_features))
        return [f"column {name}" if name.isdecimal() else name for name in known]

    @property
    def quantiles(self) -> list[float]:
        """The quantiles of training log-likelihoods, which the end of a fit works out.

        Raises:
            InputError: if the fit has not come to its end.
        """
        if "quantiles" not in self.extra:
            raise InputError(
                f"The fit in {self.path} has not ended ({len(self.extra['history'])} passes are "
                "made), so that likelihoods of training rows are not known; end it by `mogul fit` "
                "with --resume."
            )
        return self.extra["quantiles"]

    def to_pixels(self, x: Tensor) -> np.ndarray:
        """Return rows (n, D) as 8-bit pictures.

        Raises:
            InputError: if the model is not one of images.
        """
        if not self.is_image:
            raise InputError(
                f"{self.path} models rows of shape {self.feature_shape}, not images; write a .npy "
                "file instead of a picture."
            )
        pixels = PixelScale(self.extra["levels"] or 256).to_pixels(x.cpu().numpy())
        return pixels.reshape(-1, *self.feature_shape)

    def open(self, data: str) -> DataSource:
        """Open data with the crop, size, colour and dequantisation of the training data.

        Raises:
            InputError: if the data cannot be read, or have another number of features.
        """
        of_training = ("data", "limit", "test_share", "split")
        options = {k: v for k, v in self.extra["options"].items() if k not in of_training}
        if options.get("binarise"):
            options["binarise"] = "static"  # so that scores are the same every time
        source = open_source(data, **_applicable(data, options))
        if source.n_features != self.n_features:
            raise InputError(
                f"{data} has rows of shape {source.feature_shape}, but {self.path} models rows of "
                f"shape {self.feature_shape}; give data of that shape."
            )
        return source

    def train(self, data: str | None = None) -> DataSource:
        """Open the training data again, or `data` in their place."""
        if data is not None:
            return self.open(data)
        return open_source(**self.extra["options"])

    def test(self, data: str | None) -> DataSource:
        """Open held-out data; by default the test split that belongs to the training data.

        That is the share of the rows that the fit left out, or that of a known data set.

        Raises:
            InputError: if there is no such split and no data are given.
        """
        options = self.extra["options"]
        if data is None and "test_share" in options:
            static = {"binarise": "static"} if options.get("binarise") else {}
            return open_source(**options | static | {"split": "test"})
        data = data or counterpart(options["data"])
        if data is None:
            raise InputError(
                f"The training data of {self.path} have no test split; give held-out data after "
                "the model, or hold a share of the rows out of the fit: `mogul fit --test 0.1`."
            )
        return self.open(data)

    def held_out(self, source: DataSource) -> bool:
        """Tell whether rows were kept out of the fit, as far as the name of their data tells."""
        of_training = self.extra["options"].get("data")
        same = source.options.get("data") == of_training
        return not same or source.options.get("split") == "test"

    def judged(self, data: str | None) -> DataSource:
        """Open rows to judge the model by: as `test` does, or else the training rows themselves."""
        options = self.extra["options"]
        if data is None and "test_share" not in options and counterpart(options["data"]) is None:
            return self.train()
        return self.test(data)


@dataclass(frozen=True)
class Opened(_OpenedFile):
    """A fitted mixture, with what was kept beside it."""

    mixture: Mixture

    scored_by: ClassVar = "log_likelihood"  # what `scores` are

    def scores(self, source: DataSource) -> Tensor:
        """Return log p(x) of every row, (n,), in nats."""
        return log_likelihoods(self.mixture, source)

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return posterior means (n, H) of the factors of each row's most responsible component.

        Returns:
            these, the component (n,), and its responsibility (n,).
        """
        mixture, parts = self.mixture, []
        for rows in x.split(_ENCODED):
            every = mixture.factors(rows)
            responsibility, k = mixture.responsibilities(rows).max(-1)
            parts.append((every[torch.arange(len(rows), device=x.device), k], k, responsibility))
        factors, component, responsibility = (torch.cat(t) for t in zip(*parts, strict=True))
        return factors, component, responsibility

    def rows(self, source: DataSource, n: int | None = None) -> Tensor:
        """Return the first n rows of a source as the mixture wants them."""
        return _first(source, n, self.mixture)


@dataclass(frozen=True)
class OpenedDecoder(_OpenedFile):
    """A fitted latent-variable model, with what was kept beside it."""

    model: LatentVariableModel

    scored_by: ClassVar = "log_joint"  # what `scores` are

    def rows(self, source: DataSource, n: int | None = None) -> Tensor:
        """Return the first n rows of a source as the model wants them."""
        return _first(source, n, self.model)

    def scores(self, source: DataSource) -> Tensor:
        """Return log p(x, z) of the most probable latents z of every row, (n,), in nats.

        The log-likelihood itself is an integral over z, which a decoder alone has no way to.
        """
        batches = source.batches(_ENCODED, self.model.dtype, self.model.device)
        return torch.cat([
            encode(self.model, batch.x).log_joint.cpu().double() for batch in batches
        ])

    def usual_scores(self, data: str | None = None) -> np.ndarray:
        """Return scores of 1,000 training rows at random, or of all where there are no more.

        Args:
            data: where the training data are now; default: where the fit read them.
        """
        options = self.extra["options"]
        static = {"binarise": "static"} if options.get("binarise") else {}
        train = open_source(**options | static | ({} if data is None else {"data": data}))
        index = torch.randperm(len(train), generator=make_generator(0))[:_USUAL].sort().values
        return self.scores(ArraySource(train.take(index, self.model.dtype))).numpy()

    def latents(self, x: Tensor) -> Tensor:
        """Return the most probable latents of rows, (n, d)."""
        return encode(self.model, x).latents

    def rebuild(self, x: Tensor) -> Tensor:
        """Return rows decoded from their latents."""
        return decode_rows(self.model, self.latents(x))

    def labels(self, data: str | None) -> Tensor:
        """Return the classes of the training rows, from a file or those of the data set."""
        own, rows = self.extra["options"]["data"], self.extra["settings"]["rows"]
        return open_labels(own, rows) if data is None else open_labels(data)


@dataclass(frozen=True)
class OpenedAutoencoder(OpenedDecoder):
    """A fitted autoencoder, with what was kept beside it."""

    model: VariationalAutoencoder

    scored_by: ClassVar = "log_likelihood"

    def scores(self, source: DataSource) -> Tensor:
        """Return log p(x) of every row by importance sampling with 500 draws, (n,), in nats."""
        return importance_log_likelihood(self.model, source, DRAWS).log_likelihood[DRAWS]

    def latents(self, x: Tensor) -> Tensor:
        """Return the posterior means of rows that the encoder gives, (n, d)."""
        parts = [self.model.posterior(rows).mean for rows in x.split(_ENCODED)]
        return torch.cat(parts)

    def classes(self, source: DataSource, labels: str | None) -> Tensor | None:
        """Return the classes of rows, from a file or those of their data set, if it has any.

        Raises:
            InputError: if labels that were given cannot be read.
        """
        if labels is not None:
            return open_labels(labels)
        try:
            return open_labels(source.name, len(source))
        except InputError:
            return None


@dataclass(frozen=True)
class OpenedNetwork(_OpenedFile):
    """A fitted mixture density network, with what was kept beside it."""

    model: MixtureDensityNetwork

    def open(self, data: str) -> DataSource:
        """Open rows of inputs and targets, by the columns of the training data.

        Raises:
            InputError: if the data have no such columns.
        """
        columns = [*self.extra["inputs"], *self.extra["targets"]]
        return self._table(data, columns, "all of these columns")

    def open_inputs(self, data: str) -> DataSource:
        """Open the inputs of rows, which need not hold targets.

        Raises:
            InputError: if the data have no such columns.
        """
        return self._table(data, self.extra["inputs"], "the columns that it predicts from")

    def _table(self, data: str, columns: list[str], what: str) -> DataSource:
        """Open some columns of a table.

        Raises:
            InputError: if the data are no table, or have no such columns.
        """
        inputs, targets = _few(self.extra["inputs"]), _few(self.extra["targets"])
        allowed = f"{self.path} predicts {targets} from {inputs}: give a table with {what}."
        try:
            source = open_source(data, columns=columns)
        except InputError as error:
            raise InputError(f"{error} {allowed}") from error
        if source.feature_shape != (len(columns),):
            raise InputError(f"{data} has rows of shape {source.feature_shape}. {allowed}")
        return source

    def scores(self, source: DataSource) -> Tensor:
        """Return log p(targets | inputs) of every row, (n,), in nats; NaN without a target."""
        found = []
        for batch in source.batches(dtype=self.model.dtype, device=self.model.device):
            x, y = self.model.split(batch.x)
            scored = self.model(x).log_prob(y)
            found.append(torch.where(y.isnan().all(-1), torch.nan, scored).cpu())
        return torch.cat(found)


def _few(names: list[str]) -> str:
    """Return names in a line that is not too long to read."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _first(source: DataSource, n: int | None, like: Mixture | LatentVariableModel) -> Tensor:
    n = len(source) if n is None else min(n, len(source))
    return source.take(range(n), like.dtype, like.device)


def open_model(path: Path, device: str = "auto") -> Opened:
    """Open the file of a mixture for use.

    Args:
        path: what `mogul fit` wrote.
        device: auto, cpu or cuda.

    Returns:
        the opened model.

    Raises:
        InputError: if the file is not the model of a mixture, or holds values that are not finite.
    """
    opened = open_any(path, device)
    if not isinstance(opened, Opened):
        raise InputError(
            f"{path} holds a neural network, and this command is for mixtures; use sample, "
            "inpaint, reconstruct, report, or, of an autoencoder, score."
            if isinstance(opened, OpenedDecoder)
            else f"{path} holds a network that predicts {', '.join(opened.extra['targets'])}; use "
            "predict, score, evaluate or report."
        )
    return opened


def open_network(path: Path, device: str = "auto") -> OpenedNetwork:
    """Open the file of a mixture density network.

    Raises:
        InputError: if the file is of another model, or holds values that are not finite.
    """
    opened = open_any(path, device)
    if not isinstance(opened, OpenedNetwork):
        raise InputError(
            f"{path} does not predict columns from others; fit a network that does with `mogul fit "
            "--model mdn --target COLUMN`."
        )
    return opened


def open_density(path: Path, device: str = "auto") -> Opened | OpenedDecoder:
    """Open the file of a model of rows as a whole, which predicts no columns from others.

    Raises:
        InputError: if the file is of a mixture density network, or holds values that are not
            finite.
    """
    opened = open_any(path, device)
    if isinstance(opened, OpenedNetwork):
        raise InputError(
            f"{path} predicts {', '.join(opened.extra['targets'])} from other columns, and models "
            "no rows as a whole; use predict, score, evaluate or report."
        )
    return opened


def open_scored(path: Path, device: str = "auto") -> Opened | OpenedAutoencoder | OpenedNetwork:
    """Open the file of a model that can score rows.

    Raises:
        InputError: if the file is of another model, or holds values that are not finite.
    """
    opened = open_any(path, device)
    if isinstance(opened, OpenedDecoder) and not isinstance(opened, OpenedAutoencoder):
        raise InputError(
            f"{path} holds a neural decoder, whose log-likelihoods are not tractable; use sample, "
            "inpaint or report, or `annealed_likelihood` in Python."
        )
    return opened


def open_any(path: Path, device: str = "auto") -> Opened | OpenedDecoder | OpenedNetwork:
    """Open a model file for use, whatever the model.

    Args:
        path: what `mogul fit` wrote.
        device: auto, cpu or cuda.

    Returns:
        the opened model.

    Raises:
        InputError: if the file is not a model, or holds values that are not finite.
    """
    model, extra = load_model(path, resolve_device(device))
    model.requires_grad_(False)
    if "options" not in extra or "feature_shape" not in extra:
        raise InputError(
            f"{path} holds a model without its data options, so commands cannot open data for it; "
            "fit it with `mogul fit`, or use it from Python."
        )
    if not all(bool(t.isfinite().all()) for t in model.state_dict().values()):
        raise InputError(f"{path} holds parameters that are not finite; fit the model again.")
    if isinstance(model, MixtureDensityNetwork):
        return OpenedNetwork(model.config(), extra, path, model)
    if isinstance(model, VariationalAutoencoder):
        return OpenedAutoencoder(model.config(), extra, path, model)
    if isinstance(model, LatentVariableModel):
        return OpenedDecoder(model.config(), extra, path, model)
    return Opened(model.config(), extra, path, model())


def _applicable(data: str, options: dict[str, Any]) -> dict[str, Any]:
    """Drop picture options for arrays, which they do not apply to."""
    is_table = is_csv(data) or holds_columns(Path(data))
    is_array = is_table or Path(data).suffix in (".npy", ".npz", ".gz") or "ubyte" in data
    drop = ("crop", "size", "colour") if is_table else ("colour",) if is_array else ()
    numbered = all(column.isdecimal() for column in options.get("columns", []))
    drop += () if is_table or (is_array and numbered) else ("columns",)
    return {k: v for k, v in options.items() if k not in drop}
