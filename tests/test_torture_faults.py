"""The quick part of the campaign with faults."""

from torture import faults


def test_faults_leave_files_whole_and_fits_go_on():
    outcomes = faults.run(quick=True)
    assert [f"{o.name}: {f}" for o in outcomes for f in o.failures] == []
    assert min(o.tried for o in outcomes) > 0
