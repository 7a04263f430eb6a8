"""The documents name only what exists: files, modules, commands with their options, ROS names, links.

A reader who copies a line from README.md, CONTRIBUTING.md or docs/ must not find that it was renamed.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "training/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINKING = [*DOCUMENTS, ROOT / "CHANGELOG.md", *sorted((ROOT / ".github").rglob("*.md"))]
WITHOUT_ROS = pytest.mark.skipif(find_spec("rclpy") is None, reason="ROS is not installed")

# Options of other programs that the documents mention by themselves.
FOREIGN_OPTIONS = {"--break-system-packages", "--hook-type", "--shm-size", "--show-args"}


def named(path: Path) -> str:
    """Return the name of a document in test ids."""
    return str(path.relative_to(ROOT))


def spans(text: str) -> Iterator[str]:
    """Yield everything that is set as code: each line of a block, continuations joined, and each span in backticks.

    Blocks of Python and changes to files are left out: they are run by tests.
    """
    prose = re.sub(r"^```(?:python|diff)\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in re.findall(r"^```\w*\n(.*?)^```$", prose, flags=re.DOTALL | re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```\w*\n.*?^```$", "", prose, flags=re.DOTALL | re.MULTILINE)
    assert "```" not in prose, "a code block is not closed"
    yield from (found.replace("\n", " ") for found in re.findall(r"`([^`]+)`", prose))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command line in a document, without what it is piped to and settings before it."""
    for span in spans(text):
        for part in re.split(r"&&|;|\s\|\s", re.sub(r"(^|\s)#.*", "", span)):
            try:
                words = shlex.split(part)
            except ValueError:  # half a command in prose
                words = part.split()
            while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
                words.pop(0)
            if words:
                yield words


