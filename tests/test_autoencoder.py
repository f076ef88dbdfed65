"""Autoencoders: bounds against exact likelihoods, every prior with every posterior."""

import math

import pytest
import torch
from torch import nn

from mogul import GaussianMixture, InputError, fit, load_model, save_model
from mogul.algorithms import EvidenceBound, ImportanceBound, Variational
from mogul.data import ArraySource
from mogul.evaluation import (
    cluster_accuracy,
    importance_log_likelihood,
    normalised_mutual_information,
    purity,
    summarise_latents,
)
from mogul.models import (
    BernoulliLikelihood,
    ConvDecoder,
    ConvEncoder,
    DiscretisedLogisticLikelihood,
    GaussianLikelihood,
    LinearDecoder,
    MLPDecoder,
    MLPEncoder,
    PosteriorFamily,
    VampPrior,
    VariationalAutoencoder,
)

PRIORS = ["normal", "mixture", "mixture-em", "vamp"]
OBJECTIVES = {
    "marginal": EvidenceBound(),
    "sampled": EvidenceBound("sampled"),
    "variational": EvidenceBound("variational"),
    "importance": ImportanceBound(5),
}


def rows(n: int = 200) -> torch.Tensor:
    """Binary rows of four kinds."""
    draw = torch.Generator().manual_seed(0)
    kinds = torch.rand(4, 12, generator=draw)
    return torch.bernoulli(kinds[torch.arange(n) % 4], generator=draw)


def autoencoder(prior: str = "normal", components: int = 1, likelihood=None):
    """A small autoencoder of those rows."""
    torch.manual_seed(0)
    q = PosteriorFamily(2, components)
    chosen = {
        "normal": lambda: None,
        "mixture": lambda: GaussianMixture(4, 2, "diagonal"),
        "mixture-em": lambda: GaussianMixture(4, 2, "full"),
        "vamp": lambda: VampPrior(4, (12,)),
        "vamp-em": lambda: VampPrior(4, (12,)),
    }[prior]()
    learning = "em" if prior.endswith("em") else "gradient"
    networks = MLPEncoder(q.n_outputs, (12,), (16,)), MLPDecoder(2, (12,), (16,))
    noise = BernoulliLikelihood(logits=True) if likelihood is None else likelihood
    return VariationalAutoencoder(*networks, q, (12,), noise, chosen, learning)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("prior", PRIORS)
def test_every_prior_learns_with_every_posterior_and_objective(prior, components, objective):
    model, source = autoencoder(prior, components), ArraySource(rows())
    done = fit(model, source, Variational(OBJECTIVES[objective], 5e-3, 50), passes=12)
    assert done.history[-1]["objective"] > done.history[0]["objective"]
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    estimate = importance_log_likelihood(model, source, (1, 200))
    assert estimate.mean(200) >= estimate.mean(1) - 3 * estimate.error(1)


def linear_gaussian():
    """An autoencoder whose exact posterior and likelihood are known, and rows of it."""
    torch.manual_seed(0)
    decoder, encoder = LinearDecoder(2, (6,)), nn.Linear(6, 4)
    W = torch.linalg.qr(torch.randn(6, 2)).Q * torch.tensor([2.0, 1.0])
    noise = 0.5
    with torch.no_grad():
        decoder.weight.copy_(W)
        decoder.bias.fill_(0.3)
        variance = 1 / (1 + W.square().sum(0) / noise**2)  # columns of W are orthogonal
        encoder.weight[:2] = variance[:, None] * W.mT / noise**2
        encoder.bias[:2] = -encoder.weight[:2] @ decoder.bias
        encoder.weight[2:] = 0.0
        encoder.bias[2:] = variance.log()
    q = PosteriorFamily(2)
    model = VariationalAutoencoder(encoder, decoder, q, (6,), GaussianLikelihood(noise))
    x = model.sample(300, seed=1, noise=True)
    covariance = W @ W.mT + noise**2 * torch.eye(6)
    exact = torch.distributions.MultivariateNormal(decoder.bias.detach(), covariance).log_prob(x)
    return model, x, exact


