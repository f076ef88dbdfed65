"""The examples people copy do run."""

import ast
import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import mogul
from command_line import run_command

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"(<!-- run -->\n\n?)?^```(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(mogul.__path__, "mogul.")
    if not name.endswith("__main__")
]


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(language, marked=False):
    """Return the fenced blocks of a language as parameters; the marked ones alone, if asked."""
    return [
        pytest.param(text, id=f"{name_of(page)}-{i}")
        for page in PAGES
        for i, (mark, kind, text) in enumerate(FENCED.findall(page.read_text()))
        if kind == language and (mark or not marked)
    ]


def commands_in(text):
    """Return the arguments of every `mogul` of some lines of shell, as the shell would."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r'"\$\w+', '"value', text)  # quoted variables are some value,
    text = re.sub(r"(?<!\S)\$(\w+|\(.*?\))", "", text)  # others nothing
    found = []
    for line in text.splitlines():
        words = [word for word in shlex.split(line, comments=True) if word != "…"]
        at = [i for i, word in enumerate(words) if word.split("/")[-1] == "mogul"]
        if at and (at[0] == 0 or words[at[0] - 1] == "-m" or "=" in words[at[0] - 1]):
            found.append(words[at[0] + 1 :])
    return found


def commands_of(page):
    """Return every command of a page, and whether it is whole: within the text parts may do."""
    text = page.read_text()
    fenced = [t for _, kind, t in FENCED.findall(text) if kind == "sh"]
    text = FENCED.sub("", text)
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    quoted = re.findall(r"(?<!`)`(mogul [^`]+)`(?!`)", text)
    lines = [(line, True) for line in [*fenced, *indented]]
    lines += [(" ".join(q.split()), False) for q in quoted]
    return [(c, whole) for line, whole in lines if "mogul" in line for c in commands_in(line)]


COMMANDS = [
    pytest.param(*command, id=f"{name_of(page)}-{i}")
    for page in PAGES
    for i, command in enumerate(commands_of(page))
]


def parse(words: list[str]) -> None:
    """Read a command as the command line does, and run nothing."""
    command: Any = typer.main.get_command(importlib.import_module("mogul.cli.main").app)
    if words[:1] in (["--install-completion"], ["--show-completion"]):  # act once they are read
        assert any(words[0] in option.opts for option in command.params)
        return
    name, rest, context = "mogul", list(words), None
    while command is not None:
        try:
            context = command.make_context(name, rest, parent=context)
        except typer.Exit:  # of an option such as --help, which ends there
            return
        rest, groups = [*context._protected_args, *context.args], hasattr(command, "commands")
        name, command, rest = command.resolve_command(context, rest) if groups else ("", None, [])


@pytest.mark.parametrize("block", blocks("python"))
def test_examples_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "example", "exec"), {})


@pytest.mark.parametrize("block", blocks("sh", marked=True))
def test_commands_on_shipped_data_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOGUL_DATA", raising=False)
    commands = commands_in(block)
    lines = re.sub(r"\\\n", " ", block).splitlines()
    assert len(commands) == len([line for line in lines if line.strip()])
    for command in commands:
        code, _, told = run_command(monkeypatch, capsys, *command)
        assert code == 0, told


@pytest.mark.parametrize(("command", "whole"), COMMANDS)
def test_every_command_is_understood(command, whole):
    try:
        parse(command)
    except Exception as error:
        if whole or type(error).__name__ != "MissingParameter":
            raise


def test_commands_that_do_not_exist_are_not_understood():
    for wrong in (["fit"], ["fit", "x", "--oputput", "y"], ["fitt"], ["demo", "mixtures"]):
        with pytest.raises(Exception, match=r"(?i)missing|no such"):
            parse(wrong)


def test_every_block_is_of_a_kind_that_is_checked():
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(FENCED.findall(page.read_text()))
        for _, kind, text in FENCED.findall(page.read_text()):
            titled = page.name == "coming_from.md" and kind.startswith("python title=")
            known = titled or kind in {"python", "sh", "yaml", "text"}  # test_coming_from's, ours
            assert known, f"{page.name}: {kind}"
            if kind == "yaml":  # of a cluster: the command begins at a line of its own
                assert [parse(c) for c in commands_in(text)] or "mogul fit" not in text


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_public_name_has_its_page():
    """A name that is also a module's is taken for the module unless it is asked for by itself."""
    told = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    for package in (ROOT / "src" / "mogul").glob("*/__init__.py"):
        names = re.findall(r"^__all__ = (\[.*?\])", package.read_text(), re.DOTALL | re.MULTILINE)
        where = f"::: mogul.{package.parent.name}"
        public = ast.literal_eval(names[0]) if names and "cli" not in where else []
        for name in public:
            assert f"{where}\n" in told
            if (package.parent / f"{name}.py").exists():
                assert f"{where}.{name}.{name}\n" in told


GALLERY = ROOT / "docs" / "gallery.md"
SHOWN_AS_MADE = ROOT / "docs" / "pictures" / "gallery"


def test_the_gallery_shows_all_its_pictures_and_they_are_small():
    shown = re.findall(r"!\[[^\]]+\]\(pictures/gallery/([^)]+)\)", GALLERY.read_text())
    assert sorted(shown) == sorted(path.name for path in SHOWN_AS_MADE.iterdir())
    sizes = {path.name: path.stat().st_size for path in SHOWN_AS_MADE.iterdir()}
    for name, size in sizes.items():
        assert size <= (600_000 if name.endswith(".gif") else 150_000), name
    assert sum(sizes.values()) <= 2_500_000


def test_commands_of_the_gallery_are_no_wider_than_its_page():
    commands = re.findall(r"```sh\n(.*?)```", GALLERY.read_text(), re.DOTALL)
    assert max(len(line) for block in commands for line in block.splitlines()) <= 88


def test_under_every_picture_of_the_gallery_is_the_command_that_made_it():
    for section in GALLERY.read_text().split("\n## ")[1:]:
        for picture in re.finditer(r"\(pictures/gallery/([^)]+)\)", section):
            below = section[picture.end() :]
            commands = "".join(re.findall(r"```sh\n(.*?)```", below, re.DOTALL))
            assert picture[1] in commands, picture[1]
