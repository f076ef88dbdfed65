"""Particle algorithms against models whose exact answers are known."""

import copy
import math
from pathlib import Path

import pytest
import torch

from mogul import EM, GaussianMixture, InputError, fit, load_model, save_model
from mogul.algorithms import (
    PARTICLE_ALGORITHMS,
    Particles,
    abp,
    coin,
    estimated_seconds,
    momentum,
    pga,
    pmga,
    pqn,
    short_run,
    soul,
)
from mogul.algorithms.particle_moves import Langevin, SteinCoin, Underdamped
from mogul.algorithms.particle_parameters import ByGradient
from mogul.algorithms.particles import latent_gradient
from mogul.algorithms.watch import Watch
from mogul.data import ArraySource
from mogul.models import (
    BernoulliLikelihood,
    ConvDecoder,
    GaussianLikelihood,
    LatentVariableModel,
    LinearDecoder,
)


def hierarchical(theta: float = 0.0, learning: str = "gradient") -> LatentVariableModel:
    """The toy of Kuntz, Lim & Johansen (2023): z_i ~ N(θ, 1), x_i ~ N(z_i, 1); θ* is the mean."""
    prior = GaussianMixture(1, 1, "isotropic", dtype=torch.float64)
    for parameter in (prior.logits, *prior.raw.values()):
        parameter.requires_grad_(False)
    with torch.no_grad():
        prior.centres.fill_(theta)
    model = LatentVariableModel(
        torch.nn.Identity(), 1, (1,), GaussianLikelihood(1.0), prior, learning
    )
    return model.double()


def toy_rows(n: int) -> ArraySource:
    generator = torch.Generator().manual_seed(3)
    return ArraySource(2.0 + torch.randn(n, 1, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "step"),
    [("pga", lambda n: 2 / (2 + n)), ("pqn", lambda n: 2 / 3), ("pmga", lambda n: 1.0)],
)
def test_the_toy_model_converges_at_the_best_step_of_the_source(name, step) -> None:
    """Steps 2/(2 + D), 2/3 and 1, of sections 2 and 3 there; the maximiser is the mean."""
    n = 20
    source = toy_rows(n)
    settings = {"n_particles": 4000, "batch_size": n}
    h = step(n)
    made = {
        "pga": lambda: pga(h, 1.0, None, **settings),
        "pqn": lambda: pqn(h, **settings),
        "pmga": lambda: pmga(h, **settings),
    }[name]()
    model = hierarchical(learning="em" if name == "pmga" else "gradient")
    if name == "pmga":
        assert model.prior_model is not None
        model.prior_model.freeze(parts=("weights", "covariances"))
    passes = {"pga": 150, "pqn": 30, "pmga": 5}[name]
    fit(model, source, made, passes=passes)
    assert model.prior_model is not None
    theta = float(model.prior_model().means.detach())
    exact = float(source.take(torch.arange(n), torch.float64).mean())
    assert abs(theta - exact) < 0.03


