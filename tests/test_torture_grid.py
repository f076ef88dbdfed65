"""The quick part of the campaign: nasty inputs, each with some models."""

import math
from dataclasses import replace

import pytest
import torch
from torture import grid
from torture._grid.inputs import FITS, REFUSED, Input, base
from torture._grid.judge import faults, refusal, tried
from torture._grid.subjects import Result, subjects

from mogul import InputError


def test_every_input_gives_a_right_result_or_one_clear_error():
    (outcome,) = grid.run(quick=True)
    assert not outcome.failures
    assert outcome.tried > 500


def subject():
    """EM of full covariances."""
    return next(iter(subjects()))


def test_there_are_enough_inputs_under_names_of_their_own():
    names = [case.name for case in grid.all_inputs()]
    assert len(set(names)) == len(names) >= 120


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (RuntimeError("The rows have 3 features and the model 4; build another."), "undocumented"),
        (InputError("linalg.cholesky: the input is not positive-definite, sorry."), "obscure"),
        (InputError("no"), "obscure"),
    ],
)
def test_obscure_messages_are_failures(error, word):
    verdict, complaints = refusal(error, REFUSED, subject())
    assert verdict == "failed"
    assert word in complaints[0]


def test_a_refusal_of_what_should_fit_is_a_failure():
    error = InputError("The rows have 3 features and the model 4; build another.")
    assert refusal(error, FITS, subject())[0] == "failed"
    assert refusal(error, REFUSED, subject())[0] == "refused"


def test_what_must_be_refused_is_a_failure_if_it_is_taken():
    case = Input("benign", base, REFUSED)
    assert tried(case, subject(), torch.float64)[0] == "failed"


def test_wrong_results_are_seen():
    case = Input("benign", base)
    right = subject().run(case, torch.float64)
    assert not faults(right, case, torch.float64)
    mixture, rows, ways = right.scored[0]
    shifted = {name: value + 1e-4 for name, value in ways.items()}
    wrong = [
        replace(right, scored=[(mixture, rows, shifted)]),
        replace(right, numbers={"means": torch.tensor([math.nan])}),
        replace(right, shares={"weights": torch.tensor([0.5, 0.4])}),
        replace(right, history=[*right.history, {"objective": -1e3, "events": []}]),
        Result(history=[{"objective": math.nan, "events": []}]),
    ]
    assert all(faults(result, case, torch.float64) for result in wrong)


def test_a_twin_that_fits_otherwise_is_seen():
    case = Input("other rows", base, twin=lambda t: base(t, seed=1))
    assert "twin" in tried(case, subject(), torch.float64)[1][0]
