"""Run the campaign, or a part of it: python -m torture [PART ...] [--quick]."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from torture.outcome import Outcome, table


def parts() -> list[str]:
    """Return the names of all parts: modules that have `run(quick) -> list[Outcome]`."""
    here = Path(__file__).parent
    others = ("outcome",)
    return sorted(
        p.stem for p in here.glob("*.py") if not p.stem.startswith("_") and p.stem not in others
    )


def main() -> None:
    """Run the parts named, or all, and print one table; end with 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m torture")
    parser.add_argument("part", nargs="*", choices=[[], *parts()])
    parser.add_argument("--quick", action="store_true", help="what continuous integration runs")
    asked = parser.parse_args()
    outcomes: list[Outcome] = []
    for name in asked.part or parts():
        since = time.perf_counter()
        outcomes += importlib.import_module(f"torture.{name}").run(asked.quick)
        print(f"{name}: {time.perf_counter() - since:.0f} s", file=sys.stderr)
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"{outcome.name}: {failure}")
    print(table(outcomes))
    sys.exit(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    main()
