"""Neural decoders: algorithms at equal wall time, the price of a step, and the bias of particles.

    MOGUL_DATA=folder python -m benchmarks decoders table [--data celeba] [--minutes 3]
    python -m benchmarks decoders finding TABLE... --picture FILE
    MOGUL_DATA=folder python -m benchmarks decoders summaries MODEL... [--images 1000]
    MOGUL_DATA=folder python -m benchmarks decoders presets
    python -m benchmarks decoders steps
    python -m benchmarks decoders bias

`table` trains the decoder of the preset mnist-small or faces-small by every algorithm for as many
minutes, and measures all on one protocol: the mean squared error of the central 12×12 of 32×32
pixels of test images, hidden and filled by the most probable latents (×100, for pixels in (−1, 1)
as in the literature), and distances of samples on the features of a small classifier, or, without
one, on the first principal components of training images. `finding` draws the distances of such
tables by where latents come from. `summaries` measures
samples of one model with latents from its prior, a Gaussian and a mixture. `presets` times a step
of the published settings and tells of the whole run. `steps` takes the tricks of a step away one by
one. `bias` fits a linear decoder, whose exact answer is known, at several steps and numbers of
particles.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SIDE = 32
KINDS_OF_RUN = ("table", "finding", "summaries", "presets", "steps", "bias")
COMPONENTS = 64  # principal components that stand in for a classifier's features
SMALL = {"mnist": "mnist-small", "fashion-mnist": "mnist-small", "celeba": "faces-small"}
_DRAWN, _COLUMNS = 36, 9  # images of each kind in a picture
HIDDEN = "rectangle:10,10,12,12"


class _Stop(Exception):
    """The minutes are over."""


def images(name: str, rows: int) -> Any:
    """Open images at 32×32, without noise."""
    from mogul import open_source

    return open_source(name, size=(SIDE, SIDE), dequantise=False, limit=rows)


def new_model(preset: Any, shape: tuple[int, ...], with_encoder: bool = False) -> Any:
    """Return an untrained model of a preset."""
    from mogul.models import (
        ConvDecoder,
        ConvEncoder,
        GaussianLikelihood,
        LatentVariableModel,
        PosteriorFamily,
        VariationalAutoencoder,
    )

    torch.manual_seed(0)
    decoder = ConvDecoder(preset.latents, shape, preset.width)
    noise = GaussianLikelihood(preset.scale)
    if not with_encoder:
        return LatentVariableModel(decoder, preset.latents, shape, noise)
    q = PosteriorFamily(preset.latents)
    return VariationalAutoencoder(ConvEncoder(q.n_outputs, shape), decoder, q, shape, noise)


def algorithms(preset: Any) -> dict[str, Any]:
    """Return the algorithms to compare, each at the preset's steps."""
    from mogul.algorithms import Variational, abp, coin, momentum, pga, short_run, soul

    h, rate, smoothing = preset.step_size, preset.rate, preset.smoothing
    common = {"batch_size": preset.batch_size}
    torch.manual_seed(0)
    return {
        "pga": pga(h, rate, smoothing, n_particles=1, **common),
        "pga, 4 particles": pga(h, rate, smoothing, n_particles=4, **common),
        "abp": abp(h, rate, smoothing, moves=5, **common),
        "soul": soul(h, rate, smoothing, moves=5, **common),
        "short-run": short_run(2 * h, rate, smoothing, moves=20, **common),
        "momentum": momentum(0.02, rate, smoothing, 10.0, n_particles=1, **common),
        "coin": coin(n_particles=4, **common),
        "vae": Variational(**common),
    }


def train(model: Any, source: Any, algorithm: Any, minutes: float) -> int:
    """Fit for so long; return the passes made."""
    from mogul import fit

    end, rows = time.perf_counter() + 60 * minutes, 0

    def seen(n: int) -> None:
        nonlocal rows
        rows += n
        if time.perf_counter() > end:
            raise _Stop

    try:
        fit(model, source, algorithm, passes=10**6, tolerance=0.0, seen=seen)
    except _Stop:
        model.eval()
    return round(rows / len(source))


def masked_error(model: Any, test: Any, n: int) -> float:
    """Return 100 × the mean squared error of hidden pixels, for pixels in (−1, 1)."""
    from mogul.data import parse_mask
    from mogul.tasks import encode

    x = test.take(range(n))
    observed = parse_mask(HIDDEN, n, test.feature_shape, 0)
    found = encode(model, torch.where(observed, x, math.nan), steps=120)
    with torch.no_grad():
        filled = torch.cat([model.decode(z) for z in found.latents.split(500)])
    return 400 * float((filled - x)[~observed].square().mean())


Features = Callable[[Tensor], Tensor]


