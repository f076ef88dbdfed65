"""The campaign's suites of others: every public estimator is checked."""

from torture import suites

from mogul.sklearn import KMeans, MixtureDensityRegressor


def test_suites_of_others_pass():
    for outcome in suites.run(quick=True):
        assert outcome.tried > 10
        assert not outcome.failures


def test_every_public_estimator_is_among_those_checked():
    assert {KMeans, MixtureDensityRegressor} <= suites.public_estimators()
    assert suites.public_estimators() <= {type(estimator) for estimator, _ in suites.ESTIMATORS}
