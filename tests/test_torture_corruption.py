"""The quick part of the campaign with damaged files."""

import pytest
from torture._corruption.files import formats
from torture.corruption import mutants_of

FORMATS = formats()


@pytest.mark.parametrize("tried", FORMATS, ids=[f.name for f in FORMATS])
def test_mutants_are_refused_or_read(tried):
    outcome = mutants_of(tried, 60)
    assert outcome.tried == 60
    assert not outcome.failures
