"""The command line: `mogul`."""

from mogul.cli.main import main

__all__ = ["main"]
