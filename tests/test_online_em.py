"""Online EM: one step is EM's, statistics mix across parameters, and streams are learned from."""

import copy

import numpy as np
import pytest
import torch

from families import random_mixture
from mogul import EM, GaussianMixture, InputError, OnlineEM, fit, initialise
from mogul.algorithms import OnlineState, mean_log_likelihood
from mogul.algorithms.watch import Watch
from mogul.data import ArraySource
from mogul.distributions import Prior, families
from mogul.models import BayesianGaussianMixture
from mogul.models.gaussian_mixture import SHARINGS
from mogul.protocols import Batch

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]


def _rows(n=400, gaps=False, seed=0):
    x = random_mixture("full", 3, 5, 3, seed).sample((n,), seed=seed)
    if gaps:
        hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.2
        x[hidden & ~hidden.all(-1, keepdim=True)] = torch.nan
    return x


def _model(name, sharing, x, dtype=torch.float64, prior=None):
    rank = 2 if families()[name].low_rank else None
    model = GaussianMixture(
        3, x.shape[1], covariance=name, rank=rank, sharing=sharing, prior=prior, dtype=dtype
    )
    initialise(model, ArraySource(x))
    return model


def _whole(x, weight=None):
    return Batch(x, weight, torch.arange(len(x)))


def _same(one, other, tolerance=1e-8):
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            tensor, other.state_dict()[name], rtol=tolerance, atol=tolerance, msg=name
        )


class Stream:
    """Rows that a generator yields once."""

    repeatable = False
    feature_shape = (5,)
    n_features = 5

    def __init__(self, parts):
        self._parts = iter(parts)

    def __len__(self):
        raise AssertionError("a stream has no length")

    def batches(self, size=8192, dtype=torch.float32, device="cpu"):
        for part in self._parts:
            yield Batch(part.to(device, dtype), None, torch.arange(len(part)))

    def parts(self, size=8192, dtype=torch.float32, device="cpu"):
        return (lambda batch=batch: batch for batch in self.batches(size, dtype, device))

    def take(self, index, dtype=torch.float32, device="cpu"):
        raise AssertionError("rows of a stream cannot be asked for again")


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
@pytest.mark.parametrize("gaps", [False, True])
def test_a_step_over_all_rows_is_one_of_em(name, sharing, gaps):
    x = _rows(gaps=gaps)
    batch = _model(name, sharing, x)
    online, source = copy.deepcopy(batch), ArraySource(x, weight=torch.arange(400.0))
    for _ in range(3):
        expected = fit(batch, source, EM(), passes=1).history[0]
        made = fit(online, source, OnlineEM(len(x), delay=1.0), passes=1).history[0]
        assert made["log_likelihood"] == pytest.approx(expected["log_likelihood"], abs=1e-10)
        _same(batch, online)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
