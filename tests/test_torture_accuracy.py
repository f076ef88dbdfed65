"""The quick part of the campaign: densities against 50-digit arithmetic."""

import torch
from torture import accuracy
from torture._grid.exact import Exact, cholesky, digits


def test_densities_are_those_of_50_digit_arithmetic():
    (outcome,) = accuracy.run(quick=True)
    assert not outcome.failures
    assert outcome.tried > 300


def test_the_exact_density_is_that_of_torch():
    draw = torch.Generator().manual_seed(0)
    for name in ("full", "factor-analysis"):
        covariance = (
            accuracy.full_covariance(3, 10.0, draw)
            if name == "full"
            else accuracy.low_rank_covariance(name, 3, 1, 1.0, 1.0, draw)
        )
        found = accuracy.cell(name, "float64", covariance, 1e-6, draw)
        mixture = found.mixture
        theirs = torch.distributions.MultivariateNormal(mixture.means, mixture.covariance.dense())
        wanted = (theirs.log_prob(found.rows.unsqueeze(1)) + mixture.log_weights).logsumexp(-1)
        exact = [float(Exact(mixture).log_prob(row)) for row in found.rows]
        torch.testing.assert_close(torch.tensor(exact).double(), wanted)


def test_the_exact_factor_gives_the_matrix_back():
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    factor = torch.tensor([
        [float(v) for v in row] + [0.0] * (2 - len(row)) for row in cholesky(digits(matrix))
    ])
    torch.testing.assert_close(factor @ factor.mT, matrix)


def test_an_error_beyond_the_limit_is_a_failure(monkeypatch):
    monkeypatch.setitem(accuracy.WAYS, "plain", lambda m, x: m.log_prob(x) + 1e-3)
    (outcome,) = accuracy.run(quick=True)
    assert any("plain" in failure and "float64" in failure for failure in outcome.failures)
