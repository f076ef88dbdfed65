"""When memory runs out, batches shrink; rows on a device are the rows of their source."""

import numpy as np
import pytest
import torch

from mogul import EM, GaussianMixture, InputError, fit, initialise, open_source
from mogul.algorithms import mean_log_likelihood
from mogul.compute.memory import halved
from mogul.data import ArraySource, ResidentSource
from mogul.data.pixels import PixelScale
from mogul.distributions.kernel import Kernel


def rows(n=600):
    random = np.random.default_rng(0)
    return random.normal(size=(n, 4)) + 4 * random.integers(0, 3, size=(n, 1))


def started(source):
    model = GaussianMixture(3, 4, "full", dtype=torch.float64)
    initialise(model, source)
    return model


@pytest.fixture
def little_memory(monkeypatch):
    """Let batches of more than 70 rows fail as a GPU would, after some of their work is done."""
    expect, score = Kernel.expect, Kernel.score

    def guarded(method):
        def call(self, x, *more):
            found = method(self, x, *more)
            if len(x) > 70:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return found

        return call

    monkeypatch.setattr(Kernel, "expect", guarded(expect))
    monkeypatch.setattr(Kernel, "score", guarded(score))


def test_batches_are_halved_until_they_fit_and_the_history_says_so(little_memory, monkeypatch):
    source = ArraySource(rows())
    model = started(source)
    done = fit(model, source, EM(batch_size=300), passes=4, tolerance=0.0)
    assert "memory ran out with batches of 300 rows; went on with 150" in done.history[0]["events"]
    assert "memory ran out with batches of 75 rows; went on with 37" in " ".join(
        done.history[0]["events"]
    ).replace("150 rows; went on with 75", "")
    assert done.history[1]["events"] == []
    reached = mean_log_likelihood(model(), source)
    monkeypatch.undo()
    twin = started(source)
    expected = fit(twin, source, EM(), passes=4, tolerance=0.0)
    for a, b in zip(done.history, expected.history, strict=True):
        assert a["objective"] == pytest.approx(b["objective"], abs=1e-10)
    assert reached == pytest.approx(mean_log_likelihood(twin(), source), abs=1e-10)


def test_memory_that_never_suffices_is_told():
    error = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes")
    assert halved(64, error) == 32
    with pytest.raises(InputError, match="batches of 20 rows; choose fewer components"):
        halved(20, error)
    with pytest.raises(RuntimeError, match="of another kind"):
        halved(64, RuntimeError("of another kind"))


@pytest.mark.parametrize(
    "scale", [PixelScale(256, True), PixelScale(256), PixelScale(256, whole=True)]
)
def test_resident_pixels_are_those_of_the_source(scale):
    pixels = np.random.default_rng(0).integers(0, 256, size=(90, 5, 4), dtype=np.uint8)
    source = ArraySource(pixels, np.arange(90.0), scale=scale)
    held = ResidentSource(source, "cpu")
    assert held.n_bytes == 90 * 20 * (2 if scale.dequantise else 1)
    assert len(held) == 90
    assert held.feature_shape == (5, 4)
    for a, b in zip(source.batches(40), held.batches(40), strict=True):
        close = 0.5 / 256 / 256 + 1e-7 if scale.dequantise else 0
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=close)
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.index, b.index)
    for a, b in zip(source.blocks(40), held.blocks(40), strict=True):
        assert torch.equal(a().weight.float(), b().weight)
    torch.testing.assert_close(held.take([7, 3]), held.take(range(90))[[7, 3]], rtol=0, atol=0)
    np.testing.assert_array_equal(
        held.to_pixels(held.take(range(90))), source.to_pixels(source.take(range(90)))
    )


@pytest.mark.parametrize(("values", "width"), [(rows().round(), 2), (rows(), 4)])
def test_resident_numbers_lose_nothing(values, width):
    values[3, 1] = np.nan
    held = ResidentSource(ArraySource(values), "cpu")
    assert held.n_bytes == values.size * width
    expected = torch.from_numpy(values).float()
    torch.testing.assert_close(
        held.take(range(len(values))), expected, rtol=0, atol=0, equal_nan=True
    )


def test_a_fit_to_resident_rows_is_that_to_the_source():
    source = open_source("digits")
    found = []
    for rows_ in (source, ResidentSource(source, "cpu")):
        model = GaussianMixture(5, 64, "ppca", 3, dtype=torch.float64)
        initialise(model, source)
        found.append(fit(model, rows_, EM(), passes=5, tolerance=0.0).history[-1]["objective"])
    assert found[0] == pytest.approx(found[1], abs=1e-2)


def test_resident_rows_are_split_before():
    from mogul.compute.collective import Group

    held = ResidentSource(ArraySource(rows()), "cpu")
    with pytest.raises(InputError, match="call shard before resident"):
        held.shard(Group(0, 2))


def test_white_pixels_stay_white():
    pixels = np.full((3000, 20, 10), 255, dtype=np.uint8)
    source = ArraySource(pixels, scale=PixelScale(256, True))
    held = ResidentSource(source, "cpu").take(range(3000))
    assert float((held - source.take(range(3000))).abs().max()) < 1 / 256 / 128


def test_the_largest_number_stays_what_it_is():
    largest = float(np.finfo(np.float32).max)
    held = ResidentSource(ArraySource(np.array([[largest, 1.0], [2.0, np.nan]], "f4")), "cpu")
    assert held.take([0]).tolist() == [[largest, 1.0]]
