"""The regressor obeys scikit-learn's rules, and predicts whole densities."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mogul.sklearn import MixtureDensityRegressor, log_likelihood_scorer

pytestmark = pytest.mark.filterwarnings("ignore:The fit did not end by itself")

QUICK = MixtureDensityRegressor(learning_rate=2e-2, max_iter=40, batch_size=16)
# As with scikit-learn's own estimators that learn by minibatches.
STOCHASTIC = {
    "check_sample_weight_equivalence_on_dense_data": "minibatches of repeated rows are others",
}


@parametrize_with_checks([QUICK], expected_failed_checks=lambda _: STOCHASTIC)
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture(scope="module")
def fitted():
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 2))
    y = X[:, 0] + 0.2 * np.exp(0.5 * X[:, 1]) * random.normal(size=300)
    return MixtureDensityRegressor(3, max_iter=60, random_state=0).fit(X, y), X, y


def test_predictions_of_one_target(fitted):
    regressor, X, y = fitted
    assert regressor.score(X, y) > 0.9
    assert regressor.predict(X).shape == (300,)
    interval = regressor.predict_interval(X, coverage=0.9)
    assert interval.shape == (300, 2)
    inside = (y > interval[:, 0]) & (y < interval[:, 1])
    assert 0.8 < inside.mean() < 0.98
    assert regressor.predict_quantile(X).shape == (300,)
    quantiles = regressor.predict_quantile(X, [0.1, 0.5, 0.9])
    assert quantiles.shape == (300, 3)
    assert (np.diff(quantiles, axis=1) > 0).all()
    draws = regressor.sample(X, 200)
    assert draws.shape == (200, 300)
    np.testing.assert_allclose(draws.mean(0), regressor.predict(X), atol=0.3)
    np.testing.assert_allclose(draws.std(0), regressor.predict_std(X), atol=0.15)
    assert np.abs(regressor.predict_mode(X) - regressor.predict(X)).mean() < 0.2
    expected = regressor.mixture(X).log_prob(torch.as_tensor(y).unsqueeze(-1)).numpy()
    np.testing.assert_allclose(regressor.log_likelihood(X, y), expected)


def test_several_targets_with_gaps_and_weights():
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 1))
    y = np.hstack([X, -X, 2 * X]) + 0.1 * random.normal(size=(200, 3))
    y[::5, 1] = np.nan
    regressor = MixtureDensityRegressor(2, max_iter=40, learning_rate=1e-2, random_state=0)
    weight = random.uniform(size=200) * (random.uniform(size=200) > 0.2)
    regressor.fit(X, y, sample_weight=weight)
    assert regressor.predict(X).shape == (200, 3)
    assert regressor.predict_interval(X).shape == (200, 3, 2)
    assert regressor.sample(X, 2).shape == (2, 200, 3)
    assert np.isfinite(regressor.log_likelihood(X, y)).all()
    np.testing.assert_allclose(regressor.predict(X)[:, 1], -X[:, 0], atol=0.5)
    assert regressor.score(X, y) > 0.9


def test_it_stands_in_pipelines_and_searches(fitted):
    _, X, y = fitted
    pipeline = make_pipeline(StandardScaler(), MixtureDensityRegressor(1, max_iter=5))
    grid = GridSearchCV(pipeline, {"mixturedensityregressor__n_components": [1, 2]}, cv=2)
    assert grid.fit(X, y).best_score_ > -1
    by_density = cross_val_score(
        MixtureDensityRegressor(1, max_iter=5), X, y, cv=2, scoring=log_likelihood_scorer
    )
    assert np.isfinite(by_density).all()


def test_errors_name_what_is_wrong(fitted):
    regressor, X, y = fitted
    with pytest.raises(ValueError, match="number between 0 and 1"):
        regressor.predict_interval(X, coverage=1.0)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        regressor.predict_quantile(X, 1.0)
    with pytest.raises(ValueError, match="whole number"):
        regressor.sample(X, 0)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        regressor.log_likelihood(X, y[:10])
    with pytest.warns(ConvergenceWarning, match="did not end by itself in 2"):
        MixtureDensityRegressor(max_iter=2).fit(X, y)
    with pytest.raises(ValueError, match="covariance_type"):
        MixtureDensityRegressor(covariance_type="round").fit(X, y)
    with pytest.raises(ValueError, match="No row has a target"):
        MixtureDensityRegressor().fit(X, np.full(300, np.nan))
