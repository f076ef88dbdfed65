"""Seeds by Markov chains, and k-means that looks at neighbours alone."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from mogul import GaussianMixture, initialise
from mogul.algorithms.afk_mc2 import afk_mc2
from mogul.algorithms.kmeans import nearest_centre
from mogul.algorithms.truncated_kmeans import truncated_kmeans
from mogul.data import ArraySource
from mogul.distributions.linear_algebra import principal_components
from mogul.sklearn import KMeans

# Rows on a line, each of which a seed tells by its value.
LINE = torch.tensor([[0.0], [1.0], [3.0], [3.5], [7.0]], dtype=torch.float64)
CHAINS = {}


def blobs(n: int = 4000, k: int = 300, d: int = 6) -> Tensor:
    """Rows around many centres."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(k, d, generator=generator)
    x = centres[torch.randint(k, (n,), generator=generator)]
    x = x + torch.randn(n, d, generator=generator)
    return x - x.mean(0)


def inertia_of(x: Tensor, centres: Tensor, labels: Tensor) -> float:
    """Inertia by its definition."""
    return float((x.double() - centres.double()[labels]).square().sum())


def lloyd(x: Tensor, centres: Tensor, iterations: int) -> float:
    """Inertia after plain Lloyd iterations from these centres."""
    for _ in range(iterations):
        labels = torch.cdist(x, centres).argmin(1)
        for k in labels.unique():
            centres[k] = x[labels == k].mean(0)
    return inertia_of(x, centres, torch.cdist(x, centres).argmin(1))


def seeds(chain: int, draws: int = 3000) -> np.ndarray:
    """How often each pair of rows is first and second seed, (5, 5)."""
    if chain not in CHAINS:
        counts = np.zeros((5, 5))
        for seed in range(draws):
            first, second = afk_mc2(LINE, 2, seed, chain).flatten()
            counts[int((LINE[:, 0] == first).nonzero()), int((LINE[:, 0] == second).nonzero())] += 1
        CHAINS[chain] = counts
    return CHAINS[chain]


def walked(chain: int) -> np.ndarray:
    """Exact probabilities of pairs after chains of a length, by powers of the transitions."""
    found = np.zeros((5, 5))
    x = LINE[:, 0].numpy()
    for first in range(5):
        target = np.square(x - x[first])
        target /= target.sum()
        q = 0.5 * target + 0.1
        ratio = target / q
        ratio[first] = 1e-300  # any proposal is taken from there
        moves = q * np.minimum(1.0, ratio[None] / ratio[:, None])
        np.fill_diagonal(moves, 0.0)
        np.fill_diagonal(moves, 1 - moves.sum(1))
        ends = q @ np.linalg.matrix_power(moves, chain - 1)
        # A chain that met the first seed alone gives way to another row at random.
        alone, ends[first] = ends[first], 0.0
        found[first] = 0.2 * (ends + alone * (np.arange(5) != first) / 4)
    return found