@torch.no_grad()
def test_with_the_exact_posterior_every_bound_is_the_likelihood():
    model, x, exact = linear_gaussian()
    draw = torch.Generator().manual_seed(0)
    for objective in (ImportanceBound(1), ImportanceBound(20)):
        assert float(objective(model, x, draw).evidence) == pytest.approx(
            float(exact.mean()), abs=1e-4
        )
    for name in ("marginal", "variational", "sampled"):
        found = EvidenceBound(name, n_samples=400)(model, x, draw).evidence.detach()
        assert float(found) == pytest.approx(float(exact.mean()), abs=0.02)


def test_importance_sampling_finds_the_exact_likelihood():
    model, x, exact = linear_gaussian()
    with torch.no_grad():
        model.encoder.bias[2:] += 1.0  # a posterior that is too wide
        model.encoder.bias[:2] += 0.3  # and off the mark
    found = importance_log_likelihood(model, ArraySource(x), (1, 50, 5000))
    assert found.mean(1) < found.mean(50) < found.mean(5000)
    assert found.mean(5000) == pytest.approx(float(exact.mean()), abs=0.1)
    assert float((found.log_likelihood[5000] - exact).abs().max()) < 0.3
    assert bool((found.effective > 1).all())
    assert bool((found.effective <= 5000).all())


def test_the_importance_bound_rises_with_samples():
    model, x, _ = linear_gaussian()
    with torch.no_grad():
        model.encoder.bias[2:] += 1.0
    draw = torch.Generator().manual_seed(0)
    means = [
        sum(float(ImportanceBound(t)(model, x, draw).evidence) for _ in range(20)) / 20
        for t in (1, 2, 5, 20, 100)
    ]
    assert means == sorted(means)


def test_a_mixture_posterior_reaches_two_islands_that_one_gaussian_cannot():
    """x = z² + noise: the posterior of a row has two modes."""

    class Square(nn.Module):
        def forward(self, z):
            return z.square()

    x = torch.linspace(0.5, 3, 200).unsqueeze(-1)

    def reached(components, seed):
        torch.manual_seed(seed)
        q = PosteriorFamily(1, components)
        encoder = MLPEncoder(q.n_outputs, (1,), (32,))
        with torch.no_grad():  # one component on each side, or all on one
            encoder.body[-1].bias[:components] = torch.tensor([1.0, -1.0])[:components]
        model = VariationalAutoencoder(encoder, Square(), q, (1,), GaussianLikelihood(0.2))
        # The importance bound keeps to both islands; the evidence bound, which may lose one, is
        # what is compared.
        fit(model, ArraySource(x), Variational(ImportanceBound(4), 1e-2, 50), passes=100)
        fit(model, ArraySource(x), Variational(EvidenceBound(), 3e-3, 50), passes=250)
        draw = torch.Generator().manual_seed(0)
        return float(EvidenceBound(n_samples=200)(model, x, draw).evidence.detach())

    one, two = (max(reached(components, seed) for seed in (1, 2)) for components in (1, 2))
    assert two == pytest.approx(one + math.log(2), abs=0.05)


def test_free_bits_keep_latents_informed():
    model, x = autoencoder(), rows()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        plain = EvidenceBound("variational")(model, x, draw)
        held = EvidenceBound("variational", free_bits=3.0)(model, x, draw)
    assert float(plain.divergence) < 3
    assert float(held.objective) == pytest.approx(float(held.reconstruction) - 3.0)
    noise = torch.randint(0, 2, (200, 12), generator=draw).float()  # nothing to learn
    gained = []
    for bits in (0.0, 2.0):
        model = autoencoder()
        objective = EvidenceBound("variational", free_bits=bits)
        done = fit(model, ArraySource(noise), Variational(objective, 1e-2, 50), passes=30)
        gained.append(done.history[-1]["divergence"])
    assert gained[0] < 1 < gained[1]


def test_the_divergence_grows_in_over_the_warm_up():
    model, source = autoencoder(), ArraySource(rows())
    done = fit(model, source, Variational(learning_rate=1e-4, warm_up=4), passes=5)
    for row, beta in zip(done.history, (0.25, 0.5, 0.75, 1.0, 1.0), strict=True):
        expected = row["reconstruction"] - beta * row["divergence"]
        assert row["objective"] == pytest.approx(expected, abs=1e-3)
        assert row["evidence_bound"] == pytest.approx(
            row["reconstruction"] - row["divergence"], abs=1e-3
        )


