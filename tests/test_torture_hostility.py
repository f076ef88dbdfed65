"""The quick part of the campaign with hostile names and requests."""

from torture import hostility


def test_names_are_text_and_strangers_are_refused():
    outcomes = hostility.run(quick=True)
    assert [f"{o.name}: {f}" for o in outcomes for f in o.failures] == []
    assert len(outcomes) >= 11
