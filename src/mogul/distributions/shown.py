"""A mixture in one line, and as a table of its components for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mogul.compute.notebook import html_table

if TYPE_CHECKING:
    from mogul.distributions.mixture import Mixture

_HEAVIEST = 3
_ROWS = 20
_FEATURES = 4


def line_of(mixture: Mixture) -> str:
    """Return family, sizes, type and place, and the heaviest components with their weights."""
    facts = {
        "family": mixture.covariance.name,
        "components": f"{mixture.n_components:,}",
        "features": f"{mixture.n_features:,}",
    }
    if mixture.loadings is not None:
        facts["rank"] = str(mixture.loadings.shape[-1])
    if mixture.covariance.n_covariances < mixture.n_components:
        facts["covariance"] = "shared"
    if mixture.batch_shape:
        facts["batch_shape"] = str(tuple(mixture.batch_shape))
    facts |= {"dtype": str(mixture.dtype).removeprefix("torch."), "device": str(mixture.device)}
    if not mixture.batch_shape and not mixture.logits.is_meta:
        weight, index = mixture.weights.detach().topk(min(_HEAVIEST, mixture.n_components))
        pairs = zip(index.tolist(), weight.tolist(), strict=True)
        facts["heaviest"] = ", ".join(f"{k} ({w:.3g})" for k, w in pairs)
    return ", ".join(f"{name}: {fact}" for name, fact in facts.items())


@torch.no_grad()
def table_of(mixture: Mixture) -> str | None:
    """Return the heaviest components: weight, means and deviations of the first features, and size.

    The size of a component is |Σ|^(1/2D), the geometric mean of its deviations along its principal
    axes. None for mixtures of a batch, which no table of components describes.
    """
    if mixture.batch_shape or mixture.logits.is_meta:
        return None
    k, d = mixture.n_components, mixture.n_features
    shown = mixture.weights.topk(min(_ROWS, k)).indices
    covariance = mixture.covariance
    if covariance.n_covariances == k:
        covariance = covariance.map(lambda t: t[shown])
    size = (covariance.log_det() / (2 * d)).exp().expand(len(shown)).tolist()
    first = slice(0, _FEATURES)
    mean = mixture.means[shown, first].tolist()
    deviation = covariance.variances.sqrt()[:, first].expand(len(shown), -1).tolist()
    weight = mixture.weights[shown].tolist()
    columns = ["component", "weight", *(f"feature {i}" for i in range(min(_FEATURES, d)))]
    rows = [
        [str(c), f"{weight[i]:.3g}"]
        + [f"{m:.4g} ± {s:.2g}" for m, s in zip(mean[i], deviation[i], strict=True)]
        + [f"{size[i]:.3g}"]
        for i, c in enumerate(shown.tolist())
    ]
    left_out = []
    if k > len(shown):
        left = max(0.0, 1 - sum(weight))
        left_out.append(f"{k - len(shown):,} lighter components, {left:.1%} of the weight")
    if d > _FEATURES:
        left_out.append(f"{d - _FEATURES:,} more features")
    note = "Means ± deviations; size is |Σ|^(1/2D)."
    if left_out:
        note += f" Left out: {'; '.join(left_out)}."
    return html_table(f"Mixture({line_of(mixture)})", [*columns, "size"], rows, note)