def features_of(classifier: Path | None, source: Any) -> Features:
    """Return a classifier's features, or else the first principal components of pixels."""
    if classifier is not None:
        from mogul.evaluation import load_classifier

        return load_classifier(classifier).features
    x = source.take(range(len(source)))
    mean = x.mean(0)
    axes = torch.linalg.svd(x - mean, full_matrices=False).Vh[:COMPONENTS].mT
    return lambda rows: (rows - mean) @ axes


def distances(features: Features, real: Tensor, drawn: Tensor) -> list[float]:
    """Return Fréchet and kernel distances, precision and recall on features."""
    from mogul.evaluation import frechet_distance, kernel_distance, precision_recall

    a, b = features(real), features(drawn)
    return [frechet_distance(a, b), kernel_distance(a, b)[0], *precision_recall(a, b)]


def cloud_of(model: Any, kind: str) -> Any:
    """Return where latents come from, as a value."""
    from mogul.tasks import summarise

    return summarise(model, kind)


KINDS = ("prior", "gaussian", "mixture")


def table(
    data: str,
    minutes: float,
    n: int,
    rows: int,
    classifier: Path | None,
    keep: Path | None,
    only: list[str] | None,
) -> None:
    """Print the table of algorithms; keep their models in a folder."""
    from mogul import save_model
    from mogul.algorithms import PRESETS

    small = PRESETS[SMALL[data]]
    # So that a step of the parameters is as long as the preset's.
    preset = dataclasses.replace(small, rows=rows, rate=small.rate * small.rows / rows)
    source, test = images(data, preset.rows), images(f"{data}:test", max(n, 1000))
    real = test.take(range(len(test)))
    features = features_of(classifier, source)
    threads = torch.get_num_threads()
    print(
        f"{SMALL[data]}, {rows} rows, {minutes} minutes each, {n} test images, {threads} threads\n"
    )
    print("\n| algorithm | passes | in-painting MSE ×10² | Fréchet: prior | Gaussian | mixture | "
          "K | KID: mixture | precision | recall |\n|" + "---|" * 10)  # fmt: skip
    found = distances(features, real, source.take(range(min(len(source), len(real)))))
    print(f"| real training images | – | – | {found[0]:.4g} | – | – | – | {found[1]:.4g} | "
          f"{found[2]:.2f} | {found[3]:.2f} |", flush=True)  # fmt: skip
    for name, algorithm in algorithms(preset).items():
        if only is not None and name not in only:
            continue
        model = new_model(preset, source.feature_shape, with_encoder=name == "vae")
        passes = train(model, source, algorithm, minutes)
        if keep is not None:
            facts = {"options": {"data": data}, "settings": {"rows": rows}}
            save_model(keep / f"{name.replace(', ', '-').replace(' ', '-')}.mogul", model, facts)
        error = masked_error(model, test, n)
        print("| " + " | ".join([name, str(passes), f"{error:.2f}", *judged(model, features, real)])
              + " |", flush=True)  # fmt: skip


def judged(model: Any, features: Features, real: Tensor) -> list[str]:
    """Return cells: distances by where latents come from, and the rest for the last of these."""
    kinds = KINDS if model.particles is not None else KINDS[:1]
    clouds = {kind: cloud_of(model, kind) for kind in kinds}
    found = {k: distances(features, real, model.sample(len(real), 1, c)) for k, c in clouds.items()}
    cells = [f"{found[k][0]:.4g}" if k in found else "–" for k in KINDS]
    count = str(clouds["mixture"].n_components) if "mixture" in clouds else "–"
    last = found[kinds[-1]]
    return [*cells, count, f"{last[1]:.4g}", f"{last[2]:.2f}", f"{last[3]:.2f}"]


def summaries(paths: list[Path], n: int, classifier: Path | None, picture: Path | None) -> None:
    """Print what samples of models are worth by where latents come from; draw some of each."""
    from mogul import load_model

    print("| model | latents from | Fréchet | KID | precision | recall |\n|" + "---|" * 6)
    drawn, errors = [], []
    for path in paths:
        model, extra = load_model(path)
        name, rows = extra["options"]["data"].partition(":")[0], extra["settings"]["rows"]
        source, test = images(name, rows), images(f"{name}:test", 1000)
        real = test.take(range(len(test)))
        features = features_of(classifier, source)
        for kind in KINDS:
            cloud = cloud_of(model, kind)
            x = model.sample(len(real), 1, cloud)
            found = distances(features, real, x)
            label = kind + (f", K = {cloud.n_components}" if kind == "mixture" else "")
            cells = [f"{found[0]:.4g}", f"{found[1]:.4g}", f"{found[2]:.2f}", f"{found[3]:.2f}"]
            print("| " + " | ".join([path.stem, label, *cells]) + " |", flush=True)
            drawn.append((f"{path.stem}, {label}: {cells[0]}", test.to_pixels(x[:_DRAWN])))
        if n:
            errors.append(f"{path.stem} {masked_error(model, test, n):.2f}")
    if picture is not None:
        draw(picture, drawn, len(paths))
    if errors:
        print(f"\nin-painting MSE ×10² of {n} test images: {', '.join(errors)}")