def linear_rows(n: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return z @ W.mT + 0.7 * noise + 1.0


def ppca_log_likelihood(x: torch.Tensor, scale: float, rank: int) -> float:
    """Tipping & Bishop's maximum at a noise that is known: eigenvalues above σ² are matched."""
    values = torch.linalg.eigvalsh((x - x.mean(0)).mT @ (x - x.mean(0)) / len(x)).flip(0)
    model = torch.full_like(values, scale**2)
    model[:rank] = values[:rank].clamp_min(scale**2)
    d = len(values)
    return float(-0.5 * (d * math.log(2 * math.pi) + model.log().sum() + (values / model).sum()))


def exact_log_likelihood(model: LatentVariableModel, x: torch.Tensor) -> float:
    """Log-likelihood of a linear decoder with standard-normal latents."""
    W, b = model.decoder.weight.detach(), model.decoder.bias.detach()
    scale = float(model.likelihood.scale)
    covariance = W @ W.mT + scale**2 * torch.eye(len(b), dtype=W.dtype)
    return float(torch.distributions.MultivariateNormal(b, covariance).log_prob(x).mean())


def linear_model(scale: float = 0.7) -> LatentVariableModel:
    torch.manual_seed(1)
    decoder = LinearDecoder(2, (6,))
    return LatentVariableModel(decoder, 2, (6,), GaussianLikelihood(scale)).double()


@pytest.mark.parametrize("name", ["pga", "momentum", "pmga", "soul", "abp"])
def test_a_linear_decoder_reaches_the_maximum_of_ppca(name: str) -> None:
    x = linear_rows()
    source, model = ArraySource(x), linear_model()
    n = {"n_particles": 50, "batch_size": len(x)}
    algorithm = {
        "pga": lambda: pga(0.02, 0.1, None, burn_in=0.5, **n),
        "momentum": lambda: momentum(0.1, 0.01, None, friction=4.0, burn_in=0.5, **n),
        "pmga": lambda: pmga(0.02, **n),
        "soul": lambda: soul(0.02, 0.05, None, moves=10, burn_in=0.5, batch_size=len(x)),
        "abp": lambda: abp(0.02, 0.05, None, moves=10, burn_in=0.5, batch_size=len(x)),
    }[name]()
    fit(model, source, algorithm, passes=300)
    best, reached = ppca_log_likelihood(x, 0.7, 2), exact_log_likelihood(model, x)
    assert reached <= best + 1e-9
    assert abs(reached - best) < 0.005 * abs(best)
    if name == "pga":
        check_posterior(model, x)


def check_posterior(model: LatentVariableModel, x: torch.Tensor) -> None:
    """Mean and variance of particles are those of the exact posterior, within 5 %."""
    assert model.particles is not None
    moments = [model.particles.clone()]
    source = ArraySource(x)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    still = Particles(Langevin(0.005), ByStill(), n_particles=50, batch_size=len(x), seed=7)
    model.training_state = {}
    for number in range(60):
        fit(model, source, still, passes=10 * (number + 1))
        moments.append(model.particles.clone())
    cloud = torch.cat(moments[10:], 1)
    W, scale = model.decoder.weight, float(model.likelihood.scale)
    precision = torch.eye(2, dtype=W.dtype) + W.mT @ W / scale**2
    covariance = torch.linalg.inv(precision)
    mean = (x - model.decoder.bias) @ W @ covariance / scale**2
    size = mean.square().mean().sqrt()
    assert float((cloud.mean(1) - mean).square().mean().sqrt()) < 0.05 * float(size)
    spread = cloud.var(1).mean(0)
    assert float((spread / covariance.diagonal() - 1).abs().max()) < 0.05


class ByStill:
    """No step of the parameters."""

    def __call__(self, model, x, z, n_rows, memory):
        from mogul.algorithms.particle_parameters import Plan

        return Plan(0.0, lambda: None)


def test_moves_leave_a_posterior_as_it_is() -> None:
    """Many steps at small h: particles follow N(m, s²) whatever the move."""
    mean, scale = 1.5, 0.6
    gradient = lambda z: (mean - z) / scale**2  # ruff: ignore[lambda-assignment]
    for move in (Langevin(0.01), Underdamped(0.05, 2.0)):
        draw = torch.Generator().manual_seed(0)
        z = torch.zeros(1, 4000, 1, dtype=torch.float64)
        memory = move.start(z)
        for _ in range(1500):
            z = move(z, gradient, memory, draw)
        assert float(z.mean()) == pytest.approx(mean, abs=0.04)
        assert float(z.std()) == pytest.approx(scale, rel=0.06)


@pytest.mark.parametrize("number", [2, 40])
def test_stein_coin_spreads_particles_over_a_posterior(number: int) -> None:
    gradient = lambda z: (2.0 - z) / 0.25  # ruff: ignore[lambda-assignment]
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(3, number, 1, generator=draw, dtype=torch.float64)
    memory = SteinCoin().start(z)
    for _ in range(2000):
        z = SteinCoin()(z, gradient, memory, draw)
    assert torch.allclose(z.mean(1), torch.full((3, 1), 2.0, dtype=z.dtype), atol=0.05)
    assert torch.allclose(z.std(1), torch.full((3, 1), 0.5, dtype=z.dtype), rtol=0.2 + 1 / number)


def test_coin_betting_begins_where_each_particle_is() -> None:
    model, source = linear_model(), ArraySource(linear_rows(37))
    algorithm = coin(n_particles=4, batch_size=10)
    state = algorithm.init(model, source, 1)
    before = model.particles.clone()
    algorithm.step(model, source, state, Watch())
    assert float((model.particles - before).abs().max()) < 0.011  # a hundredth of a bet


def test_coin_betting_needs_no_step_size() -> None:
    x = linear_rows()
    model = linear_model()
    fit(model, ArraySource(x), coin(n_particles=10, batch_size=len(x)), passes=400)
    best = ppca_log_likelihood(x, 0.7, 2)
    assert abs(exact_log_likelihood(model, x) - best) < 0.02 * abs(best)


def test_the_bias_shrinks_with_the_step() -> None:
    """With W known, a particle's stationary variance is s²/(1 − h/(2 s²)), so it is too wide."""
    errors = []
    for h in (0.2, 0.05):
        draw = torch.Generator().manual_seed(0)
        z = torch.zeros(1, 20_000, 1, dtype=torch.float64)
        for _ in range(400):
            z = Langevin(h)(z, lambda z: -z, {}, draw)
        assert float(z.var()) == pytest.approx(1 / (1 - h / 2), rel=0.03)
        errors.append(abs(float(z.var()) - 1))
    assert errors[1] < errors[0] / 2


def small_images() -> ArraySource:
    generator = torch.Generator().manual_seed(0)
    return ArraySource(torch.rand(24, 32, 32, generator=generator))


def small_model() -> LatentVariableModel:
    torch.manual_seed(0)
    decoder = ConvDecoder(3, (32, 32), width=4)
    return LatentVariableModel(decoder, 3, (32, 32), GaussianLikelihood(0.2))


@pytest.mark.parametrize("which", ["batch", "full"])
def test_particles_move_at_frozen_parameters_and_parameters_at_old_particles(which: str) -> None:
    """One step by hand: both gradients are of the iterate it began with."""
    source, model = small_images(), small_model()
    algorithm = pga(1e-3, 1e-2, 0.1, n_particles=2, batch_size=24, which=which)
    state = algorithm.init(model, source, 1)
    twin = copy.deepcopy(model)
    algorithm.step(model, source, state, Watch())
    x = source.take(torch.arange(24), torch.float32)
    z = twin.particles.clone()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    twin.train()
    mean = twin.log_joint(x[order], z[order].transpose(0, 1)).mean()
    grads = torch.autograd.grad(mean, [p for p in twin.parameters() if p.requires_grad])
    twin.eval()
    # Statistics of normalisation were moved by the pass above, as the algorithm's were.
    moved = z + 1e-3 * latent_gradient(twin, x, z)
    noise = (model.particles - moved) / math.sqrt(2e-3)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.15)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.25)
    new = [p for p in model.parameters() if p.requires_grad]
    old = [p for p in twin.parameters() if p.requires_grad]
    for after, before, gradient in zip(new, old, grads, strict=True):
        square = 0.9 * gradient.square()
        step = 1e-3 * 1e-2 * 24 * gradient / (square.sqrt() + 1e-8)
        assert torch.allclose(after, before + step, atol=1e-6)


