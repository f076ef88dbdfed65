"""Masks hide what they say, in all channels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mogul import InputError
from mogul.data import hide_random, parse_mask

SHAPE = (4, 6, 3)


@pytest.mark.parametrize(
    ("spec", "rows", "columns"),
    [
        ("left", slice(0, 4), slice(0, 3)),
        ("right", slice(0, 4), slice(3, 6)),
        ("top", slice(0, 2), slice(0, 6)),
        ("bottom", slice(2, 4), slice(0, 6)),
        ("centre", slice(1, 3), slice(1, 4)),
        ("rectangle:1,2,2,3", slice(1, 3), slice(2, 5)),
    ],
)
def test_boxes(spec, rows, columns):
    expected = np.ones((2, *SHAPE), bool)
    expected[:, rows, columns] = False
    mask = parse_mask(spec, 2, SHAPE)
    np.testing.assert_array_equal(mask.numpy().reshape(2, *SHAPE), expected)


@settings(max_examples=20, deadline=None)
@given(fraction=st.floats(0.05, 0.95), seed=st.integers(0, 100))
def test_random_pixels_lose_all_their_channels(fraction, seed):
    mask = hide_random(200, SHAPE, fraction, seed).numpy().reshape(200, *SHAPE)
    assert (mask == mask[..., :1]).all()
    assert abs((~mask).mean() - fraction) < 0.05
    np.testing.assert_array_equal(hide_random(200, SHAPE, fraction, seed).reshape(mask.shape), mask)


@pytest.mark.parametrize("shape", [SHAPE, SHAPE[:2], (2, *SHAPE), (2, *SHAPE[:2])])
def test_files_of_every_allowed_shape(tmp_path, shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    np.save(tmp_path / "m.npy", mask)
    got = parse_mask(str(tmp_path / "m.npy"), 2, SHAPE).numpy().reshape(2, *SHAPE)
    wide = mask if shape[-1] == 3 else mask[..., None]
    np.testing.assert_array_equal(got, np.broadcast_to(wide, (2, *SHAPE)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("diagonal", "not understood"),
        ("random:lots", "not understood"),
        ("random:1.5", "between 0 and 1"),
        ("rectangle:1,2", "not understood"),
        ("rectangle:3,0,2,2", "inside the image"),
        ("rectangle:0,0,0,2", "inside the image"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        parse_mask(spec, 2, SHAPE)


def test_bad_files_are_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.ones((3, 3), bool))
    with pytest.raises(InputError, match=r"shape \(3, 3\) came"):
        parse_mask(str(tmp_path / "m.npy"), 2, SHAPE)
    np.save(tmp_path / "m.npy", np.ones(SHAPE))
    with pytest.raises(InputError, match="must be boolean"):
        parse_mask(str(tmp_path / "m.npy"), 2, SHAPE)
    with pytest.raises(InputError, match="for images"):
        parse_mask("left", 2, (5,))
    assert parse_mask("random:0.5", 2, (5,)).shape == (2, 5)