@pytest.mark.parametrize("gaps", [False, True])
def test_statistics_restated_give_back_the_parameters(name, sharing, gaps):
    x = _rows(gaps=gaps)
    model = _model(name, sharing, x)
    kernel = model.expectation(gaps)
    kernel.expect(x)
    moments = model.complete(kernel.moments)
    _, change = model.follow(moments, len(x))
    before = copy.deepcopy(model)
    moments = moments.restate(change)
    for _ in range(2):
        _, change = model.follow(moments, len(x))
        moments = moments.restate(change)
        _same(model, before, 1e-9)
    assert float(change.centre.abs().max()) < 1e-10


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_statistics_of_two_halves_are_those_of_the_whole(name, sharing):
    x = _rows()
    model = _model(name, sharing, x)

    def statistics(rows):
        kernel = model.expectation(gaps=False)
        kernel.expect(rows)
        return model.complete(kernel.moments)

    mixed = statistics(x[:200]).mix(statistics(x[200:]), 0.5).scale(2.0)
    whole = statistics(x)
    for field in vars(whole):
        if getattr(whole, field) is not None:
            torch.testing.assert_close(
                getattr(mixed, field), getattr(whole, field), rtol=1e-9, atol=1e-9, msg=field
            )


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_complete_rows_agree_with_rows_that_could_have_gaps(name, sharing):
    x = _rows()
    model = _model(name, sharing, x)
    ends = []
    for gaps in (False, True):
        own = copy.deepcopy(model)
        kernel = own.expectation(gaps)
        kernel.expect(x)
        # Half of the statistics from before the data came, of another form.
        own.follow(own.own_statistics().scale(400).mix(own.complete(kernel.moments), 0.5), 400)
        ends.append(own)
    _same(*ends)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_a_model_is_the_maximiser_of_what_it_expects(name, sharing):
    model = _model(name, sharing, _rows())
    before = copy.deepcopy(model)
    model.follow(model.own_statistics(), 1.0)
    _same(model, before)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_a_shift_of_the_data_shifts_the_model(name, sharing):
    x = _rows()
    models = []
    for shift in (0.0, 1e4):
        model = _model(name, sharing, x + shift)
        models.append(fit(model, ArraySource(x + shift), OnlineEM(50), passes=3).model)
    near, far = (model.requires_grad_(False) for model in models)
    torch.testing.assert_close(near().means + 1e4, far().means, rtol=0, atol=1e-5)
    torch.testing.assert_close(near().log_prob(x), far().log_prob(x + 1e4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_comes_close_to_em(name, sharing, dtype):
    x = _rows(6000)
    batch = _model(name, sharing, x, dtype)
    online = copy.deepcopy(batch)
    fit(batch, ArraySource(x), EM(), passes=60)
    history = fit(online, ArraySource(x), OnlineEM(100), passes=15).history
    assert not any("restarted" in event for row in history for event in row["events"])
    reached, best = (mean_log_likelihood(m(), ArraySource(x)) for m in (online, batch))
    assert reached > best - 0.02


def test_gaps_are_learned_from():
    x = _rows(3000, gaps=True)
    for name in families():
        batch = _model(name, "own", x)
        online = copy.deepcopy(batch)
        fit(batch, ArraySource(x), EM(), passes=30)
        fit(online, ArraySource(x), OnlineEM(100), passes=8)
        reached, best = (mean_log_likelihood(m(), ArraySource(x)) for m in (online, batch))
        assert reached > best - 0.03


def test_weights_count_as_repeated_rows():
    x = _rows(200)
    weight = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(0)).double()
    repeated = x.repeat_interleave(weight.long(), 0)
    for name, sharing in PAIRS:
        model = _model(name, sharing, x)
        twin, state, other = copy.deepcopy(model), OnlineState(), OnlineState()
        algorithm = OnlineEM()
        for rows in torch.arange(200).split(50):
            own = weight[rows]
            algorithm.learn(model, _whole(x[rows], own), state)
            many = x[rows].repeat_interleave(own.long(), 0)
            algorithm.learn(twin, _whole(many), other)
        assert state.mass == other.mass == len(repeated)
        _same(model, twin)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_prior_holds_as_in_em(gaps):
    x = _rows(gaps=gaps)
    prior = Prior(covariance_strength=3.0, mean_strength=0.5, concentration=2.0)
    for name, sharing in PAIRS:
        batch = _model(name, sharing, x, prior=prior)
        online, source = copy.deepcopy(batch), ArraySource(x, weight=2 * torch.ones(len(x)))
        fit(batch, source, EM(), passes=1)
        fit(online, source, OnlineEM(len(x), delay=1.0, average=False), passes=1)
        _same(batch, online)


def test_what_is_frozen_stays():
    x = _rows()
    for name, sharing in PAIRS:
        model = _model(name, sharing, x)
        model.freeze([1])
        before = copy.deepcopy(model)
        fit(model, ArraySource(x), OnlineEM(50), passes=2)
        torch.testing.assert_close(model.centres[1], before.centres[1], rtol=0, atol=0)
        c = 1 if sharing == "own" else 0
        for key, raw in model.raw.items():
            torch.testing.assert_close(raw[c], before.raw[key][c], rtol=0, atol=0)
        assert not torch.equal(model.centres[0], before.centres[0])


def test_a_component_without_data_is_restarted():
    x = _rows(2000)
    for name, sharing in PAIRS:
        model = _model(name, sharing, x)
        model.centres.data[1] = 1e3
        reached = fit(model, ArraySource(x), OnlineEM(100), passes=4)
        assert any("restarted" in event for event in reached.history[0]["events"])
        assert float(model().weights.detach().min()) > 0.002
        assert reached.history[-1]["log_likelihood"] > reached.history[0]["log_likelihood"]


@pytest.mark.parametrize("gaps", [False, True])
def test_a_state_from_a_file_goes_on_to_the_same_bits(gaps):
    x = _rows(500, gaps=gaps).float()
    for name, sharing in PAIRS:
        source, algorithm = ArraySource(x), OnlineEM(50)
        model = _model(name, sharing, x, torch.float32)
        state = algorithm.init(model, source, 2)
        state, _ = algorithm.step(model, source, state, Watch())
        held = {key: tensor.clone() for key, tensor in state.flat().items()}
        twin = copy.deepcopy(model)
        for own, its in ((model, state), (twin, OnlineState.restored(held))):
            its, _ = OnlineEM(50).step(own, source, its, Watch())
            OnlineEM(50).finish(own, its)
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, twin.state_dict()[key]), (name, sharing, key)