def test_one_pass_serves_both_gradients_without_batch_normalisation() -> None:
    model, source = linear_model(), ArraySource(linear_rows(20))
    x = source.take(torch.arange(20), torch.float64)
    z = torch.randn(20, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = ByGradient(Langevin(1.0))(model, x, z.transpose(0, 1), 20, {})  # pyright: ignore
    assert torch.allclose(plan.latent_gradient, latent_gradient(model, x, z), atol=1e-10)


def test_a_fit_that_was_cut_in_two_ends_as_one_that_was_not(tmp_path: Path) -> None:
    source = small_images()
    settings = {"n_particles": 2, "batch_size": 8, "warm_up": 1, "burn_in": 0.25, "seed": 4}
    whole, first = small_model(), small_model()
    fit(whole, source, pga(1e-3, 1e-2, **settings), passes=4)

    class Stop(Exception):
        pass

    def stop(row: dict) -> None:
        if row["pass"] == 2:
            save_model(tmp_path / "half.mogul", first)
            raise Stop

    with pytest.raises(Stop):
        fit(first, source, pga(1e-3, 1e-2, **settings), passes=4, callback=stop)
    second, _ = load_model(tmp_path / "half.mogul")
    fit(second, source, pga(1e-3, 1e-2, **settings), passes=4)
    for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_warm_up_copies_the_particle_of_every_row() -> None:
    model, source = linear_model(), ArraySource(linear_rows(30))
    done = fit(model, source, pga(1e-3, 0.1, None, n_particles=5, warm_up=2), passes=3)
    assert model.particles.shape == (30, 5, 2)
    assert any("warm-up" in e for row in done.history for e in row["events"])
    assert done.history[0]["log_likelihood"] is None
    assert done.history[0]["movement"] > 0


def test_a_mixture_prior_learns_from_the_particles() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(600, 1, generator=generator, dtype=torch.float64) * 0.3
    z[300:] += 4.0
    x = torch.cat([z, -z], 1) + 0.1 * torch.randn(600, 2, generator=generator, dtype=torch.float64)
    prior = GaussianMixture(2, 1, "full", dtype=torch.float64)
    with torch.no_grad():
        prior.centres.copy_(torch.tensor([[1.0], [3.0]]))
    decoder = LinearDecoder(1, (2,))
    model = LatentVariableModel(decoder, 1, (2,), GaussianLikelihood(0.1), prior, "em").double()
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        decoder.bias.zero_()
    decoder.requires_grad_(False)
    fit(model, ArraySource(x), pga(1e-3, 1e-9, None, n_particles=5, batch_size=600), passes=150)
    means = model.prior.means.detach().flatten().sort().values
    assert torch.allclose(means, torch.tensor([0.0, 4.0], dtype=torch.float64), atol=0.15)


def test_noise_on_the_parameters_is_of_the_stated_size() -> None:
    model, source = linear_model(), ArraySource(linear_rows(30))
    before = torch.cat([p.detach().flatten() for p in model.decoder.parameters()])
    fit(model, source, pga(1e-12, 1.0, None, n_particles=2, noise=0.5, batch_size=30), passes=200)
    after = torch.cat([p.detach().flatten() for p in model.decoder.parameters()])
    assert float((after - before).std()) == pytest.approx(math.sqrt(0.5 * 200), rel=0.35)


def test_missing_features_do_not_count() -> None:
    for likelihood in (GaussianLikelihood(0.3), BernoulliLikelihood()):
        x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
        output = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(1))
        holed = x.clone()
        holed[:, 3:] = float("nan")
        expected = likelihood.log_prob(x[:, :3], output[..., :3])
        assert torch.allclose(likelihood.log_prob(holed, output), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("latents", "shape", "count"),
    [(10, (32, 32), 300_161), (64, (32, 32), 355_457), (64, (32, 32, 3), 357_507)],
)
def test_the_decoder_of_the_paper_has_its_number_of_parameters(latents, shape, count) -> None:
    assert sum(p.numel() for p in ConvDecoder(latents, shape).parameters()) == count


