"""The command line, run within the test process."""

import sys

import pytest

from mogul.cli import main


def run_command(monkeypatch, capsys, *arguments):
    """Run a command line; return its exit code, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["mogul", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err