@pytest.mark.parametrize("prior", PRIORS)
def test_a_fit_goes_on_from_its_file_to_the_same_end(tmp_path, prior):
    source, algorithm = (
        ArraySource(rows()),
        Variational(learning_rate=5e-3, batch_size=50, warm_up=3),
    )
    whole, cut = autoencoder(prior), autoencoder(prior)
    fit(whole, source, algorithm, passes=4)
    fit(cut, source, algorithm, passes=2)
    save_model(tmp_path / "cut.mogul", cut)
    cut, _ = load_model(tmp_path / "cut.mogul")
    done = fit(cut, source, algorithm, passes=4)
    assert [row["pass"] for row in done.history] == [3, 4]
    for (name, a), b in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(InputError, match="made 4 passes"):
        fit(cut, source, algorithm, passes=4)


def test_mixture_priors_start_from_encoded_rows_and_vamp_priors_from_rows():
    source = ArraySource(rows())
    model = autoencoder("mixture")
    Variational().init(model, source, 1)
    model.prior_model.check_started()
    spread = model.posterior(rows()).mixture().sample(seed=0).std(0)
    assert bool((model.prior.variance.sqrt() < 3 * spread).all())
    vamp = autoencoder("vamp")
    Variational().init(vamp, source, 1)
    found = vamp.vamp_prior.pseudo_inputs
    assert all(bool(((rows() - row).abs() < 0.05).all(1).any()) for row in found)


def test_an_em_prior_follows_the_encoded_rows():
    model, source = autoencoder("mixture-em"), ArraySource(rows())
    algorithm = Variational(learning_rate=5e-3, batch_size=50)
    algorithm.init(model, source, 1)
    first = GaussianMixture(4, 2, "full")
    first.load_state_dict(model.prior_model.state_dict())
    with torch.no_grad():  # encoded rows move away from where the prior started
        model.encoder.body[-1].bias[:2] += 3.0
    fit(model, source, algorithm, passes=15)
    z = algorithm._drawn(model, source, 200, torch.Generator().manual_seed(5))
    assert float(model.prior.log_prob(z).mean()) > float(first().log_prob(z).mean().detach()) + 0.5


def test_em_draws_new_latents_in_every_pass():
    """All posteriors are N(0, I): the prior must not fit one draw of them."""
    prior = GaussianMixture(20, 2, "full")
    model = autoencoder()
    model = VariationalAutoencoder(
        model.encoder, model.decoder, model.posterior_family, (12,), model.likelihood, prior, "em"
    )
    with torch.no_grad():
        model.encoder.body[-1].weight.zero_()
        model.encoder.body[-1].bias.zero_()
    fit(model, ArraySource(rows()), Variational(learning_rate=1e-9, batch_size=200), passes=50)
    z = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    assert float(model.prior.log_prob(z).mean()) > -1 - math.log(2 * math.pi) - 0.15


def test_a_prior_that_was_set_is_kept():
    scales = GaussianMixture(2, 2, "diagonal")  # equal means, unlike variances
    with torch.no_grad():
        scales.raw["log_noise"].copy_(torch.tensor([[-4.0, -4.0], [1.0, 1.0]]))
    vamp = VampPrior(1, (12,))
    vamp.start(torch.zeros(1, 12))
    for prior in (scales, vamp):
        before = {name: t.clone() for name, t in prior.state_dict().items()}
        base = autoencoder()
        parts = (base.encoder, base.decoder, base.posterior_family, (12,), base.likelihood)
        Variational().init(VariationalAutoencoder(*parts, prior), ArraySource(rows()), 1)
        for name, tensor in prior.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_what_is_frozen_in_a_prior_stays():
    prior = GaussianMixture(3, 2, "diagonal")
    with torch.no_grad():
        prior.centres.copy_(torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]))
    prior.freeze(parts=("means",))
    base, before = autoencoder(), prior.centres.clone()
    parts = (base.encoder, base.decoder, base.posterior_family, (12,), base.likelihood)
    weights = prior.logits.clone()
    fit(VariationalAutoencoder(*parts, prior), ArraySource(rows()), Variational(), passes=2)
    assert torch.equal(prior.centres, before)
    assert not torch.equal(prior.logits, weights)


