"""Tasks of latent-variable models, against the exact answers of a linear decoder."""

import math

import pytest
import torch
from torch import Tensor, nn

from families import random_mixture
from mogul import InputError
from mogul.models import GaussianLikelihood, LatentVariableModel, LinearDecoder
from mogul.tasks.encode import decode_rows, encode
from mogul.tasks.inpaint_latent import inpaint_latent, posterior_samples
from mogul.tasks.synthesis import interpolate, of_class, summarise

SCALE = 0.5


def linear_model() -> LatentVariableModel:
    """Two latents, five features, noise of 0.5, a standard-normal prior."""
    generator = torch.Generator().manual_seed(1)
    decoder = LinearDecoder(2, (5,))
    with torch.no_grad():
        decoder.weight.normal_(generator=generator)
        decoder.bias.normal_(generator=generator)
    return LatentVariableModel(decoder, 2, (5,), GaussianLikelihood(SCALE)).double()


def rows_with_gaps(model: LatentVariableModel, n: int = 7) -> Tensor:
    """Rows with a mask each; the last one is hidden altogether."""
    x = model.sample(n, seed=0, noise=True).detach()
    generator = torch.Generator().manual_seed(2)
    x[torch.rand(x.shape, generator=generator) < 0.4] = torch.nan
    x[-1] = torch.nan
    return x


