"""Inputs that once ended in a wrong number, a NaN, or a message of another library."""

import copy
import math
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

from mogul import EM, GaussianMixture, Gradient, InputError, OnlineEM, fit, initialise, open_source
from mogul.algorithms import Supervised, mean_log_likelihood, pga
from mogul.algorithms.kmeans import kmeans, nearest_centre
from mogul.data import ArraySource
from mogul.distributions import (
    Diagonal,
    FactorAnalysis,
    Full,
    Isotropic,
    Mixture,
    Moments,
    families,
)
from mogul.distributions.full import floored_cholesky
from mogul.models import (
    MLP,
    BayesianGaussianMixture,
    LatentVariableModel,
    LinearDecoder,
    MixtureDensityNetwork,
)
from mogul.sklearn import MFA, KMeans
from mogul.sklearn import BayesianGaussianMixture as BayesianEstimator
from mogul.sklearn import GaussianMixture as Estimator

X = np.random.default_rng(0).normal(size=(60, 3)) + 3 * (np.arange(60) % 2)[:, None]


@pytest.mark.parametrize(
    "data",
    [
        np.array(3.0),
        scipy.sparse.csr_matrix(X),
        scipy.sparse.coo_array(X),
        torch.as_tensor(X).to_sparse(),
        torch.as_tensor(X).to("meta"),
    ],
)
def test_what_holds_no_dense_rows_is_refused(data):
    with pytest.raises(InputError, match=r"give|rows"):
        open_source(data)


def test_estimators_refuse_tensors_that_hold_no_rows_and_take_others():
    for data in (torch.as_tensor(X).to_sparse(), torch.as_tensor(X).to("meta")):
        with pytest.raises(ValueError, match="dense"):
            Estimator(2).fit(data)
    assert Estimator(2, random_state=0).fit(torch.as_tensor(X).bfloat16()).converged_
    swapped = X.astype(">f8")
    assert Estimator(2, random_state=0).fit(swapped).score(swapped) < 0


def test_a_tensor_with_gradient_is_data():
    source = ArraySource(torch.as_tensor(X).requires_grad_())
    model = GaussianMixture(2, 3, dtype=torch.float64)
    initialise(model, source)
    assert len(fit(model, source, EM(), passes=2).history) == 2


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="real numbers"):
        ArraySource(X, np.array(["1"] * 60))


def test_numbers_of_numpy_are_numbers():
    model = GaussianMixture(np.int64(2), np.int32(3), "ppca", np.int64(1))
    assert model.config()["rank"] == 1
    with pytest.raises(InputError, match="whole number"):
        GaussianMixture(2, 3, "ppca", 1.5)  # pyright: ignore[reportArgumentType]


def test_models_larger_than_memory_are_refused():
    with pytest.raises(InputError, match="no memory"):
        GaussianMixture(10**12, 1000, "diagonal")
    with pytest.raises(InputError, match="no memory"):
        GaussianMixture(3, 2**40, "full")


def test_rows_that_differ_by_rounding_have_no_scale():
    with pytest.raises(InputError, match="All rows are equal"):
        initialise(GaussianMixture(1, 3), open_source(np.full((9, 3), 1 / 3)))


OUT_OF_RANGE = [(1e200, "float64"), (1e-200, "float64"), (1e-30, "float32"), (1e30, "float32")]


@pytest.mark.parametrize(("unit", "dtype"), OUT_OF_RANGE)
def test_rows_whose_squares_are_out_of_range_are_not_called_equal(unit, dtype):
    x = unit * np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(InputError, match="cannot square"):
        initialise(GaussianMixture(2, 3, dtype=getattr(torch, dtype)), open_source(x))


@pytest.mark.parametrize("name", ["diagonal", "factor-analysis"])
@pytest.mark.parametrize("gaps", [False, True])
def test_variances_of_clusters_far_apart_keep_their_digits(name, gaps):
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    x = rng.normal(size=(300, 3)) + 1e6 * labels[:, None]
    if gaps:
        x[rng.random(x.shape) < 0.1] = np.nan
    model = GaussianMixture(
        3, 3, name, 1 if name == "factor-analysis" else None, dtype=torch.float64,
        variance_floor=1e-14,
    )  # fmt: skip
    initialise(model, open_source(x))
    fit(model, open_source(x), EM(), passes=200 if model.rank else 5, tolerance=0.0)
    order = model().means[:, 0].argsort()
    found = model().variances[order].detach().numpy()
    clusters = [x[labels == k] for k in range(3)]
    expected = np.array([np.nanvar(cluster, 0) for cluster in clusters])
    # With gaps factors tell of what is hidden, so that variances are not those of what is seen.
    exact = name == "diagonal" or not gaps
    np.testing.assert_allclose(found, expected, rtol=1e-7 if exact else 0.05)


