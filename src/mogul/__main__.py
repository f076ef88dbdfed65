"""Run the command line: `python -m mogul`."""

from mogul.cli import main

main()