def distance(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's χ² of counts against probabilities."""
    expected = expected * counts.sum()
    some = expected > 0
    return float((np.square(counts - expected)[some] / expected[some]).sum())


@pytest.mark.parametrize("chain", [1, 2, 4, 30])
def test_seeds_are_distributed_as_their_chains(chain: int) -> None:
    # 19 degrees of freedom: above 45 once in a thousand.
    assert distance(seeds(chain), walked(chain)) < 45


def test_longer_chains_come_close_to_sampling_by_squared_distance() -> None:
    x = LINE[:, 0].numpy()
    exact = np.square(x[:, None] - x)
    exact = 0.2 * exact / exact.sum(1, keepdims=True)
    assert distance(seeds(30), exact) < 45 < distance(seeds(1), exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_row_becomes_a_seed_where_there_are_as_many(dtype: torch.dtype) -> None:
    x = torch.randn(70, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = afk_mc2(x, 70, seed=1)
    assert found.dtype == dtype
    assert len(found.unique(dim=0)) == 70
    assert torch.equal(found, afk_mc2(x, 70, seed=1))
    assert not torch.equal(found, afk_mc2(x, 70, seed=2))


def test_seeds_find_few_rows_far_away() -> None:
    x = torch.zeros(5000, 2)
    x[:20] = 100 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert len(afk_mc2(x - x.mean(0), 21, seed=0).unique(dim=0)) >= 18


@pytest.mark.parametrize("value", [0.0, 3.3])
def test_equal_rows(value: float) -> None:
    x = torch.full((400, 3), value)
    assert torch.equal(afk_mc2(x, 300, seed=0), x[:300])
    found = truncated_kmeans(x - x.mean(0), 300, seed=0)
    assert found.inertia < 1e-9
    assert bool(found.centres.isfinite().all())


def test_with_all_clusters_as_neighbours_iterations_are_lloyds() -> None:
    x = blobs().double()
    found = truncated_kmeans(x, 100, 0, iterations=4, tolerance=-1.0, neighbours=100)
    assert found.iterations == 4
    assert found.inertia == pytest.approx(lloyd(x, afk_mc2(x, 100, 0), 4), rel=1e-9)
    assert torch.equal(found.labels, nearest_centre(x, found.centres))


@pytest.mark.parametrize("k", [40, 300, 700])
@pytest.mark.parametrize("seed", [0, 1])
def test_inertia_is_nearly_that_of_lloyds_iterations(k: int, seed: int) -> None:
    x = blobs()
    found = truncated_kmeans(x, k, seed, neighbours=15)
    assert found.inertia == pytest.approx(inertia_of(x, found.centres, found.labels), rel=1e-4)
    assert found.inertia < 1.03 * lloyd(x, afk_mc2(x, k, seed), 20)


def test_inertia_never_rises_and_no_cluster_stays_empty() -> None:
    x = blobs(k=400).double()
    reached = [
        truncated_kmeans(x, 400, 5, i, tolerance=-1.0, neighbours=6).inertia for i in range(12)
    ]
    assert (np.diff(reached) <= 1e-9 * reached[0]).all()
    assert reached[-1] < 0.9 * reached[0]
    assert len(truncated_kmeans(x, 400, 5).labels.unique()) == 400


def test_an_empty_cluster_restarts_at_the_farthest_row() -> None:
    # So many rows are equal that two seeds fall on them; a restart finds the row that was missed.
    x = torch.zeros(2000, 2, dtype=torch.float64)
    x[:20] = torch.randn(20, 2, generator=torch.Generator().manual_seed(1)).double()
    assert len(afk_mc2(x, 21, seed=0).unique(dim=0)) < 21
    assert truncated_kmeans(x, 21, seed=0, tolerance=0.0).inertia < 1e-12


def test_float64_far_from_rounding() -> None:
    x = blobs(k=20)
    x[:, 0] += 1e4 * (torch.arange(len(x)) % 2)
    x -= x.mean(0)
    found = truncated_kmeans(x, 40, 0)
    assert found.centres.dtype == torch.float32
    assert found.inertia == pytest.approx(truncated_kmeans(x.double(), 40, 0).inertia, rel=1e-3)


@pytest.mark.parametrize("method", ["afk-mc2", "truncated-k-means"])
def test_starts_for_many_components_read_enough_rows(method: str) -> None:
    x = blobs(n=6000, k=50, d=3)
    model = GaussianMixture(150, 3, "diagonal")
    initialise(model, ArraySource(x.numpy()), method, sample_size=200)
    # 4,500 rows were read: all weights are multiples of that share.
    shares = model().weights * 4500
    torch.testing.assert_close(shares, shares.round(), rtol=0, atol=0.02)
    again = GaussianMixture(150, 3, "diagonal")
    initialise(again, ArraySource(x.numpy()), method, sample_size=200)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("rows", [6, 30, 64, 65, 200])
def test_principal_components_of_few_rows_and_of_many(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 80, generator=generator, dtype=torch.float64)
    x[:, :3] *= torch.tensor([60.0, 30.0, 15.0])
    directions, values = principal_components(x, 3, seed=0)
    _, lengths, basis = torch.linalg.svd(x, full_matrices=False)
    torch.testing.assert_close(values, lengths[:3].square() / rows, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        (basis[:3] @ directions).abs(), torch.eye(3).double(), atol=2e-2, rtol=0
    )
    # Fewer directions than factors are left of equal rows, and all have unit length.
    flat = principal_components(x[:1].expand(rows, -1), 3, seed=0)
    torch.testing.assert_close(flat[0].mT @ flat[0], torch.eye(3).double())
    assert bool((flat[1][1:] <= 1e-9 * flat[1][0]).all())


@pytest.mark.parametrize("algorithm", ["lloyd", "truncated"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_estimator(algorithm: str, dtype: type) -> None:
    x = load_digits().data.astype(dtype) + 100
    found = KMeans(30, algorithm=algorithm, n_init=2, random_state=0).fit(x)
    assert found.cluster_centers_.dtype == dtype
    distances = found.transform(x)
    assert distances.shape == (len(x), 30)
    expected = np.linalg.norm(x[:, None] - found.cluster_centers_, axis=-1)
    np.testing.assert_allclose(distances, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found.predict(x), expected.argmin(1))
    assert found.score(x) == pytest.approx(-np.square(expected.min(1)).sum(), rel=1e-4)
    own = expected[np.arange(len(x)), found.labels_]
    assert found.inertia_ == pytest.approx(np.square(own).sum(), rel=1e-4)
    assert found.inertia_ <= KMeans(30, algorithm=algorithm, random_state=0).fit(x).inertia_
    assert isinstance(KMeans(3, algorithm=algorithm).fit(torch.tensor(x)).labels_, Tensor)
    with pytest.raises(ValueError, match="choose fewer clusters"):
        KMeans(6, algorithm=algorithm).fit(x[:5])


def test_centres_do_not_depend_on_the_order_in_which_threads_end(monkeypatch) -> None:
    x, module = blobs().double(), "mogul.algorithms.truncated_kmeans"
    monkeypatch.setattr(f"{module}._TILE_VALUES", 64)  # a cluster is in several tiles
    found = truncated_kmeans(x, 20, 0)
    monkeypatch.setattr(f"{module}.spread", lambda items, work: [*map(work[0], [*items][::-1])])
    assert torch.equal(truncated_kmeans(x, 20, 0).centres, found.centres)
