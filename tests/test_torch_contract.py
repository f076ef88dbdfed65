"""Mixture keeps the contract of torch.distributions."""

import copy
import math
import pickle

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Categorical,
    ExpTransform,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    TransformedDistribution,
    constraints,
    kl_divergence,
)

from families import random_mixture
from mogul import EM, GaussianMixture, Gradient, InputError, Mixture, OnlineEM, fit, initialise
from mogul.algorithms import TruncatedEM
from mogul.data import ArraySource
from mogul.distributions import Isotropic, families, family
from mogul.distributions.checks import has_gaps

FAMILIES = list(families())
SHAPES = [(), (1,), (3,), (2, 3)]


def batched(name, batch, seed=0):
    """A mixture of any batch shape, whose covariances differ along its last dimension."""
    own = random_mixture(name, 3, 4, 3, seed)
    if not batch:
        return own
    values = torch.randn(batch[-1], 2, generator=torch.Generator().manual_seed(seed)).double()
    conditional = random_mixture(name, 3, 6, 3, seed).condition([1, 4], values)
    return conditional.expand(batch)


def twin(mixture):
    """The same density by torch's own classes."""
    covariance = mixture.covariance.tril()
    k, d = mixture.n_components, mixture.n_features
    parts = MultivariateNormal(
        mixture.means.expand(*mixture.batch_shape, k, d),
        scale_tril=covariance.expand(*mixture.batch_shape, k, d, d),
    )
    weights = Categorical(logits=mixture.logits.expand(*mixture.batch_shape, k))
    return MixtureSameFamily(weights, parts)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch", SHAPES)
def test_shapes_and_values_are_those_of_torchs_mixture(name, batch):
    ours = batched(name, batch)
    theirs = twin(ours)
    assert ours.batch_shape == theirs.batch_shape == torch.Size(batch)
    assert ours.event_shape == theirs.event_shape == torch.Size([4])
    for moment in ("mean", "variance", "stddev"):
        torch.testing.assert_close(getattr(ours, moment), getattr(theirs, moment))
    for shape in (torch.Size(), (5,), [2, 1], torch.Size([1, 2, 3])):
        drawn = ours.sample(shape, seed=1)
        assert drawn.shape == theirs.sample(torch.Size(shape)).shape
        assert ours.rsample(shape, seed=1).shape == drawn.shape
        scores = ours.log_prob(drawn)
        torch.testing.assert_close(scores, theirs.log_prob(drawn))
        assert scores.shape == torch.Size(shape) + torch.Size(batch)
        joint = ours.component_log_prob(drawn)
        assert joint.shape == (*scores.shape, 3)
        torch.testing.assert_close(ours.responsibilities(drawn), joint.softmax(-1))
        assert bool(ours.support.check(drawn).all())


