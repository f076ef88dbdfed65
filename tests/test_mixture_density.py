"""Mixture density networks: densities in the user's units, fits that end, finite numbers."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from families import random_mixture
from mogul import GaussianMixture, InputError, Mixture, fit, load_model, open_source, save_model
from mogul.algorithms import StopReason, Supervised
from mogul.data import ArraySource
from mogul.distributions import Isotropic, families
from mogul.evaluation import crps, energy_score, evaluate_conditional
from mogul.models import MLP, MixtureDensityNetwork, MixtureHead

FAMILIES = list(families())


def network(n_inputs=2, n_features=1, n_components=3, seed=0, **arguments):
    torch.manual_seed(seed)
    backbone = MLP(n_inputs, (16,))
    arguments = {"dtype": torch.float64} | arguments
    return MixtureDensityNetwork(backbone, n_components, n_features, **arguments)


def folded(n, seed=0):
    """Rows (x, y) of which x folds back on y."""
    random = np.random.default_rng(seed)
    y = random.uniform(0, 1, n)
    return np.stack([y + 0.3 * np.sin(2 * np.pi * y) + 0.05 * random.normal(size=n), y], 1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("sharing", ["own", "shared"])
def test_started_from_a_mixture_it_is_that_mixture_in_the_units_of_the_targets(name, sharing):
    d, k = 4, 3
    model = network(2, d, k, covariance=name, rank=2 if families()[name].low_rank else None,
                    sharing=sharing)  # fmt: skip
    rows = torch.randn(50, 2 + d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = rows * torch.tensor([1.0, 5.0, 2.0, 2.0, 2.0, 2.0]) + 7
    model.set_units(rows)
    mixture = random_mixture(name, k, d, k if sharing == "own" else 1)
    model.start(mixture)
    with torch.no_grad():
        model.head.linear.weight.zero_()
    x, y = model.split(rows)
    expected = mixture.rescaled(model.head.shift, model.head.scale)
    torch.testing.assert_close(model(x).log_prob(y), expected.log_prob(y), rtol=1e-5, atol=1e-5)
    jacobian = model.head.scale.log().sum()
    inside = mixture.log_prob(model.head.standardised(y)) - jacobian
    torch.testing.assert_close(model(x).log_prob(y), inside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("sharing", ["own", "shared"])
def test_every_family_learns_two_correlated_targets(name, sharing):
    rank = {"rank": 1} if families()[name].low_rank else {}
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 2))
    e = random.normal(size=(400, 2)) @ np.array([[0.3, 0.25], [0.0, 0.1]])
    source = open_source(np.hstack([x, np.stack([x[:, 0], x[:, 1]], 1) + e]))
    model = network(2, 2, 2, covariance=name, sharing=sharing, **rank)
    before = Supervised().score(model, source)
    fitted = fit(model, source, Supervised(1e-2, patience=5), passes=40)
    after = Supervised().score(model, source)
    assert after > before + 1
    assert after > -1.7  # what a linear model with independent noise reaches is −0.6, no model −2.8
    assert fitted.history[-1]["log_likelihood"] == pytest.approx(after, abs=1.0)


def test_one_dimensional_densities_integrate_to_one_and_agree_with_their_moments():
    model = network()
    fit(model, open_source(np.random.default_rng(0).normal(size=(100, 3)) * 50), Supervised(),
        passes=5)  # fmt: skip
    with torch.no_grad():
        mixture = model(torch.tensor([[10.0, -20.0]]))

    def density(y):
        return float(mixture.log_prob(torch.tensor([[y]], dtype=torch.float64)).exp())

    total, _ = integrate.quad(density, -1000, 1000, limit=400, points=[-100, 0, 100])
    mean, _ = integrate.quad(lambda y: y * density(y), -1000, 1000, limit=400, points=[0])
    assert total == pytest.approx(1, abs=1e-6)
    assert float(mixture.mean) == pytest.approx(mean, abs=1e-4)


def test_integer_weights_are_repeated_rows():
    rows = folded(60)
    weight = np.random.default_rng(1).integers(0, 3, 60)
    found = []
    start = random_mixture("full", 3, 1, 3)
    for source in (
        ArraySource(rows, weight.astype(float)), ArraySource(np.repeat(rows, weight, 0))
    ):  # fmt: skip
        model = network(1)
        model.set_units(torch.as_tensor(rows))
        model.start(start)
        # One batch of all rows, without noise or held-out rows.
        fit(model, source, Supervised(batch_size=1000, held_out=0.0, target_noise=0.0), passes=20)
        found.append(model(torch.as_tensor(rows[:, :1])).log_prob(torch.as_tensor(rows[:, 1:])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_heavy_rows_count_by_their_weight_in_every_batch():
    random = np.random.default_rng(0)
    y = np.where(np.arange(400) == 0, 3.0, 0.0) + 0.1 * random.normal(size=400)
    weight = np.where(np.arange(400) == 0, 399.0, 1.0)
    model = network(1, 1, 2)
    source = ArraySource(np.stack([np.zeros(400), y], 1), weight)
    fit(model, source, Supervised(5e-3, 32, held_out=0.0, target_noise=0.0), passes=100)
    with torch.no_grad():
        below = model(torch.zeros(1, 1)).cdf(torch.tensor([[1.5]]))
    assert float(below) == pytest.approx(0.5, abs=0.1)


def test_rows_without_a_target_say_nothing():
    rows = folded(100)
    rows[25:, 1] = np.nan
    model = network(1)
    fitted = fit(model, open_source(rows), Supervised(1e-2, held_out=0.2), passes=60)
    assert all(row["held_out"] != 0 for row in fitted.history)
    found = evaluate_conditional(model, open_source(rows), 1, dtype=torch.float64)
    assert found.n == 25
    assert found.log_likelihood == pytest.approx(
        Supervised().score(model, open_source(rows[:25])), abs=1e-9
    )


def test_a_fit_that_fails_leaves_a_network_that_can_be_fitted():
    model, source = network(1), open_source(folded(100))
    with pytest.raises(InputError, match="smaller learning_rate"):
        fit(model, source, Supervised(1e8, 8), passes=100)
    assert fit(model, source, Supervised(), passes=3).history[-1]["log_likelihood"] > -2


def test_columns_that_float32_cannot_tell_apart_are_refused():
    rows = folded(100) * [1, 100] + [0, 1.7e9]
    with pytest.raises(InputError, match="cannot tell apart"):
        fit(network(1, dtype=torch.float32), open_source(rows), Supervised(), passes=1)
    model = network(1)
    fit(model, open_source(rows), Supervised(1e-2, 16), passes=40)
    found = evaluate_conditional(model, open_source(rows), 1, dtype=torch.float64)
    assert found.rmse[0] < 25


@pytest.mark.parametrize("value", [0.0, 3.0, 3e6, -1e-6])
def test_a_constant_target_is_predicted(value):
    rows = np.stack([np.linspace(0, 1, 60), np.full(60, value)], 1)
    model = network(1)
    fit(model, open_source(rows), Supervised(), passes=10)
    with torch.no_grad():
        mixture, unit = model(torch.as_tensor(rows[:, :1])), abs(value) or 1.0
    assert float((mixture.mean - value).abs().max()) < 0.01 * unit
    assert float(mixture.variance.sqrt().max()) < 0.01 * unit


def test_a_constant_input_says_nothing_later():
    rows = np.hstack([folded(80)[:, :1], np.full((80, 1), 7.0), folded(80)[:, 1:]])
    model = network(2)
    fit(model, open_source(rows), Supervised(), passes=3)
    means = model(torch.tensor([[0.5, 7.0], [0.5, 1e4]])).mean
    torch.testing.assert_close(means[0], means[1])


def test_discrete_targets_start_well_and_are_told():
    rows = folded(200)
    rows[:, 1] = rows[:, 1] > 0.5
    history = fit(network(1), open_source(rows), Supervised(), passes=2).history
    assert history[0]["log_likelihood"] > -5
    assert "only 2 different values" in " ".join(history[0]["events"])


def test_an_interrupted_fit_keeps_the_best_parameters():
    model, source = network(1), open_source(folded(100))
    algorithm = Supervised(5e-2, 8)
    scores = []

    def passed(row):
        scores.append(row["best_held_out"])

    def seen(n):
        if len(scores) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, source, algorithm, passes=50, callback=passed, seen=seen)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    held_out = open_source(source.take(order[:10], torch.float64))
    assert algorithm.score(model, held_out) == pytest.approx(scores[-1], abs=1e-9)


def test_energy_scores_do_not_depend_on_the_origin():
    y = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for far in (0.0, 1e5):
        origin = torch.full((2,), far)
        mixture = Mixture(torch.zeros(20, 1), torch.zeros(20, 1, 2),
                          Isotropic.of(torch.ones(20, 1), 2), origin)  # fmt: skip
        found.append(energy_score(mixture, origin + y, seed=1))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-2)


def test_missing_targets_are_marginalised_while_training():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 1))
    y = np.hstack([x, -x]) + 0.1 * random.normal(size=(300, 2))
    holed = np.where(random.uniform(size=y.shape) < 0.3, np.nan, y)
    model = network(1, 2, 1)
    fit(model, open_source(np.hstack([x, holed])), Supervised(1e-2), passes=150)
    found = evaluate_conditional(model, open_source(np.hstack([x, y])), 2, dtype=torch.float64)
    assert max(found.rmse) < 0.16
    assert found.log_likelihood > 1.2  # the truth has 1.77
    with_gaps = evaluate_conditional(model, open_source(np.hstack([x, holed])), 2)
    assert bool((with_gaps.pit.isnan() == torch.as_tensor(np.isnan(holed))).all())
    assert all(math.isfinite(v) for v in (*with_gaps.rmse, *with_gaps.crps))


@pytest.mark.parametrize(
    "rows",
    [
        folded(200) * [1, 1e6], folded(200) * [1, 1e-6], folded(200) * [1e6, 1e-6] + [1e7, 0],
        np.stack([np.linspace(0, 1, 50), np.full(50, 3.0)], 1),
        np.stack([np.full(50, 2.0), np.linspace(0, 1, 50)], 1),
        np.repeat(folded(8), 10, 0),
        folded(30),
    ],
    ids=["1e6", "1e-6", "offset", "constant target", "constant input", "duplicates", "few rows"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_ever_nan(rows, dtype):
    k = 20 if len(rows) == 30 else 5
    model = network(1, 1, k, dtype=dtype)
    history = fit(model, open_source(rows), Supervised(1e-2, 16), passes=60).history
    assert all(math.isfinite(row["log_likelihood"]) for row in history)
    x, y = model.split(torch.as_tensor(rows).to(dtype))
    mixture = model(x)
    for value in (
        mixture.log_prob(y), mixture.mean, mixture.variance, mixture.icdf(0.01), crps(mixture, y),
        mixture.sample((3,), seed=0), mixture.responsibilities(y),
    ):  # fmt: skip
        assert bool(value.isfinite().all())


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_targets_changes_nothing_but_the_unit(scale):
    rows, found = folded(150), []
    for unit in (1.0, scale):
        model = network(1)
        fit(model, open_source(rows * [1, unit]), Supervised(seed=3), passes=30)
        mixture = model(torch.as_tensor(rows[:, :1]))
        found.append((mixture.mean / unit, mixture.log_prob(torch.as_tensor(rows[:, 1:]) * unit)
                      + math.log(unit)))  # fmt: skip
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_the_fold_is_learned():
    model = network(1, 1, 5, dtype=torch.float32)
    fit(model, open_source(folded(2000)), Supervised(5e-3, 128), passes=100)
    # The true conditional entropy is −1.24, that of a uniform target 0.
    assert Supervised().score(model, open_source(folded(2000, 1))) > 1.1
    with torch.no_grad():
        at = model(torch.tensor([[0.5]]))
    density = at.log_prob(torch.tensor([0.21, 0.5, 0.79]).reshape(-1, 1, 1)).exp()
    between = at.log_prob(torch.tensor([0.35, 0.65]).reshape(-1, 1, 1)).exp()
    assert float(density.min()) > 2 * float(between.max())


def test_the_best_parameters_are_kept():
    source = open_source(np.random.default_rng(0).normal(size=(80, 3)))
    model = network(2, 1, 5)
    algorithm = Supervised(2e-2, 8, held_out=0.2, patience=3, target_noise=0.0)
    fitted = fit(model, source, algorithm, passes=500)
    assert fitted.reason is StopReason.HELD_OUT
    scores = [row["held_out"] for row in fitted.history]
    assert scores[-1] < max(scores)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    held_out = open_source(source.take(order[:16], torch.float64))
    best = fitted.history[-1]["best_held_out"]
    assert best >= max(scores)
    assert algorithm.score(model, held_out) == pytest.approx(best, abs=1e-9)
    assert any("learning rate fell" in e for row in fitted.history for e in row["events"])


def test_models_are_written_and_read(tmp_path):
    model = network(2, 2, 3, covariance="ppca", rank=1, sharing="shared", dtype=torch.float32)
    rows = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    fit(model, open_source(rows), Supervised(), passes=2)
    save_model(tmp_path / "m.mogul", model)
    again, _ = load_model(tmp_path / "m.mogul")
    x, y = model.split(rows)
    torch.testing.assert_close(again(x).log_prob(y), model(x).log_prob(y), rtol=0, atol=0)
    own = MixtureDensityNetwork(torch.nn.Linear(2, 4), 2, 1)
    with pytest.raises(InputError, match="state_dict"):
        save_model(tmp_path / "n.mogul", own)


def test_a_head_stacks_on_any_network():
    torch.manual_seed(0)
    images = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), MixtureHead(4 * 36, 3, 2)
    )
    mixture = images(torch.randn(5, 1, 8, 8))
    assert mixture.batch_shape == (5,)
    mixture.log_prob(torch.zeros(5, 2)).mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in images.parameters())


def test_crps_has_its_known_value():
    scales = torch.tensor([0.4, 2.1, 0.7], dtype=torch.float64)
    mixture = Mixture(
        torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64).log(),
        torch.tensor([[0.1], [-0.3], [1.0]], dtype=torch.float64),
        Isotropic.of(scales.square(), 1),
    )
    # Rounded in print to 0.468067; the digits here are those of numerical integration.
    found = float(crps(mixture, torch.zeros(1).double()))
    assert found == pytest.approx(0.4680686673, abs=1e-9)
    assert found == pytest.approx(0.468067, abs=2e-6)


def test_crps_is_the_integral_of_squared_distances_of_distribution_functions():
    mixture = random_mixture("full", 3, 2, 3)
    y = mixture.sample((4,), seed=0)
    grid = torch.linspace(-30, 30, 60_001).double()
    found = crps(mixture.expand((4,)), y)
    for i in range(4):
        for d in range(2):
            rows = torch.zeros(len(grid), 2).double()
            rows[:, d] = grid
            F = mixture.cdf(rows)[:, d]
            step = (grid >= y[i, d]).double()
            integral = float(torch.trapezoid((F - step).square(), grid))
            assert float(found[i, d]) == pytest.approx(integral, abs=2e-3)


def test_energy_score_of_one_target_is_the_crps():
    mixture = random_mixture("full", 3, 1, 3).expand((6,))
    y = torch.linspace(-4, 4, 6).double().unsqueeze(-1)
    estimates = torch.stack([energy_score(mixture, y, n_samples=400, seed=s) for s in range(40)])
    error = estimates.std(0) / math.sqrt(40)
    assert bool(((estimates.mean(0) - crps(mixture, y)[:, 0]).abs() < 4 * error).all())
    with pytest.raises(InputError, match="two or more"):
        energy_score(mixture, y, n_samples=1)


def test_energy_scores_of_few_draws_are_not_biased():
    # Of two draws, a mean that counts a draw's distance to itself leaves half of the spread out.
    mixture = random_mixture("full", 2, 1, 2)
    y = torch.zeros(20_000, 1, dtype=torch.float64)
    found = energy_score(mixture.expand((20_000,)), y, n_samples=2, seed=0).mean()
    assert float(found) == pytest.approx(float(crps(mixture, y[:1])), abs=0.03)


def test_a_model_is_calibrated_on_its_own_samples():
    model = network(1, 2, 3)
    fit(model, open_source(np.random.default_rng(0).normal(size=(200, 3))), Supervised(), passes=5)
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).sample(seed=1)
    found = evaluate_conditional(
        model, open_source(torch.cat([x, y], 1)), 2, levels=(0.5, 0.9), dtype=torch.float64
    )
    for d in range(2):
        assert stats.kstest(found.pit[:, d].numpy(), "uniform").pvalue > 1e-3
        assert found.coverage[0.9][d] == pytest.approx(0.9, abs=0.02)
        assert found.coverage[0.5][d] == pytest.approx(0.5, abs=0.035)
        assert found.rmse[d] == pytest.approx(
            float(model(x).variance[:, d].mean().sqrt().detach()), rel=0.05
        )
    entropy = -model(x).log_prob(model(x).sample(seed=2)).mean().detach()
    assert found.log_likelihood == pytest.approx(-float(entropy), abs=4 * found.error)
    assert found.energy_score is not None
    assert 0 < found.energy_score < 2


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: network()(torch.zeros(3, 5)), "Inputs of 2 features"),
        (lambda: network()(torch.tensor([[1.0, math.nan]])), "Input 1 of row 0 is NaN"),
        (lambda: network(sharing="constant"), "Unknown sharing"),
        (lambda: network(variance_floor=2.0), "variance floor"),
        (lambda: MixtureDensityNetwork(torch.nn.ReLU(), 2, 1), "does not tell its n_inputs"),
        (lambda: MLP(2, ()), "layers is 0"),
        (lambda: Supervised(held_out=1.0), "held_out = 1.0"),
        (
            lambda: fit(GaussianMixture(1, 2), open_source(folded(9)), Supervised()),
            "predicts no targets",
        ),
        (
            lambda: evaluate_conditional(
                network(), open_source(np.full((9, 3), [0, 0, np.nan])), 1
            ),
            "have no value",
        ),
        (lambda: Supervised(target_noise=-1), "target_noise = -1"),
        (lambda: fit(network(), open_source(np.zeros((20, 4))), Supervised()), "2 inputs and then"),
        (
            lambda: fit(network(), open_source(np.full((20, 3), [0, 0, np.nan])), Supervised()),
            "No row has a target",
        ),
        (
            lambda: evaluate_conditional(network(), open_source(np.zeros((9, 3))), 1, levels=[1.2]),
            "Levels",
        ),
    ],
)
def test_errors_say_what_to_do(act, text):
    with pytest.raises(InputError, match=text):
        act()


def test_dropout_acts_in_steps_and_not_in_scores():
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, h):
            seen.append(self.training)
            return h

    backbone = torch.nn.Sequential(torch.nn.Linear(1, 4), Watched(), torch.nn.Linear(4, 4))
    model = MixtureDensityNetwork(backbone, 2, 1)
    source = open_source(np.random.default_rng(0).normal(size=(100, 2)))
    fit(model, source, Supervised(batch_size=30), passes=1)
    assert True in seen
    assert seen.count(True) <= 4  # a step each; what is held out is scored without
    assert False in seen
    assert not model.training