def test_pseudo_inputs_stay_in_bounds_and_apart():
    model = autoencoder()
    prior = VampPrior(30, (12,))
    parts = (model.encoder, model.decoder, model.posterior_family, (12,), model.likelihood)
    model = VariationalAutoencoder(*parts, prior)
    few = rows(8)  # fewer rows than pseudo-inputs
    fit(model, ArraySource(few), Variational(learning_rate=1e-2, batch_size=4), passes=20)
    u = prior.pseudo_inputs
    assert bool(((u >= 0) & (u <= 1)).all())
    assert len(u.unique(dim=0)) == 30


def test_held_out_rows_do_not_touch_statistics_of_batches():
    shape = (32, 32)
    x = torch.rand(41, 1024, generator=torch.Generator().manual_seed(1)).round()

    def trained(validation):
        torch.manual_seed(0)
        q = PosteriorFamily(3)
        networks = ConvEncoder(q.n_outputs, shape, 4), ConvDecoder(3, shape, 4, squash=False)
        model = VariationalAutoencoder(*networks, q, shape, BernoulliLikelihood(logits=True))
        fit(model, ArraySource(x[:40]), Variational(batch_size=8), passes=1, validation=validation)
        return model.state_dict()

    plain, watched = trained(None), trained(ArraySource(x[:9]))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_normalisation_learns_from_every_batch_and_is_then_fixed():
    shape, seen = (32, 32), []
    x = torch.rand(40, 1024, generator=torch.Generator().manual_seed(1)).round()
    torch.manual_seed(0)
    q = PosteriorFamily(3)
    networks = ConvEncoder(q.n_outputs, shape, 4), ConvDecoder(3, shape, 4, squash=False)
    model = VariationalAutoencoder(*networks, q, shape, BernoulliLikelihood(logits=True))
    model.encoder.register_forward_hook(lambda module, *_: seen.append(module.training))
    source = ArraySource(x)
    fit(model, source, Variational(batch_size=8), passes=1)
    assert seen == [True] * 5
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert [int(m.num_batches_tracked) for m in norms] == [5] * len(norms)
    assert not model.training


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    model, source = autoencoder(), ArraySource(rows())
    fit(model, source, Variational(), passes=1)
    kept = {name: t.clone() for name, t in model.training_state.items()}
    before = {name: t.clone() for name, t in model.state_dict().items()}
    held = model.training_state
    broken = rows()
    broken[0, 0] = math.inf
    with pytest.raises(InputError, match=r"finite|between 0"):
        fit(model, ArraySource(broken), Variational(batch_size=200), passes=2)
    assert not model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    fit(model, source, Variational(), passes=2)
    assert all(torch.equal(held[name], t) for name, t in kept.items())


def test_only_probabilities_have_bits():
    grey = importance_log_likelihood(autoencoder(), ArraySource(0.3 * rows(6)), (2,))
    binary = importance_log_likelihood(autoencoder(), ArraySource(rows(6)), (2,))
    assert grey.bits_per_dim(2) is None
    assert grey.perplexity(2) is None
    assert binary.bits_per_dim(2) > 0


def test_weights_that_vanish_have_no_effective_samples():
    model, x, _ = linear_gaussian()
    with torch.no_grad():
        model.decoder.bias.fill_(1e30)
    found = importance_log_likelihood(model, ArraySource(x[:4]), (5,))
    assert bool((found.effective == 0).all())


def test_narrow_posteriors_keep_their_digits():
    raw = torch.zeros(1, 4)
    raw[:, 2:] = -90.0
    q = PosteriorFamily(2)(raw)
    z = q.stratified(3, torch.Generator().manual_seed(0)).squeeze(1)
    expected = (-math.log(2 * math.pi) + 90) - 0.5 * 2
    assert bool(q.log_prob(z).isfinite().all())
    assert float(q.log_prob(z).mean()) == pytest.approx(expected, abs=3)