def test_a_stream_is_read_once_in_its_order():
    x = _rows(3000)
    model = _model("ppca", "own", x[:300])
    twin = copy.deepcopy(model)
    parts = x.split(100)
    reached = fit(model, Stream(parts), OnlineEM(), passes=1)
    state = OnlineState()
    told = [OnlineEM().learn(twin, _whole(part), state) for part in parts]
    OnlineEM().finish(twin, state)
    _same(model, twin, 0.0)
    mean = sum(lesson.total for lesson in told) / 3000
    assert reached.history[0]["log_likelihood"] == pytest.approx(mean)


def test_gaps_may_come_late_in_a_stream():
    x = _rows(600)
    late = x.clone()
    late[500:, 2] = torch.nan
    for name, sharing in PAIRS:
        model = _model(name, sharing, x)
        fit(model, Stream(late.split(100)), OnlineEM(), passes=1)
        assert np.isfinite(mean_log_likelihood(model(), ArraySource(x)))


def test_the_order_of_rows_is_random_and_every_row_is_seen():
    x = torch.arange(2500.0, dtype=torch.float64).unsqueeze(-1).repeat(1, 5) + _rows(2500)
    model = _model("diagonal", "own", x)
    firsts = []
    for seed in (0, 0, 1):
        counts = []
        own = copy.deepcopy(model)
        found = fit(own, ArraySource(x), OnlineEM(100, seed=seed), passes=1, seen=counts.append)
        assert sum(counts) == 2500
        firsts.append(found.history[0]["log_likelihood"])
    assert firsts[0] == firsts[1] != firsts[2]


def test_faults_are_told():
    x = _rows()
    model = _model("full", "own", x)
    for bad in ({"batch_size": 0}, {"power": 0.5}, {"power": 1.1}, {"delay": 0.5}):
        with pytest.raises(InputError, match=r"batch size|power"):
            OnlineEM(**bad)
    with pytest.raises(InputError, match="same"):
        fit(GaussianMixture(3, 5), ArraySource(x), OnlineEM())
    with pytest.raises(InputError, match="components"):
        fit(model, ArraySource(x[:2]), OnlineEM())
    empty = x.clone()
    empty[:, 3] = torch.nan
    with pytest.raises(InputError, match="Column 3 is NaN"):
        fit(model, ArraySource(empty), OnlineEM())
    bayesian = BayesianGaussianMixture(3, 5)
    with pytest.raises(InputError, match="complete-data"):
        fit(bayesian, ArraySource(x), OnlineEM())


def test_late_steps_weigh_most_in_the_average():
    # One Gaussian: its mean after each step is that of the statistics, and these weigh alike, so
    # that the end is their mean over steps, by the weights t (t + 1) (t + 2) of Shamir & Zhang.
    x = _rows(90)
    model = GaussianMixture(1, 5, "diagonal", dtype=torch.float64)
    initialise(model, ArraySource(x))
    algorithm, state, means = OnlineEM(), OnlineState(), []
    for part in x.split(15):
        algorithm.learn(model, _whole(part), state)
        means.append(model().mean.detach())
    algorithm.finish(model, state)
    t = torch.arange(1.0, 7, dtype=torch.float64)
    weight = t * (t + 1) * (t + 2)
    expected = (weight / weight.sum()) @ torch.stack(means)
    torch.testing.assert_close(model().mean.detach(), expected)
