"""Where to start: rows or clusters of a subsample, each followed by local covariances."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from mogul.algorithms.afk_mc2 import afk_mc2
from mogul.algorithms.base import check_model, check_source, fit
from mogul.algorithms.em import EM, check_enough_rows
from mogul.algorithms.kmeans import kmeans, kmeans_plusplus, nearest_centre
from mogul.algorithms.rows import Rows
from mogul.algorithms.scoring import mean_log_likelihood
from mogul.algorithms.truncated_kmeans import truncated_kmeans
from mogul.compute.backend import in_full_precision, make_generator
from mogul.compute.collective import Group, group_of
from mogul.compute.columns import column_means
from mogul.errors import InputError
from mogul.protocols import HeadedSource, Source

METHODS = ("k-means", "k-means++", "random", "afk-mc2", "truncated-k-means")
_FOR_MANY = ("afk-mc2", "truncated-k-means")  # components
_ROWS_EACH = 30  # of the subsample, for each of many components
_MOST_VALUES = 2**28  # of the subsample: 1 GB in float32
_SHORT_PASSES = 5
_MOST_PERMUTED = 2**22  # rows of which a permutation is held in memory


@in_full_precision
def initialise(
    model: Any,
    source: Source,
    method: str = "k-means",
    n_init: int = 1,
    seed: int = 0,
    sample_size: int = 20_000,
) -> None:
    """Set a model's parameters from the data, ready for a fit.

    Centres come from random rows, from k-means++ seeding (Arthur & Vassilvitskii 2007) or from
    k-means; rows go to their nearest centre, and each cluster gives its size as weight, its mean,
    and its covariance (a local PPCA for low-rank families). For this start alone, missing values
    stand at the mean of their column.

    For thousands of components there are two methods whose cost grows less than with rows ×
    components: AFK-MC² seeding (Bachem, Lucic, Hassani & Krause 2016), after which rows go to their
    nearest centre, and k-means from such seeds in which rows look only at centres near those they
    know. They start from at least 30 rows per component, as far as there are so many, and as these
    fit in 1 GB of float32.

    Args:
        model: the model to set, in place.
        source: the data; at most `sample_size` rows of them are read, or 30 per component by the
            methods for many, drawn at random; the first ones where the data can be read once only.
        method: "k-means", "k-means++" or "random"; for many components "afk-mc2" or
            "truncated-k-means".
        n_init: how many starts to try; each is fitted for 5 passes on the subsample and the one
            with the highest likelihood is kept.
        seed: seed of all random choices.
        sample_size: rows to start from.

    Raises:
        InputError: for an unknown method, or more components than rows.
    """
    if method not in METHODS:
        raise InputError(f"Unknown start '{method}'; choose one of: {', '.join(METHODS)}.")
    check_source(source)
    check_model(model)
    if n_init < 1:
        raise InputError(f"n_init is {n_init}; it must be at least 1.")
    group = group_of(source)
    if source.n_features != model.n_features:
        raise InputError(
            f"The data have {source.n_features} features and the model {model.n_features}; "
            "build the model with n_features=source.n_features."
        )
    if method in _FOR_MANY:
        sample_size = max(sample_size, _ROWS_EACH * model.n_components)
    x = _subsample(model, source, sample_size, seed)
    check_enough_rows(len(x), model.n_components)
    if n_init == 1:
        _start(model, x, method, seed, group)
        state = model.state_dict()
    else:
        state = _best_start(model, x, method, n_init, seed, group)
    model.load_state_dict(
        group.said(state)
    )  # processes on unlike machines would differ in rounding


def _best_start(
    model: Any, x: Tensor, method: str, n_init: int, seed: int, group: Group
) -> dict[str, Tensor]:
    """Return the state of the start that is best after short fits; processes share these out."""
    best, best_state = -math.inf, {}
    sample = Rows(x)
    for attempt in range(group.rank, n_init, group.world):
        trial = copy.deepcopy(model)
        _start(trial, x, method, seed + attempt, Group())
        fit(trial, sample, EM(), passes=_SHORT_PASSES, tolerance=0.0)
        reached = mean_log_likelihood(trial(), sample)
        if reached > best:
            best, best_state = reached, trial.state_dict()
    return max(group.gather((best, best_state)), key=lambda found: found[0])[1]


def _subsample(model: Any, source: Source, sample_size: int, seed: int) -> Tensor:
    """Return rows to start from; where rows have weights, drawn in proportion to these.

    Of a source that can be read once only, they are the first ones.
    """
    rows = min(sample_size, max(_MOST_VALUES // source.n_features, 1))
    if isinstance(source, HeadedSource) and not source.repeatable:
        return source.head(max(rows, model.n_components), model.dtype, model.device)
    group = group_of(source)
    sizes = group.gather(len(source))
    n, before = sum(sizes), sum(sizes[: group.rank])
    check_enough_rows(n, model.n_components)
    rows = min(n, max(rows, model.n_components))
    generator = make_generator(seed)
    weight = row_weights(source)
    if weight is not None:
        ends = group.collect(weight).cumsum(0)
        drawn = torch.rand(rows, generator=generator, dtype=torch.float64) * ends[-1]
        index = torch.searchsorted(ends, drawn, right=True).clamp_max(n - 1)
    elif n <= _MOST_PERMUTED:
        index = torch.randperm(n, generator=generator)[:rows]
    else:  # a few more than are wanted, because some may be drawn twice
        drawn = torch.randint(n, (rows + rows // 16 + 64,), generator=generator).unique()
        index = drawn[torch.randperm(len(drawn), generator=generator)[:rows]]
    index = index.sort().values
    own = index[(index >= before) & (index < before + len(source))] - before
    return group.collect(source.take(own, model.dtype, model.device))


def row_weights(source: Source) -> Tensor | None:
    """Return the weights of a source's rows, (n,), or None if those of all shares are equal."""
    parts: list[Tensor] = []
    for batch in source.batches(dtype=torch.float64):
        if batch.weight is None:
            return None
        parts.append(batch.weight.cpu().double())
    weight = torch.cat(parts)
    bounds = torch.tensor(group_of(source).gather((float(weight.min()), float(weight.max()))))
    return None if bool((bounds == bounds[0, 0]).all()) else weight


