"""Truncated EM: bounds, their ascent, what is looked at; EM itself where nothing is left out."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import random_mixture
from mogul import (
    EM,
    Checkpoint,
    GaussianMixture,
    InputError,
    TruncatedEM,
    fit,
    initialise,
    open_source,
)
from mogul.algorithms import StopReason, log_likelihoods, mean_log_likelihood
from mogul.algorithms import sweep as sweeping
from mogul.algorithms.candidates import Witnesses, search
from mogul.algorithms.first_candidates import first_candidates, first_neighbours
from mogul.algorithms.sweep import Variational, read, sweep
from mogul.algorithms.watch import Stopped, Watch
from mogul.compute.backend import make_generator
from mogul.data import ArraySource, write_store
from mogul.distributions import Prior, families
from mogul.models import BayesianGaussianMixture
from mogul.models.gaussian_mixture import SHARINGS
from mogul.protocols import Batch

PAIRS = [(name, sharing) for name in families() for sharing in SHARINGS]
D = 5


def _rows(n=600, seed=0):
    return random_mixture("full", 8, D, 8, seed).sample((n,), seed=seed)


def _model(name, x, k=12, sharing="own", dtype=torch.float64, **more):
    rank = 2 if families()[name].low_rank else None
    model = GaussianMixture(k, D, name, rank, sharing, 1e-3, dtype=dtype, **more)
    initialise(model, ArraySource(x))
    return model


def _everything(k, **more):
    return TruncatedEM(k, k, 0, dense=False, **more)


def _same(one, other, tolerance=1e-8):
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(
            tensor, other.state_dict()[name], rtol=tolerance, atol=tolerance, msg=name
        )


@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_with_all_components_as_candidates_it_is_em(name, sharing):
    x, weight = _rows(), torch.arange(600.0, dtype=torch.float64).remainder(4)
    source = ArraySource(x, weight)
    one = _model(name, x, sharing=sharing)
    other = copy.deepcopy(one)
    expected = fit(one, source, EM(), passes=4, tolerance=0.0)
    found = fit(other, source, _everything(12), passes=4, tolerance=0.0)
    for mine, em in zip(found.history, expected.history, strict=True):
        assert mine["free_energy"] == pytest.approx(em["log_likelihood"], abs=1e-9)
        assert mine["log_likelihood"] == pytest.approx(em["log_likelihood"], abs=1e-9)
        assert mine["objective"] == pytest.approx(em["objective"], abs=1e-9)
    _same(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "sharing"), PAIRS)
def test_it_climbs_below_the_log_likelihood(name, sharing, dtype):
    x = _rows().to(dtype)
    model, source = _model(name, x, 40, sharing, dtype), ArraySource(x)
    fitted = fit(model, source, TruncatedEM(2, 4, 1, dense=False), passes=8, tolerance=0.0)
    before = None
    for row in fitted.history:
        assert row["free_energy"] <= row["log_likelihood"] + 1e-5
        assert 2 * 4 < row["evaluations"] <= 2 * 4 + 1
        if before is not None and not before["events"]:
            assert row["free_energy"] >= before["free_energy"] - 1e-5
        before = row
    assert mean_log_likelihood(model(), source) >= fitted.history[-1]["free_energy"] - 1e-5


@given(st.integers(0, 10_000), st.sampled_from(sorted(families())), st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_no_e_step_lowers_any_rows_free_energy(seed, name, n_random):
    x, k, width, g = _rows(150, seed), 25, 3, 5
    mixture = random_mixture(name, k, D, k, seed)
    model = GaussianMixture(k, D, name, 2 if families()[name].low_rank else None).double()
    model.load(mixture)
    kernel = model.local_expectation()
    draw = make_generator(seed)
    held = torch.rand(150, k, generator=draw).argsort(-1)[:, :width]
    neighbours = first_neighbours(mixture.centres, g)
    joint = mixture.component_log_prob(x)
    free_energy = joint.gather(1, held).logsumexp(-1)
    for _ in range(4):
        witnesses = Witnesses(k)
        found = search(kernel, kernel.centred(x), held, neighbours, n_random, draw, witnesses)
        held, neighbours = found.held, witnesses.neighbours(neighbours)
        torch.testing.assert_close(found.joint, joint.gather(1, held))
        assert bool((held.sort().values.diff() > 0).all())  # no component twice
        assert bool((found.joint.diff() <= 0).all())  # the best first
        assert torch.equal(neighbours[:, 0], torch.arange(k))
        assert bool((neighbours.sort().values.diff() > 0).all())
        now = found.joint.logsumexp(-1)
        assert bool((now >= free_energy - 1e-9).all())
        assert bool((now <= joint.logsumexp(-1) + 1e-9).all())
        free_energy = now


@pytest.mark.parametrize(("width", "g", "n_random"), [(3, 1, 1), (3, 2, 0), (1, 1, 0), (20, 1, 0)])
def test_fewer_neighbours_than_candidates_still_bound(width, g, n_random):
    x = _rows()
    model, source = _model("diagonal", x, 20), ArraySource(x)
    algorithm = TruncatedEM(width, g, n_random, dense=False)
    fit(model, source, algorithm, passes=4, tolerance=0.0)
    exact = float(log_likelihoods(model(), source).mean())
    row = fit(model, source, algorithm, passes=1).history[0]
    assert row["free_energy"] <= exact + 1e-9
    if width == 20:
        assert row["free_energy"] == pytest.approx(exact, abs=1e-9)


def test_one_component_is_one_gaussian():
    x = _rows()
    model = _model("full", x, 1)
    fitted = fit(model, ArraySource(x), TruncatedEM(random=0, dense=False), passes=2)
    exact = float(log_likelihoods(model(), ArraySource(x)).mean())
    assert fitted.history[-1]["free_energy"] == pytest.approx(exact, abs=1e-6)


def test_candidates_are_the_best_of_the_neighbours_of_those_before():
    x, k, width, g = _rows(100), 25, 3, 5
    mixture = random_mixture("full", k, D, k)
    model = GaussianMixture(k, D).double()
    model.load(mixture)
    kernel, draw = model.local_expectation(), make_generator(0)
    held = torch.rand(100, k, generator=draw).argsort(-1)[:, :width]
    neighbours = first_neighbours(mixture.centres, g)
    found = search(kernel, kernel.centred(x), held, neighbours, 0, draw, Witnesses(k))
    joint = mixture.component_log_prob(x)
    for n in range(100):
        looked_at = neighbours[held[n]].unique()
        best = looked_at[joint[n, looked_at].topk(width).indices]
        assert torch.equal(found.held[n], best)
    assert found.evaluations == 100 * width * g


def test_neighbours_are_those_that_explain_a_components_rows_best():
    generator = make_generator(0)
    n, k, s, g = 60, 12, 7, 4
    others = torch.stack([torch.randperm(k, generator=generator)[:s] for _ in range(n)])
    score = torch.randn(n, s, generator=generator, dtype=torch.float64)
    offsets = torch.randn(k, generator=generator, dtype=torch.float64)
    before = torch.stack([(torch.arange(g) + c) % k for c in range(k)])
    witnesses = Witnesses(k)
    for half in (slice(0, 35), slice(35, n)):  # what comes later adds
        witnesses.add(others[half], score[half], offsets)
    found = witnesses.neighbours(before)
    for c in range(k):
        losses: dict[int, list[float]] = {}
        for row in range(n):
            top = int(score[row].argmax())
            if int(others[row, top]) != c:
                continue
            for j in range(s):
                other = int(others[row, j])
                loss = score[row, top] - score[row, j] + offsets[other] - offsets[c]
                losses.setdefault(other, []).append(float(loss))
        means = {o: sum(v) / len(v) for o, v in losses.items() if o != c}
        near = sorted(means, key=lambda other: means[other])[: g - 1]
        assert found[c, : len(near) + 1].tolist() == [c, *near]
        rest = set(found[c, len(near) + 1 :].tolist())
        assert rest <= set(before[c].tolist())


def test_witnesses_of_other_processes_count_alike():
    generator = make_generator(0)
    parts, whole = [], Witnesses(9)
    for _ in range(2):
        own = Witnesses(9)
        others = torch.stack([torch.randperm(9, generator=generator)[:4] for _ in range(20)])
        score = torch.randn(20, 4, generator=generator)
        for held in (own, whole):
            held.add(others, score, torch.zeros(9))
        parts.append(own.parts())
    before = first_neighbours(torch.randn(9, 2, generator=generator), 4)
    together = Witnesses.joined(parts, 9, "cpu").neighbours(before)
    assert torch.equal(together, whole.neighbours(before))


@pytest.mark.parametrize("worth", [0, 200])
def test_first_candidates_are_near(worth, monkeypatch):
    monkeypatch.setattr("mogul.algorithms.first_candidates._WORTH", worth)
    x = _rows(2000)
    model, source = _model("diagonal", x, 60), ArraySource(x)
    state = first_candidates(model(), source, 3, 8, 1, 2000, make_generator(0), Watch())
    scale = model().covariance.variances.mean(0).sqrt()
    points = (model().centres / scale).detach()
    distance = torch.cdist((x - model.origin) / scale, points)
    rank = (distance < distance.gather(1, state.held[:, :1].long())).sum(-1)
    assert float((rank == 0).double().mean()) > 0.95
    assert torch.equal(state.neighbours[:, 0], torch.arange(60))


def test_rows_in_several_batches_learn_the_same():
    x = _rows()
    one = _model("full", x)
    other = copy.deepcopy(one)
    fit(one, ArraySource(x), _everything(12), passes=3, tolerance=0.0)
    fit(other, ArraySource(x), _everything(12, batch_size=77), passes=3, tolerance=0.0)
    _same(one, other)


def test_a_component_without_rows_moves_to_the_worst_row_and_is_found_there():
    x = _rows()
    x[7] = 40.0
    model, source = _model("isotropic", x[8:], 30), ArraySource(x)
    with torch.no_grad():
        model.centres[4] = 1e4
    fitted = fit(model, source, TruncatedEM(2, 4, 0, dense=False), passes=3, tolerance=0.0)
    assert any("component(s) 4 " in event for event in fitted.history[0]["events"])
    assert int(model().responsibilities(x[7:8]).argmax()) == 4
    assert fitted.history[1]["free_energy"] > fitted.history[0]["free_energy"]


def test_a_component_that_moved_is_known_to_the_row_and_to_its_best():
    state = Variational(torch.tensor([[1, 2], [3, 1]]).int(), torch.tensor([[0, 1, 2], [1, 0, 3],
                        [2, 1, 0], [3, 2, 1], [4, 3, 2]]))  # fmt: skip
    state.join(4, 1, 0)
    assert state.held.tolist() == [[1, 4], [3, 1]]
    assert state.neighbours[4].tolist() == [4, 1, 0]
    assert state.neighbours[1].tolist() == [1, 0, 4]
    state.join(0, 1, None)  # one that is a neighbour already
    assert state.neighbours[0].tolist() == [0, 1, 4]
    assert state.neighbours[1].tolist() == [1, 0, 4]


def test_few_components_are_looked_at_densely_and_the_history_says_so():
    x = _rows()
    one = _model("full", x)
    other = copy.deepcopy(one)
    expected = fit(one, ArraySource(x), EM(), passes=3, tolerance=0.0)
    found = fit(other, ArraySource(x), TruncatedEM(), passes=3, tolerance=0.0)
    _same(one, other, 0.0)
    assert "E-steps are dense, over all 12 components" in found.history[0]["events"][0]
    assert [r["free_energy"] for r in found.history] == [
        r["log_likelihood"] for r in expected.history
    ]


def test_the_first_pass_tells_what_truncated_e_steps_look_at():
    x = _rows()
    model = _model("ppca", x, 60)
    fitted = fit(model, ArraySource(x), TruncatedEM(2, 5, 1), passes=1)
    assert "look at 11 of 60 components per row" in fitted.history[0]["events"][0]


def test_gaps_are_left_to_dense_e_steps():
    x = _rows()
    x[3, 2] = torch.nan
    model = _model("full", x, 60)
    fitted = fit(model, ArraySource(x), TruncatedEM(2, 5), passes=1)
    assert "values are missing" in fitted.history[0]["events"][0]
    with pytest.raises(InputError, match="Values are missing"):
        fit(model, ArraySource(x), TruncatedEM(2, 5, dense=False), passes=1)


def test_a_prior_is_part_of_the_objective():
    x = _rows()
    model = _model("full", x, prior=Prior())
    other = copy.deepcopy(model)
    expected = fit(model, ArraySource(x), EM(), passes=3, tolerance=0.0)
    found = fit(other, ArraySource(x), _everything(12), passes=3, tolerance=0.0)
    for mine, em in zip(found.history, expected.history, strict=True):
        assert mine["objective"] == pytest.approx(em["objective"], abs=1e-9)


@pytest.mark.parametrize("name", ["full", "diagonal", "isotropic"])
def test_variational_mixtures_are_fitted_too(name):
    x = _rows()
    models = [BayesianGaussianMixture(6, D, name, dtype=torch.float64) for _ in range(2)]
    for model in models:
        initialise(model, ArraySource(x))
    expected = fit(models[0], ArraySource(x), EM(), passes=3, tolerance=0.0)
    found = fit(models[1], ArraySource(x), _everything(6), passes=3, tolerance=0.0)
    for mine, em in zip(found.history, expected.history, strict=True):
        assert mine["objective"] == pytest.approx(em["objective"], abs=1e-8)


@pytest.mark.parametrize("ends", [1, 3])
def test_a_fit_goes_on_from_its_file_as_if_it_had_not_ended(ends, tmp_path):
    x = _rows()
    source, algorithm = ArraySource(x), TruncatedEM(2, 4, 1, dense=False)
    straight, halted = (_model("factor-analysis", x, 40) for _ in range(2))
    expected = fit(straight, source, algorithm, passes=6, tolerance=0.0)
    path = tmp_path / "model.mogul"
    fit(halted, source, algorithm, passes=ends, tolerance=0.0, checkpoint=Checkpoint(path))
    resumed = _model("factor-analysis", x, 40)
    kept = Checkpoint(path, resume=True)
    found = fit(resumed, source, algorithm, passes=6, tolerance=0.0, checkpoint=kept)
    _same(straight, resumed, 1e-9)
    assert [r["free_energy"] for r in found.history] == pytest.approx(
        [r["free_energy"] for r in expected.history], abs=1e-10
    )
    with pytest.raises(InputError, match="go on with the same numbers"):
        fit(resumed, source, TruncatedEM(3, 4, dense=False), passes=8, checkpoint=kept)


def test_memory_that_runs_out_leads_to_smaller_batches(monkeypatch):
    x, asked = _rows(), []
    plain = sweeping.search

    def search_in_little_memory(kernel, x, *rest):
        asked.append(len(x))
        if len(x) > 200:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return plain(kernel, x, *rest)

    monkeypatch.setattr(sweeping, "search", search_in_little_memory)
    model = _model("full", x, 40)
    fitted = fit(model, ArraySource(x), TruncatedEM(2, 4, dense=False), passes=2, tolerance=0.0)
    assert asked[:3] == [600, 300, 150]
    assert any("went on with 150" in event for event in fitted.history[0]["events"])
    assert len(fitted.history) == 2


def test_a_pass_tells_of_all_its_rows():
    x, seen = _rows(), []
    model = _model("full", x, 40)
    algorithm = TruncatedEM(2, 4, dense=False, batch_size=100)
    state = algorithm.init(model, ArraySource(x), 1)
    algorithm.step(model, ArraySource(x), state, Watch(seen.append))
    assert sum(seen) == 600


def test_a_pass_that_is_asked_to_stop_ends_after_a_batch_and_leaves_the_model():
    x, seen = _rows(), []
    model, source = _model("full", x, 40), ArraySource(x)
    algorithm = TruncatedEM(2, 4, dense=False, batch_size=100)
    state, _ = algorithm.step(model, source, algorithm.init(model, source, 2), Watch())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Stopped):
        algorithm.step(model, source, state, Watch(seen.append, stop=lambda: sum(seen) >= 200))
    assert sum(seen) == 200
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["full", "ppca"])
def test_rows_that_stream_in_uneven_parts_are_those_in_memory(name, weighted, tmp_path):
    x = _rows()
    weight = torch.arange(600.0, dtype=torch.float64).remainder(3) + 1 if weighted else None
    source, path = ArraySource(x, weight), tmp_path / "x.parquet"
    write_store(source, path, row_group=90)
    streamed = open_source(str(path))
    one, other = (_model(name, x, 40) for _ in range(2))
    algorithm = TruncatedEM(2, 4, 1, dense=False)
    expected = fit(one, source, algorithm, passes=4, tolerance=0.0)
    found = fit(other, streamed, algorithm, passes=4, tolerance=0.0)
    assert [r["free_energy"] for r in found.history] == pytest.approx(
        [r["free_energy"] for r in expected.history], abs=1e-9
    )
    _same(one, other)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(40, 90))
@settings(max_examples=30, deadline=None)
def test_batches_hold_all_rows_in_order_whatever_their_parts(lengths, size):
    rows = torch.arange(sum(lengths), dtype=torch.float32).unsqueeze(-1)

    class Uneven:
        n_features = 1

        def __len__(self):
            return len(rows)

        def parts(self, size=8192, dtype=torch.float32, device="cpu"):
            start = 0
            for length in lengths:
                index = torch.arange(start, start + length)
                yield lambda index=index: Batch(rows[index], rows[index, 0], index)
                start += length

    model = GaussianMixture(1, 1)
    state = Variational(torch.zeros(len(rows), 1), torch.zeros(1, 1))
    for _ in range(2):  # the second time from memory, where one batch holds all
        seen = []
        for x, weight, index in read(Uneven(), size, state, model.local_expectation()):
            assert len(x) <= size
            assert torch.equal(x[:, 0], index.float())
            assert torch.equal(weight, index.float())
            seen.append(index.clone())
        assert torch.equal(torch.cat(seen), torch.arange(len(rows)))


def test_it_converges_and_says_so():
    x = _rows()
    model = _model("isotropic", x, 40)
    fitted = fit(model, ArraySource(x), TruncatedEM(3, 8, dense=False), passes=300, tolerance=1e-5)
    assert fitted.reason is StopReason.CONVERGED


def test_what_cannot_be_done_is_refused():
    with pytest.raises(InputError, match="at least one"):
        TruncatedEM(0)
    x = _rows()
    model = _model("full", x, 12)
    source = ArraySource(x)
    source.repeatable = False
    with pytest.raises(InputError, match="read once only"):
        fit(model, source, TruncatedEM(dense=False), passes=1)


def test_rows_of_weight_zero_move_nothing():
    x = _rows()
    weight = torch.ones(600, dtype=torch.float64)
    weight[::3] = 0.0
    one = _model("full", x)
    other = copy.deepcopy(one)
    fit(one, ArraySource(x, weight), _everything(12), passes=3, tolerance=0.0)
    fit(other, ArraySource(x[weight > 0]), _everything(12), passes=3, tolerance=0.0)
    _same(one, other)


def test_the_log_likelihood_of_a_sample_corrects_the_bound():
    x = _rows(5000)
    model, source = _model("full", x, 64), ArraySource(x)
    algorithm = TruncatedEM(1, 3, 0, dense=False)
    state = algorithm.init(model, source, 1)
    scores = log_likelihoods(model(), source)
    _, done = algorithm.step(model, source, state, Watch())
    exact, gap = float(scores.mean()), float(scores.mean()) - done.figures["free_energy"]
    assert gap > 0.01
    assert done.log_likelihood == pytest.approx(exact, abs=0.3 * gap)


def test_a_sweep_without_a_sample_learns_nothing():
    x = _rows()
    model, source = _model("full", x), ArraySource(x)
    kernel, draw = model.local_expectation(), make_generator(0)
    state = first_candidates(model(), source, 2, 4, 1, 600, draw, Watch())
    found = sweep(kernel, source, state, 1, 600, draw, Watch())
    assert found.mass == 600
    assert not bool(kernel.moments.count.any())
