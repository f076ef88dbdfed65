"""`mogul demo mixture`: draw a known mixture, fit it, compare."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogul.cli import options
from mogul.cli.console import check_output, rows, show, write_picture

if TYPE_CHECKING:
    import torch

    from mogul.distributions import Mixture
    from mogul.models import GaussianMixture


def mixture(
    samples: Annotated[int, typer.Option(min=10, help="Rows to draw.")] = 1000,
    components: Annotated[int, typer.Option(min=1, help="Gaussians in the truth.")] = 4,
    dims: Annotated[int, typer.Option(min=1, help="Number of features.")] = 2,
    iterations: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 40,
    family: Annotated[str, typer.Option(help="Covariance family.")] = "full",
    algorithm: Annotated[str, typer.Option(help="em or gradient.")] = "em",
    start: Annotated[
        str, typer.Option(help="Where fits start: k-means++, k-means or random.")
    ] = "k-means++",
    seed: options.Seed = 0,
    output: Annotated[Path, typer.Option("-o", "--output", help="A .png picture to write.")] = Path(
        "mixture.png"
    ),
    animation: Annotated[
        Path | None,
        typer.Option(
            help="A .gif or .webp of both fits, pass by pass; default: beside the picture."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Draw rows from a known mixture, fit it by EM and by gradient, and compare with the truth.

    Raises:
        InputError: for an unknown algorithm.
    """
    from mogul.compute.checkpoint import atomic_write
    from mogul.errors import InputError
    from mogul.report import contour_picture, to_animation

    since = time.perf_counter()
    animation = animation or output.with_suffix(".gif")
    check_output(output, (".png",))
    check_output(animation, (".gif", ".webp"))
    if algorithm not in ("em", "gradient"):
        raise InputError(f"Unknown algorithm '{algorithm}'; choose em or gradient.")
    truth = _truth(components, dims, family, seed)
    x = truth.sample((samples,), seed=seed)
    names = ("em", "gradient")
    fits = {name: _fit(name, x, truth, family, iterations, start, seed) for name in names}
    frames = []
    for number, (by_em, by_gradient) in enumerate(zip(fits["em"], fits["gradient"], strict=True)):
        panels = [(f"EM, pass {number}", by_em), (f"gradient, pass {number}", by_gradient)]
        frames.append(contour_picture(x.numpy(), panels))
    fitted = fits[algorithm][-1]
    picture = contour_picture(x.numpy(), [("truth", truth), (f"fitted by {algorithm}", fitted)])
    write_picture(output, picture)
    atomic_write(animation, to_animation(frames, animation.suffix))
    reached = {name: float(path[-1].log_prob(x).mean()) for name, path in fits.items()}
    if not json:
        _compare(truth, fitted)
    figures = {
        "log_likelihood": reached[algorithm],
        "log_likelihood_em": reached["em"],
        "log_likelihood_gradient": reached["gradient"],
        "log_likelihood_truth": float(truth.log_prob(x).mean()),
        "gradient_steps": iterations * -(-samples // _batch_size(samples)),
        "picture": str(output),
        "animation": str(animation),
        "seconds": time.perf_counter() - since,
    }
    show("Mixture demo", figures, json)


def _truth(k: int, d: int, name: str, seed: int) -> Mixture:
    """Return a mixture of well-separated components of the family."""
    import torch

    from mogul.models import GaussianMixture

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = GaussianMixture(k, d, name, dtype=torch.float64)
    model.requires_grad_(False)
    # Best of many draws: the one whose closest means lie furthest apart.
    means = [normal(k, d) * 2.5 * k ** (1 / d) for _ in range(50)]
    apart = [float(torch.pdist(m).min()) if k > 1 else 0.0 for m in means]
    model.centres.copy_(means[apart.index(max(apart))])
    model.logits.copy_(0.4 * normal(k))
    for key, raw in model.raw.items():
        raw.copy_((0.3 if key.startswith("log") else 0.6) * normal(*raw.shape))
    return model()


def _batch_size(n: int) -> int:
    return max(10, n // 10)


def _fit(
    name: str,
    x: torch.Tensor,
    truth: Mixture,
    family: str,
    passes: int,
    start: str,
    seed: int,
) -> list[Mixture]:
    """Fit from a start; return the mixture before the first pass and after each."""
    import mogul
    from mogul.data import ArraySource

    source = ArraySource(x)
    rank = None if truth.loadings is None else truth.loadings.shape[-1]
    model = mogul.GaussianMixture(
        truth.n_components, truth.n_features, family, rank, dtype=truth.dtype
    )
    n_init = 1 if start == "random" else 5  # the best of several would be no random one
    mogul.initialise(model, source, start, n_init=n_init, seed=seed)
    path = [_frozen(model)]
    chosen: Any = mogul.EM()
    if name == "gradient":
        chosen = mogul.Gradient(0.05, batch_size=_batch_size(len(x)), seed=seed)
    mogul.fit(
        model, source, chosen, passes=passes, tolerance=0.0,
        callback=lambda _: path.append(_frozen(model)),
    )  # fmt: skip
    return path


def _frozen(model: GaussianMixture) -> Mixture:
    return copy.deepcopy(model).requires_grad_(False)()


def _compare(truth: Mixture, fitted: Mixture) -> None:
    """Print true beside fitted parameters, components matched by their means."""
    import torch
    from scipy.optimize import linear_sum_assignment

    order = linear_sum_assignment(torch.cdist(truth.means, fitted.means).numpy())[1]
    table = []
    for k, other in enumerate(order):
        table.append([
            k, float(truth.weights[k]), float(fitted.weights[other]),
            _vector(truth.means[k]), _vector(fitted.means[other]),
            _vector(truth.variances[k].sqrt()), _vector(fitted.variances[other].sqrt()),
        ])  # fmt: skip
    columns = ["component", "weight", "fitted", "mean", "fitted", "deviation", "fitted"]
    rows("True and fitted parameters", columns, table)


def _vector(values: torch.Tensor) -> str:
    shown = ", ".join(f"{v:.2f}" for v in values[:4].tolist())
    return shown + (", …" if len(values) > 4 else "")
