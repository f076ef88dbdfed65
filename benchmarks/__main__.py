"""Run a benchmark by name: python -m benchmarks speed."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the module named first, with the remaining arguments.

    Raises:
        SystemExit: if there is none of that name.
    """
    names = sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if not path.stem.startswith("_") and path.stem != "libraries"
    )
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        raise SystemExit(f"usage: python -m benchmarks NAME, one of: {', '.join(names)}")
    sys.argv = sys.argv[1:]
    runpy.run_module(f"benchmarks.{sys.argv[0]}", run_name="__main__")


if __name__ == "__main__":
    main()