def test_a_component_of_no_weight_gives_no_nan():
    model = autoencoder("mixture")
    Variational().init(model, ArraySource(rows()), 1)
    with torch.no_grad():
        model.prior_model.logits[0] = -1e4
    for objective in OBJECTIVES.values():
        model.zero_grad()
        (-objective(model, rows(), torch.Generator().manual_seed(0)).objective).backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_dynamic_binarisation_draws_anew_and_keeps_the_mean():
    x = torch.full((4000, 1), 0.3)
    q = PosteriorFamily(1)
    model = VariationalAutoencoder(
        MLPEncoder(q.n_outputs, (1,), (4,)),
        MLPDecoder(1, (1,), (4,)),
        q,
        (1,),
        BernoulliLikelihood(True),
    )
    algorithm, draw = Variational(binarise=True), torch.Generator().manual_seed(0)
    first = algorithm._rows(model, ArraySource(x), torch.arange(4000), draw)
    second = algorithm._rows(model, ArraySource(x), torch.arange(4000), draw)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    assert float(first.mean()) == pytest.approx(0.3, abs=0.03)


def test_discretised_logistics_are_probabilities():
    likelihood = DiscretisedLogisticLikelihood(0.05, levels=16)
    pixels = ((torch.arange(16) + 0.5) / 16).unsqueeze(-1)
    for mean in (-1.0, 0.0, 0.31, 0.97, 3.0):
        total = likelihood.log_prob(pixels, torch.full((16, 1), mean)).exp().sum().detach()
        assert float(total) == pytest.approx(1.0, abs=1e-4)
    output = torch.full((20_000, 1), 0.4)
    drawn = likelihood.sample(output, seed=0)
    shares = torch.bincount((drawn * 16).floor().long().flatten(), minlength=16) / 20_000
    expected = likelihood.log_prob(pixels, torch.full((16, 1), 0.4)).exp().detach()
    assert torch.allclose(shares, expected, atol=0.012)


@pytest.mark.parametrize(("levels", "scale"), [(256, 0.05), (256, 5e-4), (16, 0.01), (4, 0.02)])
def test_discretised_logistics_keep_their_digits(levels, scale):
    likelihood, exact = (DiscretisedLogisticLikelihood(scale, levels) for _ in range(2))
    exact.double()
    x = ((torch.arange(levels) + 0.5) / levels).double().unsqueeze(-1)
    for mean in (-0.1, 0.2, 0.5001, 1.1):
        output = torch.full_like(x, mean)
        expected = exact.log_prob(x, output)
        found = likelihood.log_prob(x.float(), output.float()).double()
        assert torch.allclose(found, expected, rtol=2e-4, atol=2e-5)
        half = 0.5 / levels
        above, below = ((x + s * half - output) / scale for s in (1, -1))
        mass = (above.sigmoid() - below.sigmoid()).squeeze(-1)[1:-1]
        clear = mass > 1e-6  # where the difference itself still has digits
        assert torch.allclose(expected[1:-1][clear], mass[clear].log(), atol=1e-6)


def test_discretised_logistics_keep_a_gradient_far_out():
    likelihood = DiscretisedLogisticLikelihood(0.001)
    output = torch.full((1, 1), 0.9, requires_grad=True)
    value = likelihood.log_prob(torch.tensor([[0.1]]), output)
    value.backward()
    assert bool(value.isfinite())
    assert float(output.grad) == pytest.approx(-1000, rel=0.01)