def total_weight(source: Source) -> float:
    """Return the sum of the weights of all shares' rows; their number where they have none."""
    mass = 0.0
    for batch in source.batches(dtype=torch.float64):
        if batch.weight is None:
            mass = float(len(source))
            break
        mass += float(batch.weight.sum())
    return group_of(source).total(mass)[0]


def _start(model: Any, x: Tensor, method: str, seed: int, group: Group) -> None:
    """Cluster rows (n, D), which all processes have, and start the model from the clusters.

    Raises:
        InputError: if their differences are beyond the type.
    """
    if bool(x.isnan().any()):
        x = torch.where(x.isnan(), x.nanmean(0).nan_to_num(0.0), x)
    centred = x - column_means(x)
    size = float(centred.abs().max())
    if not math.isfinite(size):
        raise InputError(
            f"The rows to start from are not finite, or lie so far apart that their differences "
            f"are beyond {x.dtype}; rescale the data, or use float64."
        )
    centred /= size or 1.0  # so that squares stay in range
    k = model.n_components
    if method == "k-means":
        labels = kmeans(centred, k, seed, group=group).labels
    elif method == "k-means++":
        labels = nearest_centre(centred, kmeans_plusplus(centred, k, seed))
    elif method == "afk-mc2":
        labels = nearest_centre(centred, afk_mc2(centred, k, seed))
    elif method == "truncated-k-means":
        labels = truncated_kmeans(centred, k, seed).labels
    else:
        generator = make_generator(seed, x.device)
        order = torch.randperm(len(x), generator=generator, device=x.device)
        labels = nearest_centre(centred, centred[order[:k]])
    model.start(x, labels, seed)
