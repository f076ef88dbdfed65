"""What each library can do: the table of docs/comparison.md, each claim checked by running it.

python -m benchmarks features [--evidence FILE]. Libraries that are not installed are printed so; a
claim that does not hold ends the command with an error.
"""

import argparse
import logging
from pathlib import Path

from benchmarks.peers import (
    ours,
    pomegranate,
    pythae,
    scikit_learn,
    tgmm,
    torch_mfa,
    torchgmm,
    zuko,
)
from benchmarks.peers.claims import FEATURES, ClaimError, Library

LIBRARIES = [
    module.LIBRARY
    for module in (ours, scikit_learn, pomegranate, tgmm, torchgmm, torch_mfa, zuko, pythae)
]


def table(libraries: list[Library], short: bool = False) -> str:
    """Write the marks as a table, with footnotes where a thing is partly so."""
    notes: list[str] = []
    lines = ["| | " + " | ".join(library.name for library in libraries) + " |"]
    lines.append("|---|" + ":-:|" * len(libraries))
    for key, feature in FEATURES.items():
        if short and not feature.in_short:
            continue
        cells = []
        for library in libraries:
            note = library.claims[key].note if key in library.claims else ""
            if note and not short:
                notes += [note] if note not in notes else []
                cells.append(f"{library.mark(key)} <sup>{notes.index(note) + 1}</sup>")
            else:
                cells.append(library.mark(key))
        lines.append(
            f"| {feature.in_short if short else feature.name} | " + " | ".join(cells) + " |"
        )
    return "\n".join([*lines, "", *(f"{i}. {note}" for i, note in enumerate(notes, 1))]).strip()


def checked(library: Library) -> tuple[list[str], list[str]]:
    """Check all claims about a library; return lines of evidence, and what does not hold."""
    if library.version is None and any(callable(c.evidence) for c in library.claims.values()):
        return ["not installed"], []
    lines, wrong = [], []
    for key, feature in FEATURES.items():
        by_documents = library.version is None
        try:
            if by_documents and key not in library.claims:
                seen = "no such thing in its README or its example scripts"
            else:
                seen = library.check(key, feature.words)
        except ClaimError as fault:
            seen = f"DOES NOT HOLD: {fault}"
            wrong.append(f"{library.name}, {feature.name}: {fault}")
        lines.append(f"{library.mark(key)} {feature.name}: {' '.join(seen.split())}")
    return lines, wrong


def main() -> None:
    """Check, print, and write the evidence if asked.

    Raises:
        SystemExit: if a claim does not hold.
    """
    parser = argparse.ArgumentParser(prog="features", description=__doc__)
    parser.add_argument("--evidence", type=Path, help="write every line of evidence to this file")
    parser.add_argument("--only", help="check this library alone")
    parser.add_argument("--short", action="store_true", help="print the short table of the README")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    pages, wrong = [], []
    for library in LIBRARIES:
        if chosen.only in (None, library.name):
            lines, faults = checked(library)
            wrong += faults
            heading = f"## {library.name} {library.version or ''}".strip()
            pages.append("\n\n".join([heading, "\n".join(f"- {line}" for line in lines)]))
    print("\n\n".join(pages), "\n\n" + table(LIBRARIES, chosen.short))
    absent = [x.name for x in LIBRARIES if x.version is None]
    print(f"\nnot installed: {', '.join(absent) or 'none'}")
    if chosen.evidence:
        start = "# Evidence\n\nWritten by `python -m benchmarks features --evidence FILE`."
        chosen.evidence.write_text("\n\n".join([start, *pages]) + "\n")
    if wrong:
        raise SystemExit("claims that do not hold:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
