"""Long use, in short: many clients of one explorer, and many fits in one process."""

from torture import soak


def test_answers_of_a_busy_explorer_are_the_librarys():
    outcome = soak.explorer(clients=12, seconds=4.0)
    assert outcome.failures == []
    assert outcome.tried > 12


def test_fits_one_after_the_other_hold_no_memory():
    assert soak.successive_fits(15).failures == []