def exact_posterior(model: LatentVariableModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """Means (n, 2) and covariances (n, 2, 2) of the latents given what is observed of each row."""
    means, covariances = [], []
    decoder = model.decoder
    assert isinstance(decoder, LinearDecoder)
    for row in x:
        seen = ~row.isnan()
        W, b = decoder.weight.detach()[seen], decoder.bias.detach()[seen]
        covariance = torch.linalg.inv(torch.eye(2).double() + W.mT @ W / SCALE**2)
        covariances.append(covariance)
        means.append(covariance @ W.mT @ (row[seen] - b) / SCALE**2)
    return torch.stack(means), torch.stack(covariances)


def test_encoding_is_the_posterior_mean_of_a_linear_decoder():
    model = linear_model()
    x = rows_with_gaps(model)
    found = encode(model, x)
    means, _ = exact_posterior(model, x)
    torch.testing.assert_close(found.latents, means, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.log_joint, model.log_joint(x, means).detach())
    assert found.steps < 500  # it stopped when nothing was left to gain
    assert model.training  # as it was
    assert all(p.grad is None for p in model.parameters())


def test_a_row_does_not_depend_on_the_others():
    model = linear_model()
    x = rows_with_gaps(model)
    whole, part = encode(model, x), encode(model, x[:3])
    torch.testing.assert_close(whole.latents[:3], part.latents, rtol=0, atol=1e-6)
    settings = {"n_samples": 2, "burn_in": 20, "seed": 3}
    draws = posterior_samples(model, x, whole.latents, **settings)
    alone = posterior_samples(model, x[:3], whole.latents[:3], **settings)
    torch.testing.assert_close(draws[:, :3], alone, rtol=0, atol=1e-6)
    again = posterior_samples(model, x, whole.latents, **settings)
    torch.testing.assert_close(draws, again, rtol=0, atol=0)


def test_samples_have_the_exact_posterior():
    model = linear_model()
    x = rows_with_gaps(model, 4)
    means, covariances = exact_posterior(model, x)
    chains = 500  # of each row, so that they are independent
    many, starts = x.repeat(chains, 1), means.repeat(chains, 1)
    draws = posterior_samples(model, many, starts, 4, spacing=20, seed=5)
    draws = draws.reshape(4, chains, 4, 2).flatten(0, 1).transpose(0, 1)  # (row, draw, d)
    root = torch.linalg.cholesky(covariances)
    white = torch.linalg.solve_triangular(root, (draws - means.unsqueeze(1)).mT, upper=False)
    n = white.shape[-1]
    assert white.mean(-1).abs().max() < 5 / math.sqrt(n / 2)
    assert (white @ white.mT / n - torch.eye(2)).abs().max() < 5 * math.sqrt(2 / (n / 2))


def test_few_steps_from_latents_nearby_find_the_same_mode():
    model = linear_model()
    x = rows_with_gaps(model)
    known = encode(model, x)
    near = encode(model, x, steps=60, start=known.latents + 0.1)
    assert near.steps <= 60
    torch.testing.assert_close(near.latents, known.latents, atol=0.02, rtol=0)
    again = encode(model, x, seed=5, start=known.latents + 0.1, steps=60)
    torch.testing.assert_close(again.latents, near.latents, atol=0, rtol=0)  # no draws are made
    few = inpaint_latent(model, x, None, 2, 60, 3, known.latents + 0.1, 5, 2)
    torch.testing.assert_close(few.latents, near.latents, atol=0, rtol=0)
    chains = posterior_samples(model, x, near.latents, 2, 5, 2, seed=3)
    torch.testing.assert_close(few.samples, torch.where(x.isnan(), decode_rows(model, chains), x))
    with pytest.raises(InputError, match=r"Latents of shape \(2, "):
        encode(model, x, start=known.latents[:2])


def test_inpainting_keeps_what_is_observed_and_conditions_on_it():
    model = linear_model()
    x = rows_with_gaps(model)
    done = inpaint_latent(model, x, n_samples=3, seed=1)
    means, _ = exact_posterior(model, x)
    seen, exact = ~x.isnan(), model.decode(means).detach()
    assert (done.mode[seen] == x[seen]).all()
    torch.testing.assert_close(done.mode[~seen], exact[~seen], rtol=0, atol=5e-3)
    assert done.samples.shape == (3, 7, 5)
    assert (done.samples[:, seen] == x[seen]).all()
    assert (done.samples[:, ~seen] != done.mode[~seen]).any(0).all()
    filled = torch.where(seen, x, 100.0)
    by_mask = inpaint_latent(model, filled, seen, seed=1)
    torch.testing.assert_close(by_mask.mode, done.mode, rtol=0, atol=0)
    assert by_mask.samples.shape == (0, 7, 5)


def two_bumps() -> LatentVariableModel:
    """One latent; the decoder rises to 1 about z = 2, and to 0.6 about z = −1.5."""
    decoder = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    first, last = decoder[0], decoder[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    edges = torch.tensor([-2.0, -1.0, 1.5, 2.5])
    with torch.no_grad():
        first.weight.fill_(3.0)
        first.bias.copy_(-3.0 * edges)
        last.weight.copy_(torch.tensor([[0.3, -0.3, 0.5, -0.5]]))
        last.bias.zero_()
    return LatentVariableModel(decoder, 1, (1,), GaussianLikelihood(0.1)).double()


def test_starts_of_every_row_find_the_better_of_two_modes():
    model = two_bumps()
    x = torch.full((30, 1), 0.9).double()
    grid = torch.linspace(-5, 5, 20_001).double().unsqueeze(-1)
    scores = model.log_joint(x[:1].expand(len(grid), -1), grid).detach()
    best = grid[scores.argmax()]
    assert best > 1
    one = encode(model, x, n_starts=1).latents
    assert 5 < (one < 0).sum() < 28  # which starts at the wrong side stay there
    many = encode(model, x, n_starts=20)
    torch.testing.assert_close(many.latents, best.expand(30, 1), rtol=0, atol=1e-3)
    assert (many.log_joint >= scores.max() - 1e-6).all()
    model.particles = torch.full((5, 2, 1), 2.0).double()
    known = encode(model, x, n_starts=2).latents
    torch.testing.assert_close(known, best.expand(30, 1), rtol=0, atol=1e-3)


def with_particles(centres: list[list[float]], rows: int) -> tuple[LatentVariableModel, Tensor]:
    """A model whose particles, two a row, lie about centres; and the centre of each row."""
    model, generator = linear_model(), torch.Generator().manual_seed(4)
    labels = torch.arange(rows) % len(centres)
    where = torch.tensor(centres).double()[labels].unsqueeze(1)
    scatter = torch.randn(rows, 2, 2, generator=generator, dtype=torch.float64)
    model.particles = where + scatter @ torch.tensor([[0.5, 0.2], [0.0, 0.3]]).double()
    return model, labels


def test_the_gaussian_summary_has_the_moments_of_the_cloud():
    model, _ = with_particles([[3.0, -1.0]], 200)
    assert model.particles is not None
    cloud = model.particles.reshape(-1, 2)
    found = summarise(model, "gaussian")
    torch.testing.assert_close(found.means[0], cloud.mean(0))
    torch.testing.assert_close(found.covariance.dense()[0], cloud.mT.cov(correction=0))
    assert model.sample(3, 0, latents=found).shape == (3, 5)


def test_the_mixture_summary_finds_the_islands():
    centres = [[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]
    model, _ = with_particles(centres, 300)
    found = summarise(model, "mixture")
    assert found.n_components == 3
    order = torch.cdist(torch.tensor(centres).double(), found.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(found.means[order], torch.tensor(centres).double(), rtol=0, atol=0.2)
    assert summarise(model, "mixture", n_components=2).n_components == 2
    one, _ = with_particles([[1.0, 1.0]], 100)
    assert summarise(one, "mixture").n_components == 1


def test_a_summary_of_other_particles_than_the_models_own():
    model, _ = with_particles([[1.0, 1.0]], 100)
    other, _ = with_particles([[0.0, 0.0], [8.0, 0.0]], 100)
    found = summarise(model, "mixture", particles=other.particles)
    expected = summarise(other, "mixture")
    torch.testing.assert_close(found.means, expected.means)
    model.particles = None
    assert summarise(model, "gaussian", particles=other.particles).n_components == 1


def test_the_class_summary_has_one_gaussian_per_class():
    model, labels = with_particles([[0.0, 0.0], [4.0, 1.0]], 90)
    labels[:9] = 7  # a third class, across both islands
    found = summarise(model, "class", labels=labels)
    expected = torch.bincount(labels)[[0, 1, 7]] / 90
    torch.testing.assert_close(found.weights, expected.double())
    assert model.particles is not None
    for k, name in enumerate((0, 1, 7)):
        cloud = model.particles[labels == name].reshape(-1, 2)
        own = of_class(found, k)
        torch.testing.assert_close(own.mean, cloud.mean(0))
        torch.testing.assert_close(own.covariance.dense()[0], cloud.mT.cov(correction=0))
    with pytest.raises(InputError, match="choose one from 0 to 2"):
        of_class(found, 3)


def test_a_component_of_any_family_is_a_mixture():
    x = torch.zeros(2, 4).double()
    for name in ("isotropic", "ppca", "full"):
        for n_covariances in (1, 3):
            mixture = random_mixture(name, 3, 4, n_covariances)
            expected = mixture.component_log_prob(x)[:, 1] - mixture.log_weights[1]
            torch.testing.assert_close(of_class(mixture, 1).log_prob(x), expected)


def test_the_prior_summary_is_the_prior():
    model = linear_model()
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
    found = summarise(model, "prior")
    torch.testing.assert_close(found.log_prob(z), model.prior.log_prob(z))


def test_interpolation_is_straight_and_ends_at_reconstructions():
    model = linear_model()
    a, b = model.sample(3, 0).detach(), model.sample(3, 1).detach()
    found = interpolate(model, a, b, 5)
    assert found.shape == (3, 5, 5)
    for end, rows in ((0, a), (-1, b)):
        rebuilt = model.decode(encode(model, rows).latents).detach()
        torch.testing.assert_close(found[:, end], rebuilt)
    steps = found.diff(dim=1)  # of a linear decoder
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))


def test_what_cannot_be_used_is_refused():
    model = linear_model()
    x = torch.zeros(3, 5).double()
    with pytest.raises(InputError, match=r"give a tensor \(n, 5\)"):
        encode(model, torch.zeros(3, 4))
    with pytest.raises(InputError, match="at least 1"):
        encode(model, x, n_starts=0)
    with pytest.raises(InputError, match="learning rate"):
        encode(model, x, learning_rate=-1.0)
    spoilt = x.clone()
    spoilt[1, 2] = math.inf
    with pytest.raises(InputError, match=r"first of them row 1"):
        encode(model, spoilt)
    with pytest.raises(InputError, match="mask has shape"):
        inpaint_latent(model, x, torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="boolean"):
        inpaint_latent(model, x, torch.ones(3, 5))
    with pytest.raises(InputError, match="marked as observed"):
        inpaint_latent(model, torch.full_like(x, torch.nan), torch.ones_like(x, dtype=torch.bool))
    with pytest.raises(InputError, match="zero or more"):
        inpaint_latent(model, x, n_samples=-1)
    with pytest.raises(InputError, match="Latents of shape"):
        posterior_samples(model, x, torch.zeros(2, 2), 1)
    with pytest.raises(InputError, match="burn-in of -1"):
        posterior_samples(model, x, torch.zeros(3, 2), 1, burn_in=-1)
    with pytest.raises(InputError, match="where chains start"):
        posterior_samples(model, x, torch.full((3, 2), torch.nan), 1)
    with pytest.raises(InputError, match="Unknown summary"):
        summarise(model, "median")
    with pytest.raises(InputError, match="no particles"):
        summarise(model, "gaussian")
    with pytest.raises(InputError, match="n of at least 2"):
        interpolate(model, x, x, 1)
    with pytest.raises(InputError, match="3 and 2 rows"):
        interpolate(model, x, x[:2])
    model.particles = torch.zeros(2, 1, 2).double()
    with pytest.raises(InputError, match="takes at least 3"):
        summarise(model, "gaussian")
    with pytest.raises(InputError, match="no labels came"):
        summarise(model, "class")
    with pytest.raises(InputError, match=r"labels of shape \(3,\)"):
        summarise(model, "class", labels=torch.zeros(3))
