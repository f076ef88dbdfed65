"""The same answers on a GPU as on the CPU; skipped where there is none."""

import pytest
import torch

from mogul import EM, GaussianMixture, TruncatedEM, fit, initialise, open_source
from mogul.compute.backend import full_precision
from mogul.compute.transfer import staged
from mogul.data import ArraySource, ResidentSource, resident
from mogul.distributions import families


def rows(d: int) -> torch.Tensor:
    """Three overlapping clusters."""
    x = torch.randn(3000, d, generator=torch.Generator().manual_seed(0))
    x[1000:2000] += 3
    x[2000:] -= 3
    return x


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")
@pytest.mark.parametrize("sharing", ["own", "shared"])
@pytest.mark.parametrize("n_features", [3, 40])
@pytest.mark.parametrize("name", sorted(families()))
def test_a_fit_on_the_gpu_ends_where_that_on_the_cpu_ends(name, n_features, sharing):
    source, reached = ArraySource(rows(n_features)), {}
    start = GaussianMixture(3, n_features, name, sharing=sharing)
    initialise(start, source)
    for device in ("cpu", "cuda"):
        model = GaussianMixture(3, n_features, name, sharing=sharing, device=device)
        model.load_state_dict(start.state_dict())
        history = fit(model, source, EM(), passes=5, tolerance=0.0).history
        reached[device] = [row["log_likelihood"] for row in history]
    assert reached["cuda"] == pytest.approx(reached["cpu"], abs=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")
@pytest.mark.parametrize("sharing", ["own", "shared"])
@pytest.mark.parametrize("name", sorted(families()))
def test_a_truncated_fit_on_the_gpu_ends_where_that_on_the_cpu_ends(name, sharing):
    source, reached = ArraySource(rows(8)), {}
    start = GaussianMixture(40, 8, name, sharing=sharing, variance_floor=1e-2)
    initialise(start, source)
    for device in ("cpu", "cuda"):
        model = GaussianMixture(40, 8, name, sharing=sharing, variance_floor=1e-2, device=device)
        model.load_state_dict(start.state_dict())
        # None at random: devices draw unlike numbers.
        algorithm = TruncatedEM(4, 10, 0, dense=False)
        history = fit(model, source, algorithm, passes=5, tolerance=0.0).history
        reached[device] = [row["free_energy"] for row in history]
    assert reached["cuda"] == pytest.approx(reached["cpu"], abs=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")
def test_likelihoods_keep_their_digits_where_the_user_allows_tf32():
    model, x = GaussianMixture(3, 400, "ppca", 4), rows(400)
    initialise(model, ArraySource(x))
    wide = GaussianMixture(3, 400, "ppca", 4, dtype=torch.float64)
    wide.load_state_dict(model.state_dict())
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.no_grad():
            found = model.to("cuda")().log_prob(x.cuda()).cpu().double()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert float((found - wide().log_prob(x.double()).detach()).abs().max()) < 0.01


def test_full_precision_puts_back_what_the_user_chose():
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        with full_precision(torch.device("cuda")):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")
def test_rows_on_the_device_and_rows_sent_there_give_the_same_fit():
    source = open_source("digits")
    found = []
    for rows in (source, resident(source, "cuda")):
        model = GaussianMixture(5, 64, "ppca", 3, device="cuda")
        initialise(model, source)
        found.append(fit(model, rows, EM(), passes=5, tolerance=0.0).history[-1]["objective"])
    assert isinstance(resident(source, "cuda"), ResidentSource)
    assert found[0] == pytest.approx(found[1], abs=0.05)  # noise in a byte


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")
def test_batches_sent_ahead_are_those_of_the_source():
    source = ArraySource(torch.randn(5000, 7), torch.rand(5000))
    device = torch.device("cuda", torch.cuda.current_device())
    sent = [part() for part in staged(source, 600, torch.float32, device)]
    for a, b in zip(sent, source.batches(600), strict=True):
        assert a.x.is_cuda
        torch.testing.assert_close(a.x.cpu(), b.x, rtol=0, atol=0)
        torch.testing.assert_close(a.weight.cpu(), b.weight, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is usable here")
def test_batches_shrink_when_memory_ends():
    source = ArraySource(torch.randn(2_000_000, 64))
    model = GaussianMixture(200, 64, "diagonal", device="cuda")
    initialise(model, source)
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(int(0.9 * free) // 4, device="cuda")  # leaves too little for one batch
    done = fit(model, source, EM(batch_size=2_000_000), passes=1)
    assert "memory ran out" in " ".join(done.history[0]["events"])
    assert len(held)
