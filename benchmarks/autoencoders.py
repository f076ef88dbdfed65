"""Autoencoders: priors on MNIST by one protocol, the price of an epoch, islands, and colour.

    MOGUL_DATA=folder python -m benchmarks autoencoders table [--epochs 60] [--seeds 2]
    MOGUL_DATA=folder python -m benchmarks autoencoders epoch
    MOGUL_DATA=folder python -m benchmarks autoencoders islands [--picture FILE]
    MOGUL_DATA=folder python -m benchmarks autoencoders colour [--picture FILE]

`table` follows Tomczak & Welling (2018): binarised MNIST, 50,000 / 10,000 / 10,000 images, two
gated layers of 300, 40 latents, batches of 100, Adam at 5e-4; it keeps the parameters with the best
held-out bound, and prints test negative log-likelihoods by importance sampling. `epoch` times an
epoch beside a plain autoencoder of the same networks, written by hand, in one run. `islands` draws
samples under a Gaussian and under a mixture prior for 2, 10 and 50 latents. `colour` does so for
faces of 32×32 pixels, with bits per dimension.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TRAIN = 50_000
BATCH, RATE = 100, 5e-4
PRIORS = ("normal", "mixture", "vamp")


def mnist(split: str, binarise: str = "static") -> Any:
    """Return a part of binarised MNIST: 50,000, 10,000 and 10,000 images."""
    from mogul import open_source
    from mogul.data import ArraySource

    if split == "test":
        return open_source("mnist:test", binarise=binarise)
    whole = open_source("mnist", binarise="static")
    part = slice(0, TRAIN) if split == "train" else slice(TRAIN, None)
    if split == "train" and binarise == "dynamic":
        return open_source("mnist", binarise=binarise, limit=TRAIN)
    rows = whole.take(range(len(whole))[part]).to(torch.uint8)
    return ArraySource(rows.numpy(), name=split)


def model_of(
    prior: str, latents: int, components: int, seed: int, shape: tuple[int, ...] = (784,)
) -> Any:
    """Return an untrained autoencoder of the protocol."""
    from mogul import GaussianMixture
    from mogul.models import (
        BernoulliLikelihood,
        MLPDecoder,
        MLPEncoder,
        PosteriorFamily,
        VampPrior,
        VariationalAutoencoder,
    )

    torch.manual_seed(seed)
    q = PosteriorFamily(latents)
    priors = {
        "normal": lambda: None,
        "mixture": lambda: GaussianMixture(components, latents, "diagonal"),
        "vamp": lambda: VampPrior(components, shape),
    }
    return VariationalAutoencoder(
        MLPEncoder(q.n_outputs, shape), MLPDecoder(latents, shape), q, shape,
        BernoulliLikelihood(logits=True), priors[prior](),
    )  # fmt: skip


def train(
    model: Any, source: Any, held_out: Any, epochs: int, warm_up: int, seed: int, dynamic: bool
) -> list[dict[str, Any]]:
    """Fit, keeping the parameters with the best held-out bound; return the history."""
    from mogul import fit
    from mogul.algorithms import Variational

    algorithm = Variational(None, RATE, BATCH, warm_up, dynamic, seed)
    best: dict[str, Any] = {"bound": -math.inf, "state": None}
    scores = []

    def passed(row: dict[str, Any]) -> None:
        reached = algorithm.score(model, held_out)
        scores.append(reached)
        if reached > best["bound"]:
            state = {k: v.clone() for k, v in model.state_dict().items()}
            best.update(bound=reached, state=state)

    history = fit(model, source, algorithm, passes=epochs, callback=passed).history
    model.load_state_dict(best["state"])
    return [row | {"held_out": score} for row, score in zip(history, scores, strict=True)]


def table(chosen: Any) -> None:
    """Print test negative log-likelihoods of each prior, in several seeds."""
    from mogul.data import ArraySource, open_labels
    from mogul.evaluation import (
        cluster_accuracy,
        importance_log_likelihood,
        normalised_mutual_information,
        purity,
        summarise_latents,
    )

    binarise = "dynamic" if chosen.dynamic else "static"
    source, held_out, test = mnist("train", binarise), mnist("validation"), mnist("test")
    labels = open_labels("mnist:test")
    few = ArraySource(test.take(range(chosen.images)))
    print(
        f"{binarise} MNIST, {chosen.epochs} epochs, warm-up {chosen.warm_up}, "
        f"{chosen.latents} latents, K = {chosen.components}, {torch.get_num_threads()} threads\n"
    )
    print("| prior | seed | s/epoch | best held-out bound (epoch) | −ELBO, 10,000 images | "
          f"NLL, 500 samples | NLL, 5,000 samples, {chosen.images:,} images | active | "
          "components used | accuracy | purity | NMI |\n|" + "---|" * 12)  # fmt: skip
    reached: dict[str, list[list[float]]] = {}
    for seed in range(chosen.seeds):
        for prior in chosen.priors:
            model = model_of(prior, chosen.latents, chosen.components, seed)
            history = train(
                model, source, held_out, chosen.epochs, chosen.warm_up, seed, chosen.dynamic
            )
            bounds = [row["held_out"] for row in history]
            seconds = statistics.median(row["seconds"] for row in history)
            nll = importance_log_likelihood(model, test, (1, 500), seed)
            long = importance_log_likelihood(model, few, (5000,), seed)
            found = summarise_latents(model, test)
            k = model.prior.n_components
            figures = [-nll.mean(1), -nll.mean(500), -long.mean(5000), float(found.active_units)]
            cells = [prior, str(seed), f"{seconds:.2f}"]
            cells += [f"{max(bounds):.2f} ({1 + bounds.index(max(bounds))})"]
            cells += [f"{figures[0]:.2f}", f"{figures[1]:.2f} ± {nll.error(500):.2f}"]
            cells += [f"{figures[2]:.2f} ± {long.error(5000):.2f}"]
            cells += [f"{found.active_units}", f"{found.used_components} of {k}"]
            if k > 1:
                measures = (cluster_accuracy, purity, normalised_mutual_information)
                agreed = [measure(found.assignments, labels) for measure in measures]
                figures += [float(found.used_components), *agreed]
                cells += [f"{value:.2f}" for value in agreed]
            else:
                cells += ["–"] * 3
            reached.setdefault(prior, []).append(figures)
            print("| " + " | ".join(cells) + " |", flush=True)
            if chosen.curves is not None:
                write_curve(chosen.curves, prior, seed, history)
    means(reached)


def write_curve(path: Path, prior: str, seed: int, history: list[dict[str, Any]]) -> None:
    """Add the bounds of every epoch to a CSV file."""
    with path.open("a") as file:
        file.writelines(
            f"{prior},{seed},{row['pass']},{row['evidence_bound']:.3f},{row['held_out']:.3f},"
            f"{row['seconds']:.2f}\n"
            for row in history
        )


def means(reached: dict[str, list[list[float]]]) -> None:
    """Print means over seeds, and standard deviations."""
    print("\n| prior | seeds | −ELBO | NLL, 500 | NLL, 5,000 | active | used | accuracy | purity | "
          "NMI |\n|" + "---|" * 10)  # fmt: skip
    for prior, runs in reached.items():
        cells = [prior, str(len(runs))]
        for values in zip(*runs, strict=True):
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}")
        print("| " + " | ".join(cells + ["–"] * (10 - len(cells))) + " |")


class PlainVAE(nn.Module):
    """The same networks as they are usually written."""

    def __init__(self, latents: int) -> None:
        """Build the layers."""
        super().__init__()

        def gated(n_in: int, n_out: int) -> nn.ModuleList:
            return nn.ModuleList([nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)])

        self.e1, self.e2 = gated(784, 300), gated(300, 300)
        self.mean, self.log_variance = nn.Linear(300, latents), nn.Linear(300, latents)
        self.d1, self.d2 = gated(latents, 300), gated(300, 300)
        self.out = nn.Linear(300, 784)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean bound of rows."""

        def through(pair: nn.ModuleList, h: Tensor) -> Tensor:
            return pair[0](h) * torch.sigmoid(pair[1](h))

        h = through(self.e2, through(self.e1, x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        logits = self.out(through(self.d2, through(self.d1, z)))
        reconstruction = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return (reconstruction - divergence).mean()


def plain_epoch(model: PlainVAE, optimiser: torch.optim.Optimizer, x: Tensor) -> float:
    """Make one pass by hand; return its mean bound."""
    total = 0.0
    for index in torch.randperm(len(x)).split(BATCH):
        optimiser.zero_grad()
        bound = model(x[index])
        (-bound).backward()
        optimiser.step()
        total += float(bound.detach()) * len(index)
    return total / len(x)


def epoch() -> None:
    """Print seconds per epoch of each prior beside a plain autoencoder, in one run."""
    from mogul import fit
    from mogul.algorithms import EvidenceBound, Variational

    source = mnist("train")
    x = source.take(range(len(source)))
    torch.manual_seed(0)
    plain = PlainVAE(40)
    optimiser = torch.optim.Adam(plain.parameters(), lr=RATE)
    seconds, bounds = [], []
    for _ in range(4):
        since = time.perf_counter()
        bounds.append(plain_epoch(plain, optimiser, x))
        seconds.append(time.perf_counter() - since)
    base = statistics.median(seconds[1:])
    print(f"50,000 images, 40 latents, batches of {BATCH}, {torch.get_num_threads()} threads\n")
    print("| autoencoder | seconds per epoch | ratio | bound after 4 epochs |\n|---|---|---|---|")
    print(f"| plain, by hand | {base:.2f} | 1.00 | {bounds[-1]:.2f} |", flush=True)
    for prior in PRIORS:
        model = model_of(prior, 40, 500, 0)
        objective = EvidenceBound("variational" if prior == "normal" else "marginal")
        history = fit(model, source, Variational(objective, RATE, BATCH), passes=4).history
        each = statistics.median(row["seconds"] for row in history[1:])
        bound = history[-1]["evidence_bound"]
        print(f"| mogul, {prior} | {each:.2f} | {each / base:.2f} | {bound:.2f} |", flush=True)


def islands(chosen: Any) -> None:
    """Print and draw samples under a Gaussian and a mixture prior for growing latent spaces."""
    from mogul.evaluation import frechet_distance, importance_log_likelihood, load_classifier

    classifier = load_classifier(chosen.classifier)
    source, test = mnist("train", "dynamic"), mnist("test")
    real = padded(mnist_grey("test"))
    drawn: list[tuple[str, Any]] = []
    print("| latents | prior | NLL, 500 samples | Fréchet | components used |\n|" + "---|" * 5)
    for latents in chosen.dimensions:
        for prior in ("normal", "mixture"):
            model = model_of(prior, latents, 1000, 0)
            held_out = mnist("validation")
            train(model, source, held_out, chosen.epochs, chosen.warm_up, 0, dynamic=True)
            x = model.sample(5000, seed=1)
            distance = frechet_distance(classifier.features(real), classifier.features(padded(x)))
            nll = -importance_log_likelihood(model, test, (500,)).mean(500)
            name = f"{latents} latents, {prior}"
            drawn.append((f"{name}: {distance:.0f}", test.to_pixels(x[:40])))
            used = used_components(model, test)
            print(f"| {latents} | {prior} | {nll:.2f} | {distance:.1f} | {used} |", flush=True)
    if chosen.picture is not None:
        draw(chosen.picture, drawn, 2)


def used_components(model: Any, source: Any) -> str:
    """Return how many components of the prior hold data."""
    from mogul.evaluation import summarise_latents

    k = model.prior.n_components
    return f"{summarise_latents(model, source).used_components} of {k}" if k > 1 else "–"


def mnist_grey(split: str) -> Tensor:
    """Return grey images in (0, 1), (n, 784)."""
    from mogul import open_source

    source = open_source(f"mnist:{split}", dequantise=False)
    return source.take(range(5000))


def padded(x: Tensor) -> Tensor:
    """Return images of 28×28 resized to the classifier's 32×32."""
    images = x.view(-1, 1, 28, 28)
    return F.interpolate(images, (32, 32), mode="bilinear", antialias=True).reshape(len(x), -1)


def colour(chosen: Any) -> None:
    """Print and draw faces under a Gaussian and a mixture prior, with bits per dimension."""
    from benchmarks.decoders import distances, features_of, images
    from mogul import GaussianMixture, fit
    from mogul.algorithms import EvidenceBound, Variational
    from mogul.evaluation import importance_log_likelihood
    from mogul.models import (
        ConvDecoder,
        ConvEncoder,
        DiscretisedLogisticLikelihood,
        PosteriorFamily,
        VariationalAutoencoder,
    )

    source, test = images("celeba", 9000), images("celeba:test", 1000)
    shape, d = source.feature_shape, chosen.latents
    features, real = features_of(None, source), test.take(range(1000))
    print("| prior | s/epoch | bits/dim, 1 sample | 100 samples | Fréchet | components used |")
    print("|" + "---|" * 6)
    drawn = [("held-out faces", test.to_pixels(real[:40]))]
    for prior in ("normal", "mixture"):
        torch.manual_seed(0)
        q = PosteriorFamily(d)
        mixture = GaussianMixture(chosen.components, d, "diagonal") if prior == "mixture" else None
        model = VariationalAutoencoder(
            ConvEncoder(q.n_outputs, shape), ConvDecoder(d, shape, 32), q, shape,
            DiscretisedLogisticLikelihood(0.05), mixture,
        )  # fmt: skip
        algorithm = Variational(EvidenceBound(), 1e-3, BATCH, chosen.warm_up)
        history = fit(model, source, algorithm, passes=chosen.epochs).history
        found = importance_log_likelihood(model, test, (1, 100))
        bits = [found.bits_per_dim(n) for n in (1, 100)]
        x = model.sample(1000, seed=1)
        distance = distances(features, real, x)[0]
        seconds = statistics.median(row["seconds"] for row in history)
        drawn.append((f"{prior}: {distance:.3g}", test.to_pixels(x[:40])))
        print(f"| {prior} | {seconds:.1f} | {bits[0]:.3f} | {bits[1]:.3f} | {distance:.3f} | "
              f"{used_components(model, test)} |", flush=True)  # fmt: skip
    if chosen.picture is not None:
        draw(chosen.picture, drawn, len(drawn))


def draw(path: Path, drawn: list[tuple[str, Any]], columns: int) -> None:
    """Draw grids of images under their titles."""
    from matplotlib.figure import Figure

    from mogul.report import tile

    rows = len(drawn) // columns
    figure = Figure(figsize=(3.3 * columns, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (title, pixels) in zip(panels, drawn, strict=True):
        axes.imshow(tile(pixels, 8), cmap="gray")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["table", "epoch", "islands", "colour"])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=PRIORS)
    parser.add_argument("--latents", type=int, default=40)
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 10, 50])
    parser.add_argument("--dynamic", action="store_true", help="binarise anew in every epoch")
    parser.add_argument("--images", type=int, default=1000, help="test images of 5,000 samples")
    parser.add_argument("--classifier", type=Path, help="what train_classifier wrote")
    parser.add_argument("--curves", type=Path, help="a CSV file for the bounds of every epoch")
    parser.add_argument("--picture", type=Path, help="a PNG of what is printed")
    chosen = parser.parse_args()
    if chosen.what == "epoch":
        epoch()
        return
    {"table": table, "islands": islands, "colour": colour}[chosen.what](chosen)


if __name__ == "__main__":
    main()
