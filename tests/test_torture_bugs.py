"""The campaign's bugs: all can still be seeded, and two of them are."""

import dataclasses

from torture import bugs


def test_every_bug_can_be_seeded_and_two_are_caught():
    (outcome,) = bugs.run(quick=True)
    assert outcome.tried == 2
    assert not outcome.failures


def test_there_are_many_bugs_all_over_the_library():
    assert len({bug.name for bug in bugs.BUGS}) == len(bugs.BUGS) >= 30
    folders = {bug.file.split("/")[0] for bug in bugs.BUGS}
    assert folders >= {
        "algorithms", "app", "compute", "data", "distributions", "evaluation", "models", "sklearn",
        "tasks",
    }  # fmt: skip


def test_a_bug_whose_text_is_gone_is_told():
    bug = bugs.BUGS[0]
    gone = dataclasses.replace(bug, old="no such text")
    assert "occurs 0 times" in str(bugs.broken(gone))
    assert "occurs" in str(bugs.broken(dataclasses.replace(bug, old="self")))
    assert "does not compile" in str(bugs.broken(dataclasses.replace(bug, new="= =")))
    assert "no tests" in str(bugs.broken(dataclasses.replace(bug, tests=("nothing",))))


def test_what_changes_nothing_survives(monkeypatch):
    monkeypatch.setattr(bugs, "tested", lambda bug, tests: 0)
    assert bugs.survives(bugs.BUGS[0]) == f"{bugs.BUGS[0].name}: survived all tests"
    monkeypatch.setattr(bugs, "tested", lambda bug, tests: 2)
    assert "pytest ended with 2" in str(bugs.survives(bugs.BUGS[0]))
    monkeypatch.setattr(bugs, "tested", lambda bug, tests: 0 if tests else 1)
    assert bugs.survives(bugs.BUGS[0]) is None  # caught by the suite
