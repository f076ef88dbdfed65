"""k-means against exhaustive answers and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import load_digits

from mogul.algorithms.kmeans import kmeans, kmeans_plusplus, nearest_centre


def digits() -> torch.Tensor:
    """The digits about their mean."""
    x = torch.as_tensor(load_digits().data, dtype=torch.float32)
    return x - x.mean(0)


def test_inertia_is_the_sum_of_squared_distances_to_the_nearest_centre() -> None:
    x = digits()
    found = kmeans(x, 10, seed=0)
    distance = torch.cdist(x.double(), found.centres.double()).square()
    assert found.inertia == pytest.approx(float(distance.min(1).values.sum()), rel=1e-5)
    assert torch.equal(found.labels, nearest_centre(x, found.centres))


def test_inertia_is_no_worse_than_the_mini_batch_kind() -> None:
    x = digits()
    ours = np.mean([kmeans(x, 50, seed=s).inertia for s in range(3)])
    theirs = np.mean([
        MiniBatchKMeans(50, n_init=1, random_state=s).fit(x.numpy()).inertia_ for s in range(3)
    ])
    full = np.mean([KMeans(50, n_init=1, random_state=s).fit(x.numpy()).inertia_ for s in range(3)])
    assert ours < 1.01 * theirs
    assert ours < 1.02 * full


def test_seeds_of_separate_groups_hit_each_once() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 100 * torch.eye(8)
    x = (centres.repeat(50, 1)) + torch.randn(400, 8, generator=generator)
    for seed in range(5):
        groups = kmeans_plusplus(x, 8, seed).argmax(1)
        assert len(groups.unique()) == 8


def test_fewer_distinct_rows_than_clusters() -> None:
    x = torch.tensor([[0.0], [1.0]]).repeat(20, 1)
    found = kmeans(x, 5, seed=0)
    assert found.inertia < 1e-9
    assert bool(found.centres.isfinite().all())


def test_the_same_seed_gives_the_same_clusters_on_any_number_of_threads() -> None:
    x = digits()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = kmeans(x, 10, seed=3)
        torch.set_num_threads(3)
        three = kmeans(x, 10, seed=3)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.labels, three.labels)


def test_near_clusters_are_told_apart_in_groups_that_lie_far_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 4, generator=generator, dtype=torch.float64)
    x[:, 0] += torch.randint(0, 4, (2000,), generator=generator) * 20
    x[1000:, 1] += 1e6
    x = (x - x.mean(0)).float()
    found = kmeans(x, 8, seed=0)
    exact = kmeans(x.double(), 8, seed=0)
    assert found.inertia == pytest.approx(exact.inertia, rel=1e-3)