@cache
def tracked() -> frozenset[str]:
    """Return all files of the repository, by their paths."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split("\0") if listed.returncode == 0 else map(str, _walk())
    return frozenset(name for name in names if name and (ROOT / name).is_file())


def _walk() -> Iterator[Path]:
    """All files of a source tree that is no git checkout."""
    hidden = {".venv", "build", "install", "log"}
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT)
        if inside.parts[0] not in hidden and path.is_file():
            yield inside


@cache
def folders() -> frozenset[str]:
    return frozenset(str(parent) for name in tracked() for parent in Path(name).parents)


def exists(path: str) -> bool:
    """Whether a path from the root of the repository, perhaps with placeholders, leads to something."""
    pattern = re.sub(r"<\w+>|\{\w+\}|NAME", "*", path.rstrip("/"))
    return any(fnmatch.fnmatchcase(name, pattern) for name in (*tracked(), *folders()))


def paths(text: str) -> Iterator[str]:
    """Yield what looks like a path of this repository: it begins with one of its folders, or is Python or ROS."""
    first = "|".join(re.escape(name) for name in sorted(folders()) if "/" not in name and name != ".")
    for span in spans(text):
        # Not behind a variable or another path; a module of Python is a path only with its suffix.
        yield from re.findall(rf"(?<![\w/.)$:~-])(?:\./)?((?:{first})/[\w./*<>{{}}-]*[\w/>*}}-])", span)
        yield from re.findall(
            r"(?<![\w/.*<>-])((?:[\w-]+/)*[\w-]+(?:\.launch)?\.(?:py|msg|srv|action))(?![\w/(])", span
        )


def missing_paths(text: str) -> set[str]:
    """Return the paths of a document that lead nowhere; a module may be named from inside its package."""
    files = tracked()
    return {
        path
        for path in paths(text)
        if not (exists(path) or interface(path) or any(name.endswith(f"/{path}") for name in files))
    }


def module_exists(name: str) -> bool:
    """Whether ``python -m name`` has something to run; first-party modules are not imported for this."""
    top, path = name.partition(".")[0], ROOT / name.replace(".", "/")
    if top in ("bench", "elysium_core", "elysium_ros", "tools"):
        return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    return find_spec(top) is not None


def unknown_names(text: str) -> set[str]:
    """Return dotted names of our packages, such as ``elysium_core.api.Elysium``, that no module defines."""
    unknown = set()
    for span in spans(text):
        for name in re.findall(r"(?<![\w./])((?:elysium_core|elysium_ros|bench)(?:\.\w+)+)(?![\w/])", span):
            parts = name.split(".")
            files = [ROOT.joinpath(*parts[:end]).with_suffix(".py") for end in range(len(parts), 1, -1)]
            files += [ROOT.joinpath(*parts[:end], "__init__.py") for end in range(len(parts), 0, -1)]
            file = next((file for file in files if file.is_file()), None)
            rest = (
                parts[len(file.relative_to(ROOT).with_suffix("").parts) - (file.stem == "__init__") :] if file else []
            )
            source = file.read_text(encoding="utf-8") if file else ""
            generated = name.startswith(("elysium_ros.msg", "elysium_ros.srv", "elysium_ros.action"))
            if not generated and (file is None or (rest and not re.search(rf"\b{rest[0]}\b", source))):
                unknown.add(name)
    return unknown


@cache
def verb_options(words: tuple[str, ...]) -> frozenset[str]:
    """Return the options of a command line that begins ``elysium WORDS``, or ``python -m bench WORDS``.

    Raises:
        KeyError: There is no such verb or benchmark.
    """
    from bench.app import BENCHMARKS
    from elysium_core.cli.registry import VERBS, load_verb

    if words[0] == "ros":
        return source_options("elysium_ros/client/command.py")
    if words[:2] == ("bench", "node"):
        return source_options("bench/node.py")
    verbs = {verb.name: verb for verb in VERBS}
    if words[0] == "bench":
        verbs, words = {verb.name: verb for verb in BENCHMARKS}, words[1:]
    command = load_verb(verbs[words[0]])
    inner = getattr(command, "commands", {})
    # `elysium eval NAME` is short for `elysium eval run NAME`.
    parts = [command, *([inner[words[1]]] if words[1:] and words[1] in inner else inner.values())]
    names = (name for part in parts for option in part.params for name in (*option.opts, *option.secondary_opts))
    return frozenset({"-h", "--help", *names})


def source_options(path: str) -> frozenset[str]:
    """Return the options that a file of Python names."""
    return frozenset({"--help", *re.findall(r'"(--?[a-z][a-z-]*)"', (ROOT / path).read_text(encoding="utf-8"))})


def wrong_in_elysium(words: list[str]) -> list[str]:
    """Return what is wrong in the words behind ``elysium``: a verb or options that do not exist."""
    from elysium_core.cli.registry import VERBS

    if not words or not re.fullmatch(r"[a-z]+", words[0]):
        of_the_command = ("--version", "--help", "-v", "--verbose", "--install-completion", "--show-completion")
        return [word for word in words if word.startswith("-") and word not in of_the_command]
    if words[0] not in {verb.name for verb in VERBS if find_spec(verb.module)}:
        return [f"elysium {words[0]}"]
    return wrong_options(words, verb_options(tuple(words[:2])))


def wrong_in_bench(words: list[str]) -> list[str]:
    """Return what is wrong in the words behind ``python -m bench``."""
    if not words or not re.fullmatch(r"[a-z]+", words[0]):
        return []
    try:
        return wrong_options(words, verb_options(("bench", words[0])))
    except KeyError:
        return [f"bench {words[0]}"]


def wrong_options(words: list[str], known: frozenset[str]) -> list[str]:
    options = (word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word))
    return [f"{' '.join(words[:2])} ... {option}" for option in options if option not in known]


def wrong_in_command(words: list[str]) -> list[str]:
    """Return what is wrong in one command line; nothing for programs that are not ours."""
    program = Path(words[0]).name
    if program == "elysium":
        return wrong_in_elysium(words[1:])
    if program == "make":
        return wrong_in_make(words[1:])
    if program == "ros2":
        return wrong_in_ros2(words[1:])
    if "-m" in words and program.startswith(("python", "torchrun", "accelerate")):
        module, rest = words[words.index("-m") + 1], words[words.index("-m") + 2 :]
        if not module_exists(module):
            return [f"-m {module}"]
        if module == "elysium_core.cli":
            return wrong_in_elysium(rest)
        if module.startswith("bench"):
            return wrong_in_bench([*module.split(".")[1:], *rest])
        if module == "elysium_ros.demo":
            return wrong_options(rest, source_options("elysium_ros/demo/demo.py"))
    return []


def wrong_in_make(words: list[str]) -> list[str]:
    """Return targets that do not exist, and what is wrong in the ARGS of benchmarks."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in words if re.fullmatch(r"[a-z]+", word)]
    wrong = [f"make {target}" for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)]
    for word in words:
        if "bench" in targets and word.startswith("ARGS="):
            wrong += wrong_in_bench(word.removeprefix("ARGS=").split())
    return wrong