def test_a_scale_of_every_feature_is_learned():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 3, generator=draw) * torch.tensor([0.1, 1.0, 3.0])
    q = PosteriorFamily(1)
    likelihood = GaussianLikelihood(1.0, learn=True, n_features=3)
    model = VariationalAutoencoder(
        MLPEncoder(q.n_outputs, (3,), (4,)), MLPDecoder(1, (3,), (4,)), q, (3,), likelihood
    )
    fit(model, ArraySource(x), Variational(EvidenceBound("variational"), 2e-2), passes=25)
    assert float(likelihood.scale[0].detach()) == pytest.approx(0.1, rel=0.3)
    assert bool((likelihood.scale.diff() > 0).all())


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 3)])
def test_convolutional_networks_train_and_are_kept(tmp_path, shape):
    torch.manual_seed(0)
    q = PosteriorFamily(3)
    model = VariationalAutoencoder(
        ConvEncoder(q.n_outputs, shape, 4), ConvDecoder(3, shape, 4, squash=False), q, shape,
        DiscretisedLogisticLikelihood(0.2),
    )  # fmt: skip
    x = (torch.rand(24, math.prod(shape), generator=torch.Generator().manual_seed(0)) * 255).byte()
    source = ArraySource((x.float() + 0.5) / 256)
    done = fit(model, source, Variational(batch_size=8), passes=3)
    assert done.history[-1]["objective"] > done.history[0]["objective"]
    save_model(tmp_path / "m.mogul", model)
    again, _ = load_model(tmp_path / "m.mogul")
    y = source.take(torch.arange(2))
    assert torch.equal(again.posterior(y).means, model.posterior(y).means)
    found = importance_log_likelihood(model, ArraySource(y), (3,))
    expected = -found.mean(3) / (math.prod(shape) * math.log(2))
    assert found.bits_per_dim(3) == pytest.approx(expected)
    assert found.perplexity(3) == pytest.approx(2**expected)


def test_clusters_are_told_by_labels():
    assignments = torch.tensor([0, 0, 1, 1, 2, 2])
    labels = torch.tensor([5, 5, 3, 3, 3, 3])
    assert cluster_accuracy(assignments, labels) == pytest.approx(4 / 6)
    assert purity(assignments, labels) == pytest.approx(1.0)
    assert normalised_mutual_information(labels, labels) == pytest.approx(1.0)
    model, source = autoencoder("mixture"), ArraySource(rows())
    fit(model, source, Variational(learning_rate=1e-2, batch_size=50), passes=40)
    found = summarise_latents(model, source)
    assert 1 <= found.active_units <= 2
    assert 1 <= found.used_components <= 4
    assert 0 <= found.assignment_entropy <= found.usage_entropy + 1e-6 <= math.log(4) + 1e-5
    assert purity(found.assignments, torch.arange(200) % 4) > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EvidenceBound("exact"), "Unknown divergence 'exact'"),
        (lambda: EvidenceBound(n_samples=0), "at least one sample"),
        (lambda: ImportanceBound(0), "at least one"),
        (lambda: Variational(learning_rate=0.0), "must be positive"),
        (lambda: PosteriorFamily(0), "at least 1"),
        (lambda: VampPrior(0, (3,)), "at least 1"),
        (lambda: DiscretisedLogisticLikelihood(levels=1), "two levels"),
        (lambda: PosteriorFamily(2)(torch.zeros(3, 5)), "n_outputs"),
        (lambda: autoencoder().posterior(torch.full((1, 12), math.nan)), "gaps"),
        (lambda: autoencoder("vamp-em"), "no mixture"),
        (lambda: autoencoder().posterior(torch.zeros(2, 9)), "12 features"),
        (lambda: importance_log_likelihood(autoencoder(), rows()), "source of batches"),
        (
            lambda: importance_log_likelihood(GaussianMixture(1, 12), ArraySource(rows())),
            "no posteriors",
        ),
        (
            lambda: importance_log_likelihood(autoencoder(), ArraySource(rows()), 2).mean(3),
            "not asked for",
        ),
        (
            lambda: VariationalAutoencoder(
                MLPEncoder(6, (12,)), MLPDecoder(2, (12,)), PosteriorFamily(2), (12,)
            ),
            "n_outputs=6, not 4",
        ),
        (
            lambda: VariationalAutoencoder(
                MLPEncoder(4, (12,)),
                MLPDecoder(2, (12,)),
                PosteriorFamily(2),
                (12,),
                prior=VampPrior(2, (9,)),
            ),
            "9 features, not 12",
        ),
        (
            lambda: fit(autoencoder(), ArraySource(1.5 * rows()), Variational(binarise=True)),
            "probabilities",
        ),
        (lambda: cluster_accuracy(torch.zeros(2), torch.zeros(3)), "one of each"),
        (lambda: importance_log_likelihood(autoencoder(), ArraySource(rows()), ()), "at least one"),
    ],
)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(InputError, match=message):
        make()
