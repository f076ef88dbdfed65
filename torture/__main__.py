"""Run the campaign, or a part of it: python -m torture [PART ...] [--quick]."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mogul.compute.threads import usable_cores
from torture._apart import apart, tried
from torture.outcome import Outcome, table

SIDE_BY_SIDE = ("accuracy", "faults", "hostility", "suites")  # each keeps a core busy, or less


def parts() -> list[str]:
    """Return the names of all parts: modules that have `run(quick) -> list[Outcome]`."""
    here = Path(__file__).parent
    others = ("outcome",)
    return sorted(
        p.stem for p in here.glob("*.py") if not p.stem.startswith("_") and p.stem not in others
    )


def outcomes_of(names: list[str], quick: bool) -> list[Outcome]:
    """Run parts, those of one core side by side and then the others one after the other."""
    found: dict[str, list[Outcome]] = {}
    with ThreadPoolExecutor(len(SIDE_BY_SIDE)) as pool:
        begun = {n: pool.submit(apart, tried, n, quick) for n in names if n in SIDE_BY_SIDE}
        found |= {name: future.result() for name, future in begun.items()}
    for name in names:
        if name not in found:
            found[name] = tried(name, quick)
    return [outcome for name in names for outcome in found[name]]


def main() -> None:
    """Run the parts named, or all, and print one table; end with 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m torture")
    parser.add_argument("part", nargs="*", choices=[[], *parts()])
    parser.add_argument("--quick", action="store_true", help="what continuous integration runs")
    asked = parser.parse_args()
    since = time.perf_counter()
    outcomes = outcomes_of(asked.part or parts(), asked.quick)
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"{outcome.name}: {failure}")
    print(table(outcomes))
    print(f"in {(time.perf_counter() - since) / 60:.1f} minutes on {usable_cores()} cores")
    sys.exit(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    main()