def test_moments_about_far_centres_keep_their_digits_whatever_the_noise():
    x = torch.tensor(X[:30, :3])
    far = torch.full((2, 3), 1e12, dtype=torch.float64)
    loadings, noise = torch.ones(2, 3, 1), torch.full((2, 3), 1e17)
    cov = families()["factor-analysis"](loadings.double(), noise.double())
    resp = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, near = (cov.statistics(x + c[0], resp, c) for c in (far, torch.zeros_like(far)))
    rounded = (x + far[0]) - far[0]
    exact = cov.statistics(rounded, resp, torch.zeros_like(far))
    torch.testing.assert_close(found.second, exact.second, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.second, near.second, rtol=1e-3, atol=0)


def test_a_decoder_refuses_weights_of_rows():
    model = LatentVariableModel(LinearDecoder(2, (3,)), 2, (3,))
    with pytest.raises(InputError, match="weights"):
        fit(model, ArraySource(X, np.arange(60.0)), pga(), passes=1)
    assert fit(model, ArraySource(X, np.ones(60)), pga(), passes=1).history


def mixture(name: str, dtype: torch.dtype = torch.float64) -> Mixture:
    """Two components of three features, of any family."""
    cls = families()[name]
    torch.manual_seed(0)
    shapes = cls.raw_shapes(2, 3, 1)
    raw = {key: 0.3 * torch.randn(shape, dtype=dtype) for key, shape in shapes.items()}
    return Mixture(
        torch.zeros(2, dtype=dtype), torch.randn(2, 3, dtype=dtype), cls.from_raw(raw, 3)
    )


