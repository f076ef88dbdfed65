"""Does the test suite bite? Plausible bugs, one at a time, in a copy of the library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mogul.compute.threads import usable_cores
from torture._bugs import BUGS, Bug
from torture.outcome import Outcome

ROOT = Path(__file__).parents[1]
QUICK = ("weights enter as π, not as log π", "KL the wrong way round")
_LONGEST = 1_200  # seconds of a run of tests: a bug may make one wait for ever
_PASSED, _FAILED = 0, 1  # what pytest ends with


def run(quick: bool) -> list[Outcome]:
    """Seed every bug, or, if it must be quick, look at them all and seed two."""
    wrong = [told for bug in BUGS if (told := broken(bug)) is not None]
    if quick:
        chosen = [bug for bug in BUGS if bug.name in QUICK]
    else:
        chosen = BUGS
        files = sorted({name for bug in BUGS for name in bug.tests})
        with ThreadPoolExecutor(usable_cores()) as pool:
            sound = list(pool.map(lambda name: tested(None, (name,)), files))
        wrong += [
            f"tests/test_{name}.py fails without any bug, and so catches none"
            for name, code in zip(files, sound, strict=True)
            if code != _PASSED
        ]
    with ThreadPoolExecutor(1 if quick else usable_cores()) as pool:
        wrong += [told for told in pool.map(survives, chosen) if told is not None]
    note = f"{len(BUGS)} bugs known; {len(chosen)} seeded, each against the tests"
    return [Outcome("bugs", len(chosen), wrong, note)]


def broken(bug: Bug) -> str | None:
    """Tell what is wrong with a bug itself: its text is not there once, or it does not compile."""
    path = ROOT / "src/mogul" / bug.file
    source = path.read_text(encoding="utf-8")
    found = source.count(bug.old)
    if found != 1:
        return f"{bug.name}: its text occurs {found} times in {bug.file}"
    missing = [name for name in bug.tests if not (ROOT / f"tests/test_{name}.py").exists()]
    if missing:
        return f"{bug.name}: there is no tests/test_{missing[0]}.py"
    try:
        compile(source.replace(bug.old, bug.new), bug.file, "exec")
    except SyntaxError as error:
        return f"{bug.name}: it does not compile: {error}"
    return None


def survives(bug: Bug) -> str | None:
    """Seed a bug and run its tests, then all others; tell if none of them catches it."""
    for tests in (bug.tests, ()):
        code = tested(bug, tests)
        if code == _FAILED:
            return None
        if code != _PASSED:
            return f"{bug.name}: pytest ended with {code}, which is no failure of a test"
    return f"{bug.name}: survived all tests"


def tested(bug: Bug | None, tests: tuple[str, ...]) -> int:
    """Run tests, or with none named the suite, on a copy with a bug; return pytest's exit code."""
    with _copied(bug) as source, tempfile.TemporaryDirectory() as kept:
        left_out = ("MOGUL_DATA", "PYTHONPATH")  # real data make runs longer, and unlike
        own = {name: value for name, value in os.environ.items() if name not in left_out}
        own |= {
            "PYTHONPATH": str(source),
            "OMP_NUM_THREADS": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": kept,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        files = [f"tests/test_{name}.py" for name in tests]
        ignored = [f"--ignore={path}" for path in ROOT.glob("tests/test_torture_*.py")]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        # A group of its own, so that what a test began ends with it.
        process = subprocess.Popen(
            [*command, *files, *ignored], cwd=ROOT, env=own, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return process.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return _FAILED  # a test that waits for ever has caught it


@contextmanager
def _copied(bug: Bug | None) -> Generator[Path]:
    """Yield a copy of the library's sources with the bug in it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        if bug is not None:
            path = source / "mogul" / bug.file
            path.write_text(
                path.read_text(encoding="utf-8").replace(bug.old, bug.new), encoding="utf-8"
            )
        yield source
