"""Rows held out at random for tests."""

from __future__ import annotations

import numpy as np

from mogul.errors import InputError

SPLITS = ("train", "test")


def split_rows(n: int, share: float, split: str, seed: int, name: str) -> np.ndarray:
    """Return the numbers of the rows of a split, rising: each row is in one of the two.

    Args:
        n: rows there are.
        share: of them that are for tests, drawn without replacement, rounded to whole rows.
        split: "train" or "test".
        seed: seed of the draw.
        name: what to call the data in errors.

    Raises:
        InputError: if the share is not between 0 and 1, or one of the splits would have no row, or
            there is no such split.
    """
    if not 0 < share < 1:
        raise InputError(
            f"The share of rows for tests is {share}; it must lie between 0 and 1, such as 0.1."
        )
    if split not in SPLITS:
        raise InputError(f"Unknown split '{split}' of {name}; choose train or test.")
    n_test = round(share * n)
    if not 0 < n_test < n:
        raise InputError(
            f"{name} has {n} row(s), and {share:g} of them for tests would be {n_test}; choose a "
            "share that leaves a row on either side."
        )
    drawn = np.random.default_rng(seed).permutation(n)
    return np.sort(drawn[:n_test] if split == "test" else drawn[n_test:])