def presets() -> None:
    """Print the time of a step of the published settings, and of the whole run."""
    from mogul.algorithms import PRESETS
    from mogul.algorithms.particles import latent_gradient

    print("| preset | rows | parameters | steps | θ, s | particles, s | whole run, hours |")
    print("|" + "---|" * 7)
    for name, preset in PRESETS.items():
        if name.endswith("small"):
            continue
        source = images(preset.data, preset.rows)
        model = new_model(preset, source.feature_shape)
        n, batch = preset.particles, preset.batch_size
        x, z = source.take(range(batch)), torch.randn(batch, n, preset.latents)
        theta = median_time(theta_step(model, x, z.transpose(0, 1)), 3)
        move = median_time(partial(latent_gradient, model, x, z), 10)
        if preset.which == "full":
            move *= len(source) / batch  # every particle, a batch's worth at a time
        steps = preset.passes * -(-len(source) // batch)
        hours = (theta + move) * steps / 3600
        cells = [name, f"{len(source):,}", f"{model.n_parameters:,}", f"{steps:,}"]
        cells += [f"{theta:.1f}", f"{move:.1f}", f"{hours:,.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def theta_step(model: Any, x: Tensor, z: Tensor) -> Callable[[], None]:
    """Return what works out the gradient of the parameters, in train mode."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def work() -> None:
        model.train()
        torch.autograd.grad(model.log_joint(x, z).mean(), parameters)
        model.eval()

    return work


def plain_step(model: Any, x: Tensor, z: Tensor, memory_format: Any) -> None:
    """One step as it is first written: one graph for parameters and latents, twice."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    torch.autograd.grad(model.log_joint(x, z).mean(), parameters)
    model.eval()
    latents = z.detach().requires_grad_()
    total = model.log_joint(x, latents).sum()
    torch.autograd.grad(total, [latents, *parameters])  # parameters' gradients are thrown away


def steps() -> None:
    """Print seconds of a step, 64 rows with 4 particles of the full network, trick by trick."""
    from mogul.algorithms import PRESETS
    from mogul.algorithms.particles import latent_gradient

    preset = PRESETS["mnist-note"]
    x, z = torch.rand(64, SIDE * SIDE), torch.randn(4, 64, preset.latents)
    model = new_model(preset, (SIDE, SIDE))
    theta = theta_step(model, x, z)

    def plain_layout() -> None:
        body = model.decoder.body
        hook = body.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
        plain_step(model, x, z, torch.contiguous_format)
        hook.remove()

    rows = {
        "straightforward: one graph for both, rows of channels": plain_layout,
        "+ channels last": lambda: plain_step(model, x, z, torch.channels_last),
        "+ no graph of the parameters for the particles": lambda: (
            theta(), latent_gradient(model, x, z.transpose(0, 1), 64 * 4),
        ),
        "+ particles in chunks of 128": lambda: (
            theta(), latent_gradient(model, x, z.transpose(0, 1), 128),
        ),
        "of it: parameters": theta,
        "of it: particles": lambda: latent_gradient(model, x, z.transpose(0, 1), 64 * 4),
    }  # fmt: skip
    first = None
    print("| step of 256 latents | seconds (median of 5) | ratio |\n|---|---|---|")
    for name, function in rows.items():
        each = median_time(function)
        first = first or each
        print(f"| {name} | {each:.3f} | {first / each:.2f} |", flush=True)


def median_time(function: Callable[[], Any], calls: int = 5) -> float:
    """Return the median seconds of some calls, after one to warm up."""
    seconds = []
    for _ in range(1 + calls):
        since = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - since)
    return statistics.median(seconds[1:])


def draw(path: Path, drawn: list[tuple[str, Any]], n_rows: int) -> None:
    """Draw grids of images under their titles, a row for each model."""
    from matplotlib.figure import Figure

    from mogul.report import tile

    n_columns = len(drawn) // n_rows
    figure = Figure(figsize=(3.0 * n_columns, 1.7 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).flat
    for axes, (title, pixels) in zip(panels, drawn, strict=True):
        axes.imshow(tile(pixels, _COLUMNS), cmap="gray")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    figure.savefig(path, dpi=130)


def finding(paths: list[Path], picture: Path) -> None:
    """Draw, from printed tables, Fréchet distances by where latents come from."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(paths), 3.2), layout="constrained")
    markers = {"prior": "o", "gaussian": "s", "mixture": "D"}
    for axes, path in zip(figure.subplots(1, len(paths), squeeze=False).flat, paths, strict=True):
        lines = path.read_text().splitlines()
        cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if "|" in line]
        real, *rows = [row for row in cells[2:] if len(row) > 5]
        names = [row[0] for row in rows]
        for column, (kind, marker) in enumerate(markers.items(), start=3):
            points = [(float(r[column]), i) for i, r in enumerate(rows) if r[column] != "–"]
            filled = "none" if kind == "mixture" else None
            axes.scatter(*zip(*points, strict=True), marker=marker, label=kind, facecolors=filled,
                         edgecolors=f"C{column}", color=None if filled else f"C{column}",
                         s=60 if filled else 22, zorder=3)  # fmt: skip
        axes.axvline(float(real[3]), color="grey", linestyle=":", label="training images")
        axes.set_xscale("log")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel("Fréchet distance of samples")
        axes.set_title(lines[0].partition(",")[0], fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(title="latents from", fontsize=8)
    figure.savefig(picture, dpi=130)


def draw_bias(path: Path, lost: dict[int, list[tuple[float, float]]]) -> None:
    """Draw nats below the maximum against the step, a line for each number of particles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for n, points in lost.items():
        axes.loglog(*zip(*points, strict=True), "o-", label=f"N = {n}")
    steps = [h for h, _ in next(iter(lost.values()))]
    axes.set_xticks(steps, [f"{h:g}" for h in steps])
    axes.minorticks_off()
    axes.set_xlabel("step size h")
    axes.set_ylabel("nats per row below the maximum")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def bias(picture: Path | None) -> None:
    """Print how far a linear decoder ends below the maximum of PPCA, by step and particles."""
    from mogul import fit
    from mogul.algorithms import pga
    from mogul.data import ArraySource
    from mogul.models import GaussianLikelihood, LatentVariableModel, LinearDecoder

    generator = torch.Generator().manual_seed(0)
    kind: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    W = torch.randn(6, 2, **kind)
    x = torch.randn(400, 2, **kind) @ W.mT + 0.7 * torch.randn(400, 6, **kind)
    values = torch.linalg.eigvalsh(torch.cov(x.mT, correction=0)).flip(0)
    model_values = torch.cat([values[:2], torch.full((4,), 0.49, dtype=torch.float64)])
    const = 6 * math.log(2 * math.pi)
    best = float(-0.5 * (const + model_values.log().sum() + (values / model_values).sum()))
    print("| h | N | nats below the maximum | % |\n|---|---|---|---|")
    found: dict[int, list[tuple[float, float]]] = {}
    for h in (0.04, 0.02, 0.01, 0.005):
        for n in (1, 10, 50):
            torch.manual_seed(1)
            model = LatentVariableModel(LinearDecoder(2, (6,)), 2, (6,), GaussianLikelihood(0.7))
            model = model.double()
            rate = 0.0005 / h  # the parameters' own step is the same at every h
            algorithm = pga(h, rate, None, n_particles=n, batch_size=400, burn_in=0.5)
            fit(model, ArraySource(x), algorithm, passes=int(8 / h))
            factors, mean = model.decoder.weight.detach(), model.decoder.bias.detach()
            covariance = factors @ factors.mT + 0.49 * torch.eye(6, dtype=torch.float64)
            gaussian = torch.distributions.MultivariateNormal(mean, covariance)
            lost = best - float(gaussian.log_prob(x).mean())
            found.setdefault(n, []).append((h, lost))
            print(f"| {h} | {n} | {lost:.5f} | {100 * lost / abs(best):.3f} |", flush=True)
    if picture is not None:
        draw_bias(picture, found)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=KINDS_OF_RUN)
    parser.add_argument(
        "files", nargs="*", type=Path, help="models for summaries, tables for finding"
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--data", choices=list(SMALL), default="mnist")
    parser.add_argument("--only", nargs="+", help="algorithms of the table; default all")
    parser.add_argument("--keep", type=Path, help="a folder for the models of the table")
    parser.add_argument("--picture", type=Path, help="a PNG of what is printed")
    parser.add_argument("--classifier", type=Path, help="what train_classifier wrote")
    chosen = parser.parse_args()
    if chosen.what == "table":
        table(
            chosen.data,
            chosen.minutes,
            chosen.images,
            chosen.rows,
            chosen.classifier,
            chosen.keep,
            chosen.only,
        )
        return
    if chosen.what == "summaries":
        summaries(chosen.files, chosen.images, chosen.classifier, chosen.picture)
        return
    if chosen.what == "finding":
        finding(chosen.files, chosen.picture)
        return
    if chosen.what == "bias":
        bias(chosen.picture)
        return
    {"presets": presets, "steps": steps}[chosen.what]()


if __name__ == "__main__":
    main()
