"""The regressor obeys scikit-learn's rules."""

import warnings

from sklearn.utils.estimator_checks import parametrize_with_checks

from mogul.sklearn import MixtureDensityRegressor


QUICK = MixtureDensityRegressor(learning_rate=1e-2, max_iter=100, batch_size=16)
# As with scikit-learn's own estimators that learn by minibatches.
STOCHASTIC = {
    "check_sample_weight_equivalence_on_dense_data": "minibatches of repeated rows are others",
}


@parametrize_with_checks([QUICK], expected_failed_checks=lambda _: STOCHASTIC)
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
