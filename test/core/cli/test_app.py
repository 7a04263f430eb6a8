from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich import markup as rich_text

import elysium_core
from elysium_core.cli import registry
from elysium_core.cli.registry import VERBS, Verb, load_verb
from elysium_core.errors import ConfigError

COMMAND = [sys.executable, "-c", "from elysium_core.cli.app import main; main()"]
INSTALLED = [verb for verb in VERBS if registry.find_spec(verb.module)]
# `elysium ros` hands --help, too, to a process of its own.
OWN_HELP = [verb for verb in INSTALLED if verb.name != "ros"]


def run_process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(elysium_core.__file__).parents[1])}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=100, **options)


def test_without_a_verb_the_help_is_shown(elysium):
    for arguments in ([], ["--help"], ["-h"]):
        outcome = elysium(*arguments)
        assert outcome.code == 0
        for verb in INSTALLED:
            assert verb.name in outcome.out


@pytest.mark.parametrize("verb", OWN_HELP, ids=lambda verb: verb.name)
def test_every_verb_explains_itself(elysium, verb):
    outcome = elysium(verb.name, "--help")
    assert outcome.code == 0
    assert "Usage" in outcome.out
    assert verb.name in outcome.out


def all_commands(command, path=()):
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from all_commands(child, (*path, name))


@pytest.mark.parametrize("verb", OWN_HELP, ids=lambda verb: verb.name)
def test_no_unit_is_taken_for_markup(verb):
    for path, command in all_commands(load_verb(verb)):
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            shown = rich_text.render(text).plain
            assert shown == text.replace("\\[", "["), (path, parameter.name)


def test_the_version_is_that_of_the_package(elysium):
    assert elysium("--version").out == f"elysium {elysium_core.__version__}\n"


HEAVY = "['torch', 'transformers', 'cv2', 'av', 'PIL', 'huggingface_hub', 'rclpy']"


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom elysium_core.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=100)
    assert finished.stderr.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["grund"],
        ["--wrong"],
        ["ground"],
        ["track", "v.mp4", "--limit", "x"],
        ["track", "v.mp4", "--limit", "0"],
        ["eval", "report", "--x"],
    ],
)
def test_a_mistyped_command_is_one_line_and_code_2(elysium, arguments):
    outcome = elysium(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("elysium: ")
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("typed", "meant"), [("trak", "track"), ("grund", "ground"), ("Describe", "describe"), ("evel", "eval")]
)
def test_a_misspelt_verb_is_answered_with_the_right_one(elysium, typed, meant):
    outcome = elysium(typed, "v.mp4")
    assert outcome.code == 2
    assert repr(meant) in outcome.err


def test_a_verb_that_resembles_none_is_answered_with_none(elysium):
    assert "mean" not in elysium("xyzzy").err


@pytest.mark.parametrize(
    ("old", "new"), [("--precision", "--dtype"), ("--backend", "--vision-backend"), ("--quantize", "--quantization")]
)
def test_other_names_of_an_option_are_taken(elysium, image, old, new):
    ground = ("ground", image, "-e", "the hat")
    outcomes = [elysium(*ground, name, "nonsense") for name in (old, new)]
    assert [outcome.code for outcome in outcomes] == [2, 2]
    assert "nonsense" in outcomes[0].err
    assert outcomes[0].err == outcomes[1].err


@pytest.mark.parametrize(
    ("words", "completed"), [("elysium tra", ["track", "train"]), ("elysium track --exp", ["--expression"])]
)
def test_a_shell_completes_verbs_and_options_at_once(words, completed):
    environment = {"_ELYSIUM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = (
        "import sys; sys.argv[0] = 'elysium'\nfrom elysium_core.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ['torch', 'transformers'] if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.stdout.split() == completed
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_with_json_the_reason_is_an_object_too(elysium):
    outcome = elysium("ground", "/no/such.png", "-e", "mug", "--json")
    assert outcome.code == 2
    assert outcome.lines == [{"error": {"code": "IMG_MISSING", "message": "there is no image file '/no/such.png'"}}]
    assert outcome.err == "elysium: there is no image file '/no/such.png'\n"


def test_a_verb_whose_package_is_missing_says_which(tmp_path, monkeypatch):
    (tmp_path / "needs_something.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="'needs' needs the package 'a_package_that_nobody_has'"):
        load_verb(Verb("needs", "needs_something", "help"))


def test_a_verb_that_is_not_installed_is_unknown(elysium, monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda module: None)
    assert "No such command 'track'" in elysium("track").err


def test_the_table_is_in_order():
    assert len({verb.name for verb in VERBS}) == len(VERBS)
    assert all(verb.help.endswith(".") and len(verb.help) < 70 for verb in VERBS)


def test_results_and_reasons_go_to_different_streams(video, tmp_path):
    good = run_process("track", video, "-m", "identity", "-e", "the mug", "--json", "--out", tmp_path / "a.jsonl")
    assert good.returncode == 0
    assert [json.loads(line)["frame"] for line in good.stdout.splitlines()] == list(range(12))
    assert good.stderr == f"elysium: wrote {tmp_path / 'a.jsonl'}\n"

    bad = run_process("track", video, "-m", "identity", "-e", "<image>")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.count("\n") == 1
    assert "Traceback" not in bad.stderr


def test_a_reader_that_goes_away_is_no_error(video):
    command = " ".join([sys.executable, "-c", "'from elysium_core.cli.app import main; main()'"])
    line = f"{command} track {video} -m identity -e mug --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(elysium_core.__file__).parents[1])}
    finished = subprocess.run(
        ["bash", "-c", line], check=False, capture_output=True, text=True, env=environment, timeout=100
    )
    assert finished.returncode == 0
    assert finished.stderr == ""
    assert len(finished.stdout.splitlines()) == 1


def test_output_in_a_poor_encoding_is_escaped(image):
    environment = {"PYTHONPATH": str(Path(elysium_core.__file__).parents[1]), "PYTHONIOENCODING": "ascii"}
    command = [*COMMAND, "ground", str(image), "-m", "identity", "-e", "杯子"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=100)
    assert finished.returncode == 0
    assert finished.stdout.startswith("\\u676f\\u5b50: ")