def test_the_time_of_a_run_is_told_before_it_starts() -> None:
    source, model = small_images(), small_model()
    seconds = estimated_seconds(model, source, pga(n_particles=2, batch_size=8), passes=100)
    assert seconds > 0
    assert model.particles is None  # nothing was changed


def test_errors_say_what_to_do() -> None:
    source = small_images()
    with pytest.raises(InputError, match="pga"):
        fit(small_model(), source, pqn(), passes=1)
    with pytest.raises(InputError, match="closed form"):
        fit(small_model(), source, pmga(), passes=1)
    with pytest.raises(InputError, match="32×32"):
        ConvDecoder(3, (28, 28))
    with pytest.raises(InputError, match="smaller step_size"):
        fit(linear_model(), ArraySource(linear_rows(20)), pga(1e6, 1.0, None), passes=50)
    model = small_model()
    fit(model, source, pga(n_particles=1), passes=1)
    with pytest.raises(InputError, match="particles for 24 rows"):
        fit(model, ArraySource(torch.rand(5, 32, 32)), pga(n_particles=1), passes=2)
    with pytest.raises(InputError, match="never parts copies"):
        coin(warm_up=1)
    with pytest.raises(InputError, match="batch_size"):
        fit(linear_model(), ArraySource(linear_rows(20)), pmga(batch_size=5), passes=1)
    holed = linear_rows(20)
    holed[0, 0] = float("nan")
    with pytest.raises(InputError, match="without gaps"):
        fit(linear_model(), ArraySource(holed), pmga(), passes=1)
    with pytest.raises(InputError, match="stopped being finite"):
        fit(linear_model(), ArraySource(linear_rows(20)), pga(1e308, 1.0, None), passes=1)
    with pytest.raises(InputError, match="step_size is -1"):
        pga(step_size=-1)
    with pytest.raises(InputError, match="no moments"):
        fit(linear_model(), ArraySource(linear_rows(20)), EM(), passes=1)
    mixture = GaussianMixture(2, 6, dtype=torch.float64)
    with pytest.raises(InputError, match="no latents"):
        fit(mixture, ArraySource(linear_rows(20)), pga(), passes=1)
    assert set(PARTICLE_ALGORITHMS) >= {"pga", "pqn", "pmga", "soul", "short-run", "abp"}
    assert short_run(moves=3).chain is not None


def test_normalisation_learns_from_the_batches_of_the_parameters_alone():
    torch.manual_seed(0)
    decoder = ConvDecoder(3, (32, 32), 4)
    model = LatentVariableModel(decoder, 3, (32, 32), BernoulliLikelihood())
    x = torch.rand(24, 1024, generator=torch.Generator().manual_seed(1)).round()
    fit(model, ArraySource(x), pga(n_particles=2, batch_size=8), passes=2)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert [int(m.num_batches_tracked) for m in norms] == [6] * len(norms)
    assert not model.training
