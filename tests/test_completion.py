"""What shells are offered, by the protocol that their scripts speak."""

import os
import subprocess
import sys

import pytest

from mogul.algorithms import PARTICLE_ALGORITHMS, PRESETS
from mogul.algorithms.initialise import METHODS
from mogul.cli import completion, fit
from mogul.data import masks
from mogul.data.known import KNOWN
from mogul.distributions import families
from mogul.models import DECODERS, LIKELIHOODS
from mogul.models.gaussian_mixture import SHARINGS

HEAVY = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL")


def asked(after="", **told):
    """Run `mogul` as a completion script does; return the lines it prints."""
    code = "import sys; sys.argv[0] = 'mogul'; from mogul.cli import main\n"
    code += f"try: main()\nfinally:\n    {after or 'pass'}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | told,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def bash(line, after=""):
    """What bash is offered for the last word of a line."""
    return asked(
        after, COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1),
        _MOGUL_COMPLETE="complete_bash",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mogul in", {"inpaint"}),
        ("mogul fit d", {"digits", "digits:train", "digits:test"}),
        ("mogul fit mnist:te", {"mnist:test"}),
        ("mogul fit x.np", set()),  # bash then offers files
        ("mogul fit digits --model m", {"mppca", "mfa", "mdn"}),
        ("mogul fit digits --covariance fu", {"full", "full-covariance"}),
        ("mogul fit digits --start k", {"k-means", "k-means++"}),
        ("mogul fit digits --algorithm p", {"pga", "pqn", "pmga"}),
        ("mogul fit digits --algorithm t", {"truncated-em"}),
        ("mogul fit digits --preset mnist", {"mnist-small", "mnist-note", "mnist-paper"}),
        ("mogul inpaint m digits --mask r", {"right", "rectangle:", "random:"}),
        ("mogul score m.mogul fa", {"fashion-mnist", *completion.SPLITS[4:6]}),
        ("mogul explore m.mogul mnist:te", {"mnist:test"}),
        ("mogul fit digits --tens", {"--tensorboard"}),
    ],
)
def test_values_are_offered(line, offered):
    assert set(filter(None, bash(line))) == offered


def test_other_shells_are_offered_the_same():
    line = {"_TYPER_COMPLETE_ARGS": "mogul fit digits --start t"}
    zsh = asked(**line, _MOGUL_COMPLETE="complete_zsh")
    assert "truncated-k-means" in "".join(zsh)
    assert "afk" not in "".join(zsh)
    files = {"_TYPER_COMPLETE_ARGS": "mogul fit ./x"}
    assert asked(**files, _MOGUL_COMPLETE="complete_zsh") == ["_files"]
    told = {"_MOGUL_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert asked(**line, **told) == ["truncated-k-means"]


def test_nobody_waits_for_heavy_libraries_at_a_tab():
    after = f"print(*(set({HEAVY}) & sys.modules.keys()))"
    assert bash("mogul fit digits --model vae", after) == ["vae", ""]


def test_what_is_offered_is_what_there_is():
    names = {name for cls in families().values() for name in (cls.name, *cls.aliases)}
    assert set(completion.FAMILIES) == names
    assert set(completion.MODELS) == names | {"decoder", "vae", "mdn"}
    assert completion.SHARINGS == SHARINGS
    assert completion.STARTS == METHODS
    assert tuple(fit._OF_ALGORITHM) == completion.MIXTURE_ALGORITHMS
    assert tuple(PARTICLE_ALGORITHMS) == completion.PARTICLE_ALGORITHMS
    assert tuple(PRESETS) == completion.PRESETS
    assert tuple(DECODERS) == completion.DECODERS
    assert tuple(LIKELIHOODS) == completion.LIKELIHOODS
    assert tuple(KNOWN) == completion.DATA_SETS
    assert completion.MASKS[:4] == masks.SIDES
    for mask in completion.MASKS:
        whole = {"rectangle:": "rectangle:0,0,2,2", "random:": "random:0.5"}.get(mask, mask)
        assert masks.parse_mask(whole, 2, (4, 4)).shape == (2, 16)


def test_the_script_of_a_shell_is_shown():
    code = "import sys; sys.argv[0] = 'mogul'; from mogul.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--show-completion", "bash"], capture_output=True, text=True,
        check=True, env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )  # fmt: skip
    assert "_MOGUL_COMPLETE=complete_bash" in done.stdout
