"""Processor seconds until something is seen: of help, of a tab in the shell, of an import.

python -m benchmarks startup [--times 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

_RUN = "import sys; sys.argv[0] = 'mogul'; from mogul.cli import main; main()"
_LINE = "mogul fit digits --model m"
_TAB = {"_MOGUL_COMPLETE": "complete_bash", "COMP_WORDS": _LINE, "COMP_CWORD": "4"}


def main() -> None:
    """Print user and system seconds of each, the median of some runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    runs = {
        "mogul --help": ([_RUN, "--help"], {}),
        "mogul fit --help": ([_RUN, "fit", "--help"], {}),
        "mogul --version": ([_RUN, "--version"], {}),
        f"a tab after {_LINE}": ([_RUN], _TAB),
        "import mogul": (["import mogul"], {}),
    }
    print("| what | processor seconds | lowest, highest |\n|---|---|---|")
    for name, (arguments, environment) in runs.items():
        found = [_seconds([sys.executable, "-c", *arguments], environment) for _ in range(times)]
        print(f"| {name} | {statistics.median(found):.2f} | {min(found):.2f}, {max(found):.2f} |")


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    """Return what a command takes of processors, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, env=os.environ | environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