@pytest.mark.parametrize("name", list(families()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_beyond_all_numbers_have_responsibilities(name, dtype):
    made = mixture(name, dtype)
    rows = torch.tensor([[1e200, 1e200, 1e200], [-1e150, 3.0, 0.0]], dtype=torch.float64)
    for found in (made.responsibilities(rows), made.responsibilities(rows.requires_grad_())):
        torch.testing.assert_close(found.sum(-1), torch.ones(2, dtype=found.dtype))
    rows = rows.detach()
    assert not bool(made.log_prob(rows).isnan().any())
    assert not bool(made.log_prob(rows.clone().requires_grad_()).isnan().any())
    nearest = made.responsibilities(rows)[0].argmax()
    near = made.covariance.map(torch.Tensor.double).log_prob_each(
        1e3 * torch.ones(2, 3, dtype=torch.float64)
    )
    assert nearest == near.argmax()


@pytest.mark.parametrize("name", list(families()))
def test_infinite_and_complex_rows_are_refused(name):
    made = mixture(name)
    for ask in (made.log_prob, made.responsibilities, made.reconstruct):
        with pytest.raises(InputError, match="infinite"):
            ask(torch.tensor([[1.0, math.inf, 0.0]], dtype=torch.float64))
    with pytest.raises(InputError, match="real numbers"):
        made.log_prob(torch.zeros(1, 3, dtype=torch.complex128))
    assert made.log_prob(torch.zeros(0, 3)).shape == (0,)


def test_float64_keeps_digits_of_rows_far_from_the_origin_in_units_of_the_noise():
    """Rows near a centre 10⁹ deviations from the origin: ½ log 2π + ½ z² per feature, exactly."""
    centre = torch.full((1, 3), 1e9, dtype=torch.float64)
    z = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    wanted = -0.5 * float(z.square().sum()) - 1.5 * math.log(2 * math.pi)
    for covariance in (Diagonal.of(torch.ones(1, 3).double()), Isotropic.of(z.new_ones(1), 3)):
        made = Mixture(z.new_zeros(1), centre, covariance)
        rows = centre + z
        assert abs(float(made.log_prob(rows)) - wanted) < 1e-6
        assert abs(float(made.log_prob(rows.requires_grad_()).detach()) - wanted) < 1e-6
        moments = covariance.statistics(rows.detach(), z.new_ones(1, 1), centre)
        torch.testing.assert_close(moments.second, z.square(), rtol=1e-6, atol=0)


def test_float64_keeps_digits_where_factors_dwarf_the_noise():
    """A row of factors of length 10⁴ over noise 10⁻⁴, against the dense twin of its residual."""
    torch.manual_seed(0)
    loadings = 100 * torch.randn(2, 40, 3, dtype=torch.float64)
    covariance = FactorAnalysis(loadings, torch.full((2, 40), 1e-4, dtype=torch.float64))
    made = Mixture(loadings.new_zeros(2), torch.zeros(2, 40).double(), covariance)
    z = 3 * torch.randn(5, 3, dtype=torch.float64)
    rows = z @ loadings[0].mT + 0.01 * torch.randn(5, 40, dtype=torch.float64)
    exact = (covariance.log_prob_each(rows.unsqueeze(-2)) + made.log_weights).logsumexp(-1)
    torch.testing.assert_close(made.log_prob(rows), exact, rtol=0, atol=1e-7)
    gaps = rows.clone()
    gaps[:, ::4] = math.nan
    seen = ~gaps.isnan()
    exact = covariance.log_prob_each(gaps.nan_to_num(0.0).unsqueeze(-2), seen)
    exact = (exact + made.log_weights).logsumexp(-1)
    torch.testing.assert_close(made.log_prob(gaps), exact, rtol=0, atol=1e-7)


def test_moments_of_clusters_far_apart_keep_their_digits():
    """Two tight clusters 10⁹ deviations apart have the covariance that each has alone."""
    rows = X - 3 * (np.arange(60) % 2)[:, None]
    apart = rows + 1e9 * (np.arange(60) % 2)[:, None]
    reached = []
    for data in (rows[::2], rows[1::2], apart):
        source = ArraySource(data)
        # The floor is a fraction of the variance, which the distance makes 10¹⁸.
        model = GaussianMixture(
            1 if len(data) == 30 else 2, 3, "ppca", 1, variance_floor=1e-24, dtype=torch.float64
        )
        initialise(model, source)
        fit(model, source, EM(), passes=50, tolerance=1e-12)
        reached.append(mean_log_likelihood(model(), source))
    wanted = 0.5 * (reached[0] + reached[1]) - math.log(2)
    assert abs(reached[2] - wanted) < 1e-5


def test_the_bayesian_estimator_assigns_rows_beyond_its_type():
    estimator = BayesianEstimator(n_components=2, random_state=0).fit(X.astype(np.float32))
    shares = estimator.predict_proba(np.full((1, 3), 1e30, dtype=np.float32))
    np.testing.assert_allclose(shares.sum(-1), 1.0)


def test_collinear_columns_have_a_variational_bound():
    rows = np.column_stack([X, 2 * X[:, 0]])
    model, source = BayesianGaussianMixture(2, 4, dtype=torch.float64), open_source(rows)
    initialise(model, source)
    done = fit(model, source, EM(), passes=5)
    objectives = [row["objective"] for row in done.history]
    assert np.isfinite(objectives).all()
    assert np.diff(objectives).min() > -1e-6 * abs(objectives[-1])


def test_k_means_beside_an_outlier_finds_the_nearest_centre():
    rows = torch.as_tensor(X - X.mean(0))
    rows[0] = torch.tensor([0.0, 1e9, 0.0])
    centres = torch.stack([rows[0], rows[1], rows[2]])
    exact = torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
    assert torch.equal(nearest_centre(rows, centres), exact)
    found = kmeans(rows, 3, 0)
    assert abs(found.inertia - float((rows - found.centres[found.labels]).square().sum())) < 1e-6
    estimator = KMeans(3, random_state=0).fit(rows.numpy())
    far = np.linalg.norm(rows.numpy()[:, None] - estimator.cluster_centers_, axis=-1)
    np.testing.assert_allclose(estimator.transform(rows.numpy()), far, rtol=1e-6, atol=1e-5)
    assert (estimator.predict(rows.numpy()) == far.argmin(-1)).all()


def test_k_means_measures_tiny_and_huge_rows():
    for scale in (1e-140, 1e140):
        estimator = KMeans(2, random_state=0).fit(X * scale)
        far = np.linalg.norm(X[:, None] - estimator.cluster_centers_ / scale, axis=-1)
        np.testing.assert_allclose(estimator.transform(X * scale) / scale, far, rtol=1e-9)
    for scale in (1e-200, 1e200, 1e307):
        with pytest.raises(ValueError, match="rescale"):
            KMeans(2).fit(X * scale)


def test_a_start_from_rows_beyond_the_type_is_refused():
    with pytest.raises(InputError, match="far apart"):
        initialise(GaussianMixture(2, 3, dtype=torch.float64), open_source(X * 1e307))


def test_factor_mixtures_start_on_the_floor():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = MFA(2, 1, reg_covar=10.0, max_iter=5, tol=0.0, random_state=0).fit(X)
    assert np.diff(estimator.lower_bounds_).min() > -1e-9


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_gradient_fits_do_not_depend_on_units(scale):
    reached = []
    for unit in (1.0, scale):
        source = open_source(X * unit)
        model = GaussianMixture(2, 3, "diagonal", dtype=torch.float64)
        initialise(model, source)
        fit(model, source, Gradient(batch_size=20), passes=5)
        reached.append(mean_log_likelihood(model(), source) + 3 * math.log(unit))
    assert abs(reached[0] - reached[1]) < 1e-9


def test_gradient_refuses_columns_of_too_unlike_units():
    source = open_source(X * [1e-8, 1.0, 1e8])
    model = GaussianMixture(2, 3, "diagonal", dtype=torch.float64)
    initialise(model, source)
    with pytest.raises(InputError, match="rescale"):
        fit(model, source, Gradient(), passes=1)


def test_gradient_refuses_a_column_without_values():
    rows = X.copy()
    source = open_source(rows)
    model = GaussianMixture(2, 3, dtype=torch.float64)
    initialise(model, source)
    rows[:, 1] = np.nan
    with pytest.raises(InputError, match="Column 1"):
        fit(model, source, Gradient(), passes=1)


def test_online_em_reads_numbers_beyond_float32():
    source = open_source(X * 1e100)
    model = GaussianMixture(2, 3, dtype=torch.float64)
    initialise(model, source)
    assert fit(model, source, OnlineEM(batch_size=20), passes=2).history


def test_a_floor_under_variances_of_unlike_size():
    """The floor is met, and the other variances keep their digits, 32 orders apart."""
    covariance = torch.diag(torch.tensor([1e-16, 1.0, 1e16], dtype=torch.float64))[None]
    floor = torch.full((3,), 1e-6, dtype=torch.float64)
    found, low = floored_cholesky(covariance, floor)
    assert bool(low.all())
    torch.testing.assert_close(
        Full(found).variances[0], torch.tensor([1e-6, 1.0, 1e16]).double(), rtol=1e-5, atol=0
    )
    with pytest.raises(InputError, match="not finite"):
        floored_cholesky(covariance * math.nan, floor)


def test_a_variational_posterior_without_data_is_its_prior():
    strong = {"mean_strength": 1e6, "mean": torch.zeros(3), "covariance_prior": torch.eye(3)}
    model = BayesianGaussianMixture(2, 3, dtype=torch.float64, **strong)
    nothing = torch.zeros(2, 3, 3, dtype=torch.float64)
    model.maximise(Moments(nothing[:, 0, 0], nothing[:, 0], nothing))
    assert abs(float(model.log_prior().detach())) < 1e-9


def test_fits_by_gradient_work_in_no_grad_and_refuse_inference_mode():
    source = ArraySource(X)
    model = GaussianMixture(2, 3)
    initialise(model, source)
    expected = fit(copy.deepcopy(model), source, Gradient(), passes=2).history[-1]["objective"]
    with torch.no_grad():
        found = fit(copy.deepcopy(model), source, Gradient(), passes=2)
    assert found.history[-1]["objective"] == expected
    decoder = LatentVariableModel(LinearDecoder(2, (3,)), 2, (3,))
    network = MixtureDensityNetwork(MLP(2), 2, 1)
    tries = [(model, Gradient()), (decoder, pga()), (network, Supervised())]
    with torch.inference_mode():
        for one, algorithm in tries:
            with pytest.raises(InputError, match="inference_mode"):
                fit(one, source, algorithm, passes=1)
        assert fit(model, source, EM(), passes=1).history
        within = GaussianMixture(2, 3)
        initialise(within, source)
    with pytest.raises(InputError, match="inference_mode"):
        fit(within, source, EM(), passes=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(families()))
def test_parameters_of_half_precision_are_worked_with_in_single(name, dtype):
    wide = mixture(name, torch.float32)
    short = [t.to(dtype) for t in (wide.logits, wide.centres)]
    made = Mixture(*short, wide.covariance.map(lambda t: t.to(dtype)))
    twin = Mixture(*(t.float() for t in short), made.covariance)
    assert made.dtype == made.covariance.variances.dtype == torch.float32
    rows = wide.sample((5,), seed=0).to(dtype)
    gaps = rows.clone()
    gaps[1, 2] = torch.nan
    for ask in (
        lambda m: m.log_prob(rows), lambda m: m.log_prob(gaps), lambda m: m.rsample((2,), seed=0),
        lambda m: m.condition([0], rows[:, :1]).mean, lambda m: m.responsibilities(rows),
    ):  # fmt: skip
        assert torch.equal(ask(made), ask(twin))
    model = GaussianMixture(2, 3, name).to(dtype)
    assert model().log_prob(rows).isfinite().all()
    for start in (initialise, lambda *given: fit(*given, EM())):
        with pytest.raises(InputError, match="float32"):
            start(model, ArraySource(X))
