"""The quick part of the campaign with damaged files."""

from torture import corruption


def test_damaged_files_are_refused_or_read():
    outcomes = corruption.run(quick=True)
    assert [f"{o.name}: {f}" for o in outcomes for f in o.failures] == []
    assert len(outcomes) >= 20
