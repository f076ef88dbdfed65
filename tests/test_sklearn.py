"""The estimators obey scikit-learn's rules and give its numbers."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn.mixture
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mogul import OnlineEM
from mogul.algorithms import OnlineState
from mogul.protocols import Batch
from mogul.sklearn import MFA, MPPCA, BayesianGaussianMixture, GaussianMixture, KMeans

ESTIMATORS = [GaussianMixture(), MPPCA(), MFA()]
TYPES = ["full", "tied", "diag", "spherical"]


@parametrize_with_checks([
    *ESTIMATORS, BayesianGaussianMixture(), KMeans(), KMeans(algorithm="truncated"),
])  # fmt: skip
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture
def blobs():
    return make_blobs(600, n_features=3, centers=4, random_state=0)[0]


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_changing_the_import_line_keeps_the_numbers(blobs, covariance_type, init_params):
    arguments = {
        "n_components": 4, "covariance_type": covariance_type, "init_params": init_params,
        "random_state": 3, "tol": 1e-4, "max_iter": 300, "reg_covar": 1e-6,
    }  # fmt: skip
    theirs = sklearn.mixture.GaussianMixture(**arguments).fit(blobs)
    ours = GaussianMixture(**arguments).fit(blobs)
    if covariance_type == "tied" and init_params in ("k-means++", "random_from_data"):
        # scikit-learn divides the scatter of all rows by the count of the few that start, so its
        # first covariance is too wide by n/K and its optimum another one.
        assert ours.lower_bound_ >= theirs.lower_bound_
        return
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, abs=1e-4)
    assert abs(ours.n_iter_ - theirs.n_iter_) <= 1
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(ours.predict(blobs), theirs.predict(blobs))
    np.testing.assert_allclose(ours.predict_proba(blobs), theirs.predict_proba(blobs), atol=1e-3)
    np.testing.assert_allclose(ours.score_samples(blobs), theirs.score_samples(blobs), atol=5e-3)
    assert ours.bic(blobs) == pytest.approx(theirs.bic(blobs), rel=1e-5)
    assert ours.aic(blobs) == pytest.approx(theirs.aic(blobs), rel=1e-5)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_given_starts_are_used(blobs, covariance_type):
    shape = {"full": (2, 3, 3), "tied": (3, 3), "diag": (2, 3), "spherical": (2,)}[covariance_type]
    precision = (
        np.broadcast_to(np.eye(3), shape)
        if len(shape) > 1 and shape[-2:] == (3, 3)
        else (np.ones(shape))
    )
    arguments = {
        "n_components": 2, "covariance_type": covariance_type, "weights_init": [0.2, 0.8],
        "means_init": blobs[:2], "precisions_init": precision, "max_iter": 3, "tol": 0.0,
        "random_state": 0,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = sklearn.mixture.GaussianMixture(**arguments).fit(blobs)
        ours = GaussianMixture(**arguments).fit(blobs)
    np.testing.assert_allclose(ours.means_, theirs.means_, atol=1e-4)
    np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, atol=1e-4)
    with pytest.raises(ValueError, match="means_init"):
        GaussianMixture(2, means_init=np.zeros((3, 3))).fit(blobs)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pickle_clone_pipeline_and_grid_search(blobs, estimator):
    fitted = clone(estimator).set_params(n_components=3, random_state=0).fit(blobs)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(blobs), fitted.predict(blobs))
    pipeline = make_pipeline(StandardScaler(), clone(fitted)).fit(blobs)
    assert np.isfinite(pipeline.score(blobs))
    search = GridSearchCV(clone(fitted), {"n_components": [1, 4]}, cv=3).fit(blobs)
    assert search.best_params_ == {"n_components": 4}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_tensors_in_tensors_out(blobs, estimator):
    x = torch.tensor(blobs, dtype=torch.float32)
    fitted = clone(estimator).set_params(n_components=2, random_state=0).fit(x)
    for result in (fitted.predict(x), fitted.predict_proba(x), fitted.score_samples(x)):
        assert isinstance(result, torch.Tensor)
    assert fitted.score_samples(x).dtype == torch.float32
    rows, labels = fitted.sample(20)
    assert rows.shape == (20, 3)
    assert (np.diff(labels) >= 0).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_missing_values_are_imputed(blobs, estimator):
    gaps = blobs.copy()
    gaps[np.random.default_rng(0).random(blobs.shape) < 0.1] = np.nan
    fitted = clone(estimator).set_params(n_components=4, random_state=0, max_iter=200).fit(gaps)
    filled = fitted.impute(gaps)
    seen = ~np.isnan(gaps)
    np.testing.assert_allclose(filled[seen], gaps[seen])
    by_mean = np.nanmean(gaps, axis=0)[None].repeat(len(gaps), 0)
    error = np.square(filled - blobs)[~seen].mean()
    assert error < 0.5 * np.square(by_mean - blobs)[~seen].mean()
    draws = fitted.sample_missing(gaps, 5)
    assert draws.shape == (5, *gaps.shape)
    assert (draws[:, ~seen].std(0) > 0).all()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_integer_weights_are_repeated_rows(blobs, covariance_type):
    weight = np.random.default_rng(0).integers(0, 4, len(blobs))
    arguments = {
        "n_components": 3, "covariance_type": covariance_type, "means_init": blobs[:3],
        "weights_init": np.full(3, 1 / 3), "max_iter": 10, "tol": 0.0, "random_state": 0,
        "precisions_init": {
            "full": np.stack([np.eye(3)] * 3), "tied": np.eye(3), "diag": np.ones((3, 3)),
            "spherical": np.ones(3),
        }[covariance_type],
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        weighted = GaussianMixture(**arguments).fit(blobs, sample_weight=weight)
        repeated = GaussianMixture(**arguments).fit(np.repeat(blobs, weight, axis=0))
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-9, atol=1e-10)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, abs=1e-10)


def test_the_best_of_several_starts_is_kept(blobs):
    arguments = {"n_components": 6, "init_params": "random_from_data", "max_iter": 5, "tol": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        random = np.random.RandomState(2)
        each = [
            GaussianMixture(**arguments, random_state=random).fit(blobs).lower_bound_
            for _ in range(5)
        ]
        best = GaussianMixture(**arguments, n_init=5, random_state=2).fit(blobs)
    assert max(each) > min(each) + 1e-3
    assert each.index(max(each)) != 0
    assert best.lower_bound_ == max(each)
    assert best.score(blobs) > max(each) - 1e-6  # that of the parameters after the last step


def test_warm_start_goes_on(blobs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianMixture(4, warm_start=True, max_iter=2, tol=0.0, random_state=0)
        first = model.fit(blobs).lower_bound_
        second = model.fit(blobs).lower_bound_
    assert second >= first


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("prior", ["dirichlet_process", "dirichlet_distribution"])
def test_the_variational_mixture_is_scikit_learns(blobs, covariance_type, prior):
    arguments = {
        "n_components": 8, "covariance_type": covariance_type, "random_state": 1,
        "weight_concentration_prior_type": prior, "max_iter": 2000, "tol": 1e-7,
        "weight_concentration_prior": 0.01, "reg_covar": 0.0,
    }  # fmt: skip
    theirs = sklearn.mixture.BayesianGaussianMixture(**arguments).fit(blobs)
    ours = BayesianGaussianMixture(**arguments | {"tol": 1e-12}).fit(blobs)
    for name in ("weights_", "means_", "covariances_", "degrees_of_freedom_", "mean_precision_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(ours.score_samples(blobs), theirs.score_samples(blobs), atol=1e-2)
    np.testing.assert_array_equal(ours.predict(blobs), theirs.predict(blobs))
    if covariance_type in ("full", "tied"):
        assert (np.diff(ours.lower_bounds_) > -1e-9).all()
    assert (ours.weights_ > 0.01).sum() < 8


def test_the_bound_is_below_the_evidence_of_one_gaussian():
    # One Gaussian: the posterior is exact, so the bound is the evidence, known in closed form.
    x = np.random.default_rng(0).normal(size=(30, 2))
    model = BayesianGaussianMixture(
        weight_concentration_prior_type="dirichlet_distribution", random_state=0, tol=1e-12
    ).fit(x)
    n, d, v0, b0 = 30, 2, 2.0, 1.0
    prior = np.cov(x.T)
    posterior = prior + (n - 1) * np.cov(x.T)
    from scipy.special import multigammaln

    evidence = (
        -0.5 * n * d * np.log(np.pi) + multigammaln((v0 + n) / 2, d) - multigammaln(v0 / 2, d)
        + 0.5 * v0 * np.linalg.slogdet(prior)[1]
        - 0.5 * (v0 + n) * np.linalg.slogdet(posterior)[1]
        + 0.5 * d * np.log(b0 / (b0 + n))
    )  # fmt: skip
    assert model.lower_bound_ * n == pytest.approx(evidence, abs=1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_pass_of_batches_comes_close_to_em(covariance_type):
    x = make_blobs(20_000, n_features=3, centers=4, random_state=1)[0]
    batch = GaussianMixture(4, covariance_type=covariance_type, random_state=0).fit(x)
    online = GaussianMixture(4, covariance_type=covariance_type, random_state=0)
    for part in np.array_split(x, 50):
        online.partial_fit(part)
    assert online.n_iter_ == 50
    assert online.score(x) > batch.score(x) - 0.02


def _batches():
    x = make_blobs(600, n_features=4, centers=3, random_state=1)[0]
    x[300:][np.random.default_rng(0).random((300, 4)) < 0.1] = np.nan
    return [*np.array_split(x, 6), x[:1]]


@pytest.mark.parametrize(
    "estimator",
    [*(GaussianMixture(3, covariance_type=t) for t in TYPES), MPPCA(3, 2), MFA(3, 2)],
    ids=str,
)
def test_partial_fit_is_online_em_on_the_same_batches(estimator):
    parts = _batches()
    estimator = clone(estimator).set_params(random_state=0)
    for part in parts:
        estimator.partial_fit(part)
    random = np.random.RandomState(0)
    model = clone(estimator)._started(torch.as_tensor(parts[0]), None, random)
    state = OnlineState()
    for part in parts:
        rows = torch.as_tensor(part)
        OnlineEM().learn(model, Batch(rows, None, torch.arange(len(rows))), state)
    OnlineEM().finish(model, state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, estimator.model_.state_dict()[name])
    assert estimator.n_iter_ == len(parts)


def test_partial_fit_does_not_grow_and_goes_on_from_fit():
    parts = _batches()
    model = MPPCA(3, 2, random_state=0)
    with pytest.raises(ValueError, match="choose fewer components"):
        model.partial_fit(parts[0][:2])
    sizes = []
    for part in parts[3:6] * 3:
        sizes.append(len(pickle.dumps(model.partial_fit(part))))
    assert max(sizes[2:]) - min(sizes[2:]) < 100
    fitted = MPPCA(3, 2, random_state=0, max_iter=500).fit(parts[0])
    before = fitted.score(parts[0])
    assert fitted.partial_fit(parts[0]).score(parts[0]) > before - 0.1
    assert not hasattr(fitted.fit(parts[0]), "_online")
