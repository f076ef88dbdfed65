"""Claims about mogul."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.claims import (
    FULL,
    Claim,
    Library,
    expect,
    far_from_zero,
    gaps,
    nats,
    refused,
    rows,
    runs_code,
    seeded,
)

X = torch.as_tensor(rows())


def fitted(x: Any = None, covariance: str = "full", algorithm: Any = None, **options: Any) -> Any:
    """Return a fitted model of two components, and its density."""
    from mogul import EM, GaussianMixture, fit, initialise
    from mogul.data import ArraySource

    source = ArraySource(X if x is None else x)
    model = GaussianMixture(2, 3, covariance, dtype=torch.float32, **options)
    initialise(model, source, seed=0)
    fit(model, source, algorithm or EM(), passes=20)
    return model


def score(model: Any, x: torch.Tensor = X) -> str:
    """Write the mean log-likelihood."""
    return nats(model().log_prob(x).mean().detach())


def command(*words: str, before: tuple[str, ...] = ()) -> str:
    """Run mogul's command line; return what it printed."""
    done = subprocess.run(
        [sys.executable, *before, "-m", "mogul", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return done.stdout


FIT = ("fit", "digits", "--model", "ppca", "--components", "3", "--rank", "2", "--tolerance", "0")


def by_command(passes: int, path: Path, *more: str, before: tuple[str, ...] = ()) -> float:
    """Fit the digits from the command line; return the log-likelihood."""
    out = command(*FIT, "--passes", str(passes), "-o", str(path), "--json", *more, before=before)
    found = json.loads(out.splitlines()[-1])
    return float(found["log_likelihood"])


def two_processes() -> str:
    """Fit by one process and by two."""
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with tempfile.TemporaryDirectory() as folder:
        one = by_command(5, Path(folder) / "one.mogul")
        both = by_command(5, Path(folder) / "two.mogul", before=two)
    return expect(abs(one - both) < 1e-3, True, f"one process {one:.4f} nats, two {both:.4f}")


def resumed() -> str:
    """Fit in one go, and in two."""
    with tempfile.TemporaryDirectory() as folder:
        whole = by_command(6, Path(folder) / "whole.mogul")
        by_command(3, Path(folder) / "cut.mogul")
        again = by_command(6, Path(folder) / "cut.mogul", "--resume")
    return expect(again, whole, f"6 passes, and 3 and --resume: {whole:.6f} nats both")


def truncated() -> str:
    """Fit looking at few candidates."""
    from mogul import TruncatedEM

    return f"TruncatedEM {score(fitted(algorithm=TruncatedEM(candidates=1, neighbours=2)))}"


def with_gradients() -> str:
    """Let a sample and a density send gradients."""
    model = fitted()
    (model().rsample((8,), seed=0).sum() - model().log_prob(X).mean()).backward()
    n = sum(p.grad is not None for p in model.parameters())
    return f"rsample and log_prob: gradients of {n} parameters, weights included"


def bayesian() -> str:
    """Count the components that keep weight."""
    from mogul.sklearn import BayesianGaussianMixture

    kept = BayesianGaussianMixture(n_components=6, max_iter=500, random_state=0).fit(rows())
    return f"BayesianGaussianMixture keeps {int((kept.weights_ > 0.05).sum())} of 6 components"


def with_prior() -> str:
    """Fit fewer rows than features, under a prior."""
    from mogul.distributions import Prior

    model = fitted(prior=Prior(covariance_strength=5.0, covariance_scale=0.5))
    return f"Prior(covariance_strength=5): {score(model)}"


def weighted() -> str:
    """Leave rows out by weight."""
    from mogul.sklearn import GaussianMixture

    weight = np.r_[np.ones(300), np.zeros(300)]
    some = GaussianMixture(1, random_state=0).fit(rows(), sample_weight=weight)
    off = float(np.abs(some.means_[0] - rows()[:300].mean(0)).max())
    return expect(off < 1e-5, True, "weights of zero leave rows out")


def with_gaps() -> str:
    """Fit rows with gaps."""
    x = torch.as_tensor(gaps())
    return score(fitted(x), x)


def completed() -> str:
    """Fill gaps, with variances and draws."""
    x = torch.as_tensor(gaps())
    found = fitted(x)().complete(x)
    deviation = float(found.variance[0, 1].sqrt().detach())
    return f"{float(found.mean[0, 1]):.3f} ± {deviation:.3f} in the first gap, and draws by sample"


def parts() -> str:
    """Condition, and marginalise."""
    mixture = fitted()()
    some = torch.tensor([0, 2])
    given = mixture.condition(some, X[:4, [0, 2]])
    marginal = nats(mixture.marginal(some).log_prob(X[:, [0, 2]]).mean().detach())
    return f"condition {tuple(given.mean.shape)}, marginal {marginal}"


def selected() -> str:
    """Select by BIC."""
    from mogul.data import ArraySource
    from mogul.evaluation import select

    found = select(ArraySource(X), ("full", "diagonal"), components=(1, 2, 3), n_init=1, jobs=1)
    best = found.candidates[0]
    return f"select finds {best.covariance}, {best.components}"


def at_once() -> str:
    """Fit many mixtures."""
    from mogul.algorithms import fit_batched

    return f"fit_batched: {tuple(fit_batched(X.view(20, 30, 3), 2).log_likelihood.shape)} mixtures"


def streamed() -> str:
    """Fit from a memory-mapped file and from a stream of Parquet."""
    from mogul import EM, GaussianMixture, fit, initialise, open_source

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", rows())
        command("convert", f"{folder}/x.npy", "-o", f"{folder}/x.parquet")
        source = open_source(f"{folder}/x.parquet")
        model = GaussianMixture(2, 3)
        initialise(model, source)
        fit(model, source, EM(), passes=10)
    return f"{type(source).__name__} of Parquet: {score(model)}"


def on_gpu() -> str:
    """Fit on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return "no GPU here; tests/test_gpu.py runs where there is one"
    return score(fitted(X.cuda(), device="cuda"), X.cuda())


def far() -> str:
    """Fit far from zero."""
    from mogul.sklearn import GaussianMixture

    return far_from_zero(
        lambda x: float(GaussianMixture(2, random_state=0, tol=1e-8).fit(x).score(x))
    )


def own_seed() -> str:
    """Fit twice."""
    found = seeded(lambda: fitted()().log_prob(X).detach())
    return expect(found, (True, True), "same bits, generators untouched")


def network() -> str:
    """Send gradients through a head."""
    from mogul.models import MixtureHead

    model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), MixtureHead(8, 3, 2))
    loss = -model(X[:, :1]).log_prob(X[:, 1:]).mean()
    loss.backward()
    return f"MixtureHead(8, 3, 2): loss {float(loss.detach()):.3f}, with gradients"


def priors() -> str:
    """Fit an autoencoder with each prior."""
    from mogul import GaussianMixture, fit
    from mogul.algorithms import Variational
    from mogul.data import ArraySource
    from mogul.models import (
        BernoulliLikelihood,
        MLPDecoder,
        MLPEncoder,
        PosteriorFamily,
        VampPrior,
        VariationalAutoencoder,
    )

    x = (torch.rand(100, 12, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    seen = []
    for prior in (GaussianMixture(3, 2, "diagonal"), VampPrior(3, (12,))):
        q = PosteriorFamily(2)
        networks = MLPEncoder(q.n_outputs, (12,), (16,)), MLPDecoder(2, (12,), (16,))
        model = VariationalAutoencoder(*networks, q, (12,), BernoulliLikelihood(logits=True), prior)
        history = fit(model, ArraySource(x), Variational(), passes=2).history
        seen.append(f"{type(prior).__name__} {history[-1]['objective']:.2f}")
    return ", ".join(seen)


def particles() -> str:
    """Train a decoder without an encoder."""
    from mogul import fit, open_source
    from mogul.algorithms import pqn
    from mogul.models import GaussianLikelihood, LatentVariableModel, LinearDecoder

    source = open_source("digits", limit=100)
    model = LatentVariableModel(LinearDecoder(4, (8, 8)), 4, (8, 8), GaussianLikelihood(0.15))
    history = fit(model, source, pqn(n_particles=3), passes=2).history
    return f"pqn, {len(history)} passes over digits"


def painted() -> str:
    """Fill in hidden halves."""
    from mogul import EM, GaussianMixture, fit, initialise, open_source
    from mogul.data import hide_half
    from mogul.tasks import inpaint

    source = open_source("digits")
    model = GaussianMixture(5, 64, "mfa", 2)
    initialise(model, source)
    fit(model, source, EM(), passes=3)
    with torch.no_grad():
        x = source.take(range(8))
        done = inpaint(model(), x, hide_half(8, (8, 8), "right"), n_samples=3)
    return f"means, deviations, and samples {tuple(done.samples.shape)} of hidden halves of digits"


def outliers() -> str:
    """Mark rows below a quantile of the training rows."""
    from mogul.algorithms import log_likelihoods
    from mogul.data import ArraySource
    from mogul.tasks import find_outliers, training_quantiles

    mixture = fitted()()
    quantiles = training_quantiles(log_likelihoods(mixture, ArraySource(X)).numpy())
    strange = torch.cat([X, 20 * torch.ones(5, 3)])
    n = find_outliers(mixture, ArraySource(strange), quantiles, 0.01).n_below
    return f"find_outliers marks {n} of 605 rows, 5 of them strange"


def figures() -> str:
    """Compare samples with rows."""
    from mogul.evaluation import BinModel, frechet_distance, precision_recall

    sample = fitted()().sample((600,), seed=0).detach()
    bins = BinModel(rows(), n_bins=10).compare(sample.numpy())
    precision, recall = precision_recall(X, sample)
    distance = frechet_distance(X, sample)
    return (
        f"NDB {bins.ndb} of 10, Fréchet {distance:.3f}, precision {precision:.2f}, "
        f"recall {recall:.2f}"
    )


def files() -> str:
    """Look at what a model is kept as."""
    from safetensors import safe_open

    from mogul import load_model, save_model

    model = fitted()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mogul"
        save_model(path, model)
        with safe_open(path, "pt") as file:
            n = len(list(file.keys()))
        again = load_model(path)[0]
    off = float((model().log_prob(X) - again().log_prob(X)).abs().max().detach())
    expect(runs_code(load_model), False, "code in a file is not run")
    return expect(
        off, 0.0, f"safetensors of {n} tensors, the same densities; code in a file is not run"
    )


def page() -> str:
    """Write a report."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.mogul"
        by_command(2, path)
        command("report", str(path), "-o", f"{folder}/page.html")
        text = (Path(folder) / "page.html").read_text()
    return expect("<svg" in text, True, f"mogul report writes a page of {len(text) // 1000} kB")


def explored() -> str:
    """Serve a model, and fetch the page."""
    import urllib.request

    from mogul.app import Session
    from mogul.app.serve import beside
    from mogul.opened import open_any

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.mogul"
        by_command(2, path)
        with beside(Session(open_any(path, "cpu"), None)) as served:
            text = urllib.request.urlopen(served.address).read().decode()
    return expect("<html" in text, True, "mogul explore serves its page")


def estimator() -> str:
    """Run scikit-learn's own checks on an estimator."""
    from sklearn.utils.estimator_checks import check_estimator

    from mogul.sklearn import GaussianMixture

    return f"passes {len(check_estimator(GaussianMixture()))} checks of check_estimator"


def families() -> str:
    """Score three families."""
    return ", ".join(
        f"{c} {score(fitted(covariance=c))}" for c in ("full", "diagonal", "isotropic")
    )


def online() -> str:
    """Learn in batches."""
    from mogul import OnlineEM

    return f"OnlineEM {score(fitted(algorithm=OnlineEM(batch_size=100)))}, and partial_fit"


def helped() -> str:
    """List commands."""
    return expect(
        "inpaint" in command("--help"), True, "mogul --help lists fit, sample, inpaint, …"
    )


def other_components() -> str:
    """Ask for another family."""
    return refused(lambda: fitted(covariance="student-t"))


LIBRARY = Library(
    "mogul",
    "mogul",
    "mogul",
    {
        "simple": Claim(FULL, families),
        "tied": Claim(FULL, lambda: score(fitted(sharing="shared"))),
        "ppca": Claim(FULL, lambda: score(fitted(covariance="ppca", rank=1))),
        "mfa": Claim(FULL, lambda: score(fitted(covariance="mfa", rank=1))),
        "em": Claim(FULL, lambda: score(fitted())),
        "online": Claim(FULL, online),
        "truncated": Claim(FULL, truncated),
        "gradient": Claim(FULL, with_gradients),
        "bayes": Claim(FULL, bayesian),
        "prior": Claim(FULL, with_prior),
        "weights": Claim(FULL, weighted),
        "missing": Claim(FULL, with_gaps),
        "impute": Claim(FULL, completed),
        "conditional": Claim(FULL, parts),
        "selection": Claim(FULL, selected),
        "batched": Claim(FULL, at_once),
        "memory": Claim(FULL, streamed),
        "processes": Claim(FULL, two_processes),
        "gpu": Claim(FULL, on_gpu),
        "far": Claim(FULL, far),
        "seed": Claim(FULL, own_seed),
        "resume": Claim(FULL, resumed),
        "mdn": Claim(FULL, network),
        "vae": Claim(FULL, priors),
        "particles": Claim(FULL, particles),
        "inpaint": Claim(FULL, painted),
        "outliers": Claim(FULL, outliers),
        "quality": Claim(FULL, figures),
        "files": Claim(FULL, files),
        "cli": Claim(FULL, helped),
        "report": Claim(FULL, page),
        "explorer": Claim(FULL, explored),
        "estimator": Claim(FULL, estimator),
        "others": Claim("–", other_components),
    },
)