@pytest.mark.parametrize("batch", [(3,), (2, 3)])
def test_values_broadcast_against_the_batch(batch):
    ours = batched("full", batch)
    theirs = twin(ours)
    for shape in [(4,), (3, 4), (1, 4), (7, 1, 1, 4), (7, *batch, 4)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
        torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_drawn_is_a_tensor_of_nothing(name):
    for batch in ((), (3,)):
        mixture = batched(name, batch)
        for draw in (mixture.sample, mixture.rsample):
            drawn = draw((0,), seed=0)
            assert drawn.shape == (0, *batch, 4)
            assert drawn.dtype == mixture.dtype
            assert mixture.log_prob(drawn).shape == (0, *batch)
    of_no_rows = random_mixture(name, 3, 6, 3).condition([1, 4], torch.zeros(0, 2))
    assert of_no_rows.sample((2,)).shape == (2, 0, 4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch", SHAPES)
def test_expanding_repeats_the_mixture(name, batch):
    small = batched(name, batch)
    large = small.expand((5, *batch))
    assert large.batch_shape == (5, *batch)
    assert large.event_shape == small.event_shape
    x = small.sample((5,), seed=2)
    torch.testing.assert_close(large.log_prob(x), small.log_prob(x))
    for moment in ("mean", "variance", "means", "variances", "weights"):
        found, own = getattr(large, moment), getattr(small, moment)
        torch.testing.assert_close(found, own.expand_as(found))
    assert large.sample((2,), seed=0).shape == (2, 5, *batch, 4)
    assert large.rsample((2,), seed=0).shape == (2, 5, *batch, 4)
    assert large.expand((6, 5, *batch)).batch_shape == (6, 5, *batch)
    part = large.condition([0], x[..., :1])
    rest = part.log_prob(x[..., 1:]) + large.marginal([0]).log_prob(x[..., :1])
    torch.testing.assert_close(rest, large.log_prob(x))
    with pytest.raises(RuntimeError):
        large.expand((4, *batch))


def test_expanding_keeps_whether_values_are_checked():
    mixture = random_mixture("full", 3, 4, 3)
    strict = Mixture(mixture.logits, mixture.centres, mixture.covariance, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        strict.expand((2,)).log_prob(torch.full((4,), torch.nan))
    assert bool((mixture.expand((2,)).log_prob(torch.full((4,), torch.nan)) == 0).all())


def test_arguments_are_checked_when_asked_to():
    mixture = random_mixture("diagonal", 3, 4, 3)
    parts = mixture.logits, mixture.centres, mixture.covariance, mixture.origin
    names = ("logits", "centres", "variances", "origin")
    assert set(Mixture.arg_constraints) == set(names)
    good = Mixture(*parts, validate_args=True)
    for name, constraint in Mixture.arg_constraints.items():
        assert bool(constraint.check(getattr(good, name)).all())
    for which, name in enumerate(names):
        spoiled = list(parts)
        if name == "variances":
            spoiled[2] = mixture.covariance.map(lambda t: t * torch.nan)
        else:
            spoiled[which] = spoiled[which] * torch.nan
        with pytest.raises(ValueError, match=f"parameter {name}"):
            Mixture(*spoiled, validate_args=True)


@pytest.mark.parametrize("method", ["log_prob", "component_log_prob", "responsibilities", "cdf"])
def test_values_are_checked_when_asked_to(method):
    loose = batched("full", (3,))
    strict = Mixture(loose.logits, loose.centres, loose.covariance, loose.origin, True)
    x = loose.sample(seed=0)
    torch.testing.assert_close(getattr(strict, method)(x), getattr(loose, method)(x))
    x[1, 2] = torch.nan
    with pytest.raises(ValueError, match="support"):
        getattr(strict, method)(x)
    with pytest.raises(ValueError, match="not broadcastable"):
        getattr(strict, method)(torch.zeros(2, 4))
    with pytest.raises(InputError, match="4 features"):
        getattr(strict, method)(torch.zeros(3, 5))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_values_are_refused(name, value):
    mixture = random_mixture(name, 3, 4, 3)
    x = mixture.sample((3,), seed=0)
    x[1, 2] = value
    gaps = x.clone()
    gaps[0, 0] = torch.nan
    each = mixture.expand((3,))
    calls = [
        mixture.log_prob, mixture.component_log_prob, mixture.responsibilities,
        mixture.reconstruct, mixture.complete, each.log_prob, each.responsibilities,
        lambda rows: mixture.condition([2], rows[:, 2:3]),
    ]  # fmt: skip
    for call in calls:
        for rows in (x, gaps):
            with pytest.raises(InputError, match="infinite"):
                call(rows)
    seen = torch.ones(3, 4, dtype=torch.bool)
    seen[1, 2] = False
    assert mixture.complete(x, seen).mean.isfinite().all()


def test_a_sum_out_of_range_is_no_infinite_value():
    assert not has_gaps(torch.full((3,), 3e38))
    assert has_gaps(torch.tensor([3e38, 3e38, torch.nan]))


def test_parts_that_disagree_are_refused():
    logits, centres, covariance = torch.zeros(2), torch.zeros(2, 3), Isotropic.of(torch.ones(2), 3)
    spoiled = [
        (torch.zeros(3), centres, covariance),
        (torch.tensor(0.0), centres, covariance),
        (logits, torch.zeros(2), covariance),
        (logits, torch.zeros(2, 4), covariance),
        (logits, centres, Isotropic.of(torch.ones(3), 3)),
        (logits, centres, covariance, torch.zeros(2)),
        (logits, centres, covariance, torch.zeros(2, 3)),
        (torch.zeros(4, 2), torch.zeros(5, 2, 3), covariance),
    ]
    for parts in spoiled:
        with pytest.raises(InputError, match="disagree"):
            Mixture(*parts)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_stands_inside_torchs_wrappers(name):
    mixture = batched(name, (3,))
    x = mixture.sample((7,), seed=0)
    joint = Independent(mixture, 1)
    assert joint.batch_shape == ()
    assert joint.event_shape == (3, 4)
    torch.testing.assert_close(joint.log_prob(x), mixture.log_prob(x).sum(-1))
    assert joint.expand((2,)).sample((5,)).shape == (5, 2, 3, 4)
    assert repr(mixture) in repr(joint)

    moved = TransformedDistribution(mixture, [AffineTransform(2.0, -3.0), ExpTransform()])
    assert moved.has_rsample
    y = (2.0 - 3.0 * x).exp()
    expected = mixture.log_prob(x) - 4 * math.log(3.0) - (2.0 - 3.0 * x).sum(-1)
    torch.testing.assert_close(moved.log_prob(y), expected)
    assert moved.expand((2, 3)).rsample((5,)).shape == (5, 2, 3, 4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_the_same_density(name, copied):
    for batch in ((), (3,)):
        mixture = batched(name, batch)
        again = copied(mixture)
        x = mixture.sample((5,), seed=0)
        assert torch.equal(again.log_prob(x), mixture.log_prob(x))
        assert torch.equal(again.sample((5,), seed=0), x)
        assert repr(again) == repr(mixture)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_carry_gradients_as_has_rsample_says(name):
    mixture = random_mixture(name, 2, 3, 2)
    centres = mixture.centres.clone().requires_grad_()
    moving = Mixture(mixture.logits, centres, mixture.covariance)
    assert moving.has_rsample
    drawn = moving.rsample((6,), seed=0)
    assert torch.equal(drawn.detach(), moving.sample((6,), seed=0))
    (gradient,) = torch.autograd.grad(drawn.sum(), centres)
    # A shift of all centres shifts every sample.
    torch.testing.assert_close(gradient.sum(0), torch.full((3,), 6.0, dtype=torch.float64))
    assert not moving.sample((6,), seed=0).requires_grad


@pytest.mark.parametrize("name", FAMILIES)
def test_quantiles_undo_the_distribution_functions_of_features(name):
    p = torch.tensor([1e-6, 0.1, 0.5, 0.9], dtype=torch.float64)
    for batch in ((), (3,), (2, 3)):
        mixture = batched(name, batch)
        found = mixture.icdf(p)
        assert found.shape == (4, *batch, 4)
        expected = p.view(-1, *[1] * (len(batch) + 1)).expand_as(found)
        torch.testing.assert_close(mixture.cdf(found), expected)
        assert mixture.icdf(0.5).shape == (*batch, 4)
    edges = random_mixture(name, 2, 3, 2).cdf(torch.tensor([[-math.inf] * 3, [math.inf] * 3]))
    torch.testing.assert_close(edges, torch.tensor([[0.0] * 3, [1.0] * 3], dtype=torch.float64))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_features", [3, 27])
def test_autocast_costs_no_digits(name, n_features):
    wide = random_mixture(name, 3, n_features, 3)
    mixture = Mixture(*(t.float() for t in (wide.logits, wide.centres)),
                      wide.covariance.map(torch.Tensor.float))  # fmt: skip
    x = mixture.sample((50,), seed=0)
    gaps = x.clone()
    gaps[::2, 0] = torch.nan
    asked = {
        "plain": lambda: mixture.log_prob(x),
        "gradient": lambda: mixture.log_prob(x.clone().requires_grad_()).detach(),
        "gaps": lambda: mixture.log_prob(gaps),
        "responsibilities": lambda: mixture.responsibilities(x.clone().requires_grad_()).detach(),
        "reconstruction": lambda: mixture.reconstruct(x),
        "conditional": lambda: mixture.condition([0], x[:, :1]).mean,
        "filled in": lambda: mixture.complete(gaps).mean,
        "variance": lambda: mixture.complete(gaps).variance,
        "samples": lambda: mixture.sample((5,), seed=1),
        "samples with gradient": lambda: mixture.rsample((5,), seed=1),
        "samples of a conditional": lambda: mixture.complete(gaps).sample(seed=1),
        "noisy": lambda: mixture.with_noise(0.1).variances,
    }
    for what, ask in asked.items():
        expected = ask()
        with torch.autocast("cpu", torch.bfloat16):
            found = ask()
        assert torch.equal(found.nan_to_num(), expected.nan_to_num()), what


@pytest.mark.parametrize("name", FAMILIES)
def test_fits_inside_autocast_are_those_outside(name):
    x = random_mixture(name, 3, 4, 3).sample((200,), seed=0).numpy()

    def reached(algorithm):
        model = GaussianMixture(3, 4, name, 1 if family(name).low_rank else None)
        source = ArraySource(x)
        initialise(model, source)
        return fit(model, source, algorithm, passes=3).history[-1]["objective"]

    for algorithm in (EM(), TruncatedEM(), OnlineEM()):
        expected = reached(algorithm)
        with torch.autocast("cpu", torch.bfloat16):
            assert reached(algorithm) == expected


@pytest.fixture
def doubled():
    """Numbers made without a type are double."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("doubled")
@pytest.mark.parametrize("name", FAMILIES)
def test_single_precision_stays_where_double_is_the_default(name):
    x = random_mixture(name, 3, 4, 3).sample((90,), seed=0).float()
    x[::5, 1] = torch.nan
    source = ArraySource(x.numpy())
    for algorithm in (EM(), OnlineEM(), Gradient()):
        model = GaussianMixture(3, 4, name, 1 if family(name).low_rank else None)
        initialise(model, source)
        assert math.isfinite(fit(model, source, algorithm, passes=2).history[-1]["objective"])
        mixture = model()
        found = [
            mixture.log_prob(x), mixture.marginal([0, 2]).log_prob(x[:, [0, 2]]),
            mixture.condition([0], x[:, :1]).mean, mixture.complete(x).variance,
            mixture.sample((2,)), mixture.rsample((2,)), mixture.icdf(0.5),
            mixture.cdf(x.nan_to_num()),
        ]  # fmt: skip
        assert {t.dtype for t in found} == {torch.float32}


def test_what_there_is_no_closed_form_of_is_not_implemented():
    mixture = random_mixture("full", 2, 3, 2)
    assert not mixture.has_enumerate_support
    assert isinstance(mixture.support, constraints.independent)
    calls = [
        mixture.enumerate_support, mixture.entropy, lambda: mixture.mode,
        lambda: kl_divergence(mixture, mixture), lambda: kl_divergence(mixture, twin(mixture)),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()


def test_it_says_what_it_is():
    assert "family: ppca, components: 2, features: 3" in repr(random_mixture("ppca", 2, 3, 2))
    assert repr(batched("full", (3,))) != repr(batched("full", (4,)))
    with pytest.raises(TypeError):
        random_mixture("full", 2, 3, 2).sample(5)  # as torch's own: a shape, not a number