def wrong_in_ros2(words: list[str]) -> list[str]:
    """Return launch files, their arguments, programs and interfaces that do not exist."""
    wrong = [f"{name} is no interface" for name in words if re.match(r"elysium_ros/\w+/", name) and not interface(name)]
    if words[:2] == ["launch", "elysium_ros"]:
        sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "launch").glob("*.py"))
        wrong += [name for name in words[2:3] if not (ROOT / "launch" / name).is_file()]
        given = [match[1] for word in words[3:] if (match := re.match(r"(\w+):=", word))]
        wrong += [f"{name}:=" for name in given if f'"{name}"' not in sources]
    if words[:2] == ["run", "elysium_ros"]:
        wrong += [name for name in words[2:3] if name not in (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")]
    return wrong


def interface(name: str) -> bool:
    """Whether ``elysium_ros/srv/Track`` or ``elysium_ros/TrackedObject`` is an interface of this package."""
    match = re.fullmatch(r"elysium_ros/(?:(msg|srv|action)/)?(\w+)", name)
    kind = (match[1] or "msg") if match else ""
    return match is not None and (ROOT / kind / f"{match[2]}.{kind}").is_file()


@cache
def all_options() -> frozenset[str]:
    """Return every option of every program of this repository."""
    from elysium_core.cli.registry import VERBS

    verbs = [(verb.name,) for verb in VERBS if find_spec(verb.module)]
    sources = [name for name in tracked() if re.match(r"(elysium_ros|bench|tools)/.*\.py$", name)]
    return frozenset({"--version", "--verbose"}).union(
        *map(verb_options, verbs), *map(source_options, [*sources, "test/conftest.py"]), FOREIGN_OPTIONS
    )


def lone_options(text: str) -> set[str]:
    """Return options that a text mentions by themselves, such as ``--zoom``, and that no program has."""
    lone = (words for words in commands(text) if words[0].startswith("--"))
    return {word.partition("=")[0] for words in lone for word in words if word.startswith("--")} - all_options()


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_files_that_a_document_names_exist(document: Path):
    assert missing_paths(document.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_modules_that_a_document_names_exist(document: Path):
    assert unknown_names(document.read_text(encoding="utf-8")) == set()


@WITHOUT_ROS
@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_commands_that_a_document_shows_exist(document: Path):
    text = document.read_text(encoding="utf-8")
    assert [wrong for words in commands(text) for wrong in wrong_in_command(words)] == []
    assert lone_options(text) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_parameters_and_launch_arguments_that_a_document_names_exist(document: Path):
    from elysium_ros.node.load_parameters import ALIASES
    from elysium_ros.node.parameters import SPECS

    groups = "|".join(sorted({name.partition(".")[0] for name in SPECS if "." in name}))
    text = document.read_text(encoding="utf-8")
    named = {name for span in spans(text) for name in re.findall(rf"^(?:{groups})\.[a-z_]+$", span)}
    api = {f"model.{name}" for name in definitions(ROOT / "elysium_core" / "api.py")}
    assert named - {*SPECS, *ALIASES} - api - {"model.safetensors"} == set()
    launched = {name for span in spans(text) for name in re.findall(r"^(\w+):=\S*$", span)}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "launch").glob("*.py"))
    assert {name for name in launched if f'"{name}"' not in sources} == set()


def definitions(path: Path) -> set[str]:
    """Return the names of all functions of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", LINKING, ids=named)
def test_links_lead_somewhere(document: Path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        if "://" in target:
            continue
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`elysium track v.mp4 --zoom`, `elysium eval report DIR`", []),
        ("`elysium trakc v.mp4`", ["elysium trakc"]),
        ("```\nelysium track v.mp4 \\\n  --zooom\n```", ["track v.mp4 ... --zooom"]),
        ("`elysium eval report DIR --limit 3`", ["eval report ... --limit"]),
        ("`torchrun --nproc-per-node 2 -m elysium_core.cli evla`", ["elysium evla"]),
        ("`python -m bench.engine --turns 0`, `python -m bench.engin`", ["-m bench.engin"]),
        ('`make bench ARGS="engine --jsn"`', ["engine --jsn ... --jsn"]),
        ("`make everything`", ["make everything"]),
        ("`ros2 launch elysium_ros track.launch.py imgae:=/camera`", ["imgae:="]),
        ("`ros2 service call /elysium/track elysium_ros/srv/Trakc {}`", ["elysium_ros/srv/Trakc is no interface"]),
    ],
)
def test_a_wrong_command_is_found(text: str, wrong: list[str]):
    assert [found for words in commands(text) for found in wrong_in_command(words)] == wrong


def test_a_wrong_path_name_or_option_is_found():
    text = """`elysium_core/api.py` `api.py` `network/adapters.py` `elysium_core/nothing.py` `docs/none.md` `nothing.py`
    `elysium_core.api.Elysium` `elysium_core.api.Nothing` `--zoom` `--nothing`"""
    assert missing_paths(text) == {"elysium_core/nothing.py", "docs/none.md", "nothing.py"}
    assert unknown_names(text) == {"elysium_core.api.Nothing"}
    assert lone_options(text) == {"--nothing"}


def test_the_python_example_of_the_readme_runs(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code is not None
    images = list(np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8))
    exec(compile(code[1], "README.md", "exec"), {"images": images})
    assert len(capsys.readouterr().out.splitlines()) >= len(images)
