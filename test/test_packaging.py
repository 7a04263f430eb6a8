"""The repository as a whole: versions, walls between layers, interfaces, set-up."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

import elysium_core
from tools.relocate_ros_wheels import relocate

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = sorted(path for kind in ("msg", "srv", "action") for path in (ROOT / kind).glob(f"*.{kind}"))

MIB = 1 << 20


def test_versions_agree():
    package_xml = ET.parse(ROOT / "package.xml").findtext("version")
    setup_py = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    changelog = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert changelog is not None
    assert elysium_core.__version__ == package_xml == setup_py == changelog[1]


# Names of the standard library that Python 3.10 does not have.
NEWER = {
    "typing": "Self Never LiteralString assert_never assert_type reveal_type Required NotRequired Unpack TypeVarTuple "
    "override dataclass_transform TypeAliasType",
    "enum": "StrEnum ReprEnum verify member nonmember global_enum",
    "datetime": "UTC",
    "asyncio": "timeout TaskGroup Runner Barrier",
    "hashlib": "file_digest",
    "itertools": "batched",
    "contextlib": "chdir",
    "operator": "call",
    "math": "cbrt exp2 sumprod",
    "inspect": "getmembers_static markcoroutinefunction",
    "logging": "getLevelNamesMapping getHandlerNames",
    "warnings": "deprecated",
    "tomllib": "load loads",
}
NEW_MODULES = {"tomllib", "wsgiref.types"}
NEW_BUILTINS = {"ExceptionGroup", "BaseExceptionGroup"}


def newer_names(tree: ast.AST) -> Iterator[str]:
    """The names used at run time that the oldest supported Python does not have."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.ImportFrom):
            new = NEWER.get(node.module or "", "").split()
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name in new)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NEW_MODULES)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NEWER.get(node.value.id, "").split():
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id in NEW_BUILTINS:
            yield node.id
        pending += ast.iter_child_nodes(node)


def test_the_sources_are_for_the_oldest_python_that_setup_py_names():
    """Newer syntax is found by ruff, whose target is the same version."""
    setup, settings = ((ROOT / name).read_text(encoding="utf-8") for name in ("setup.py", "pyproject.toml"))
    assert 'python_requires=">=3.10"' in setup
    assert 'target-version = "py310"' in settings
    # Only files with a module and one of its new names in a line are parsed.
    pairs = [rf"\b{module}\b.*\b(?:{'|'.join(names.split())})\b" for module, names in NEWER.items()]
    suspect = re.compile("|".join([*pairs, *(rf"\b{re.escape(name)}\b" for name in NEW_MODULES | NEW_BUILTINS)]))
    found = []
    for folder in ("elysium_core", "elysium_ros", "bench", "launch", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if suspect.search(text):
                found += [f"{path.relative_to(ROOT)}: {name}" for name in newer_names(ast.parse(text))]
    assert found == []
    sample = "from enum import StrEnum\nimport tomllib, datetime\nx = datetime.UTC\nraise ExceptionGroup('', [])"
    assert sorted(newer_names(ast.parse(sample))) == ["ExceptionGroup", "datetime.UTC", "enum.StrEnum", "tomllib"]


def test_no_file_is_larger_than_16_mib():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in names.split("\0") if name]
    assert files
    assert [path for path in files if path.is_file() and path.stat().st_size > 16 * MIB] == []


def fields(path: Path) -> Iterator[str]:
    """Yield the lines of an interface that declare a field or a constant."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(("#", "---")):
            yield line


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.stem)
def test_every_field_of_an_interface_is_explained(path: Path):
    declared = list(fields(path))
    assert declared
    assert path.read_text(encoding="utf-8").startswith("# "), "an interface begins with what it is for"
    for line in declared:
        declaration, _, comment = line.partition("#")
        assert len(comment.strip()) > 3, f"no comment: {line}"
        if declaration.startswith("float"):
            assert re.search(r"\[\S+\]|0\.\.1", comment), f"neither unit nor range: {line}"


def test_cmake_generates_exactly_the_interfaces_on_disk():
    listed = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (ROOT / "CMakeLists.txt").read_text())
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in INTERFACES)


def test_a_new_file_in_an_installed_folder_makes_setup_build_again():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    folders = " ".join(re.findall(r"install\(DIRECTORY ([^)]*?)\s*DESTINATION", cmake)).replace("/", "").split()
    folders += re.findall(r"ament_python_install_package\((\w+)\)", cmake)
    watched = re.search(r"\$\(names_of ([^)]*)\)", (ROOT / "tools" / "setup.sh").read_text())
    assert watched is not None
    assert set(watched[1].split()) == set(folders)
    templates = re.search(r"\$\(hash_of (msg [^)]*)\)", (ROOT / "tools" / "setup.sh").read_text())
    assert templates is not None
    assert {f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py.in")} <= set(templates[1].split())


def test_package_xml_names_what_the_interfaces_use():
    packages = {"builtin_interfaces", "geometry_msgs", "sensor_msgs", "std_msgs"}
    used = {match for path in INTERFACES for line in fields(path) for match in re.findall(r"^(\w+)/", line)}
    declared = {element.text for element in ET.parse(ROOT / "package.xml").iterfind("depend")}
    assert used == packages <= declared


def test_source_tree_finds_the_generated_half():
    """From the root of the repository the sources come first, and the built messages are found all the same."""
    pytest.importorskip("rclpy", reason="ROS is not installed")
    import elysium_ros
    from elysium_ros.action import TrackObject
    from elysium_ros.msg import TrackedObject
    from elysium_ros.srv import Track

    assert Path(elysium_ros.__path__[0]) == ROOT / "elysium_ros"
    declared = [line.split()[1] for line in fields(ROOT / "msg" / "TrackedObject.msg") if "=" not in line.split("#")[0]]
    assert list(TrackedObject.get_fields_and_field_types()) == declared
    assert TrackObject.Result.REASON_ERROR == 6
    assert Track.Request().wait_timeout == 0.0


def test_a_bare_python_of_the_environment_finds_the_messages(tmp_path: Path):
    """Nothing sourced, another folder: what make setup promises for the wheels."""
    pytest.importorskip("elysium_overlay", reason="not set up by make setup")
    if not Path(sys.prefix, "share", "ament_index").is_dir():
        pytest.skip("ROS does not come as wheels here")
    code = "from elysium_ros.msg import Box2D; Box2D.__class__.__import_type_support__(); print(Box2D().x_min)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "0.0\n", result.stderr


@pytest.mark.parametrize("name", ["tracker_node", "video_node", "client", "elysium"])
def test_what_ros2_run_and_launch_start_may_be_executed(name: str):
    """ros2 says "executable not found" of a file that is there, but must not be executed."""
    ament = pytest.importorskip("ament_index_python", reason="ROS is not installed")
    executable = Path(ament.get_package_prefix("elysium_ros"), "lib", "elysium_ros", name)
    assert os.access(executable, os.X_OK), executable
    if name == "elysium":
        result = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True)
        assert result.stdout.startswith("elysium ")


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_lock_files_pin_exactly(lock: Path):
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line)] == []


def requirements_of_setup_py() -> set[str]:
    """Return the names of the distributions the core always needs."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    keywords = (node for node in ast.walk(tree) if isinstance(node, ast.keyword))
    ranges = next(ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg == "install_requires")
    return {re.split(r"[<>=]", requirement)[0].lower() for requirement in ranges}


def test_the_core_requires_what_it_imports():
    """What a module imports at its top must come with a plain pip install; the extras are imported where used.

    A module that is nothing without its extra may import it at the top, if all others import that module where used.
    """
    of_extras = {"elysium_core.viewer.page_session", "elysium_core.viewer.server"}
    distributions = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
    modules = {
        name
        for path in sorted((ROOT / "elysium_core").rglob("*.py"))
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) not in of_extras
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else [str(statement.module)]
        )
    }
    assert modules & of_extras == set()
    imported = {name.split(".")[0] for name in modules}
    outside = imported - set(sys.stdlib_module_names) - {"elysium_core"}
    brought_along = {"huggingface_hub", "pydantic_core", "rich", "safetensors", "tokenizers"}
    assert {distributions.get(name, name) for name in outside} - brought_along <= requirements_of_setup_py()
    assert len(requirements_of_setup_py()) <= 10


def test_locked_versions_cover_the_requirements_of_setup_py():
    pinned = {line.split("==")[0] for line in (ROOT / "requirements" / "core.txt").read_text().splitlines()}
    assert {name.replace("_", "-") for name in requirements_of_setup_py()} <= pinned


@pytest.mark.slow
def test_the_built_package_brings_the_message_definitions_along(tmp_path: Path):
    """Bags hold them, also where elysium_core is installed by pip and msg/ is not there."""
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    built = {path.name: path.read_text() for path in (tmp_path / "elysium_core" / "msg").iterdir()}
    assert built == {path.name: path.read_text() for path in (ROOT / "msg").glob("*.msg")}
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "from elysium_core.io.message_types import definitions_folder; print(definitions_folder())"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(tmp_path / "elysium_core" / "msg")


def test_relocating_the_wheels_twice_changes_nothing_more(tmp_path: Path):
    folder = tmp_path / "share" / "pkg" / "cmake"
    folder.mkdir(parents=True)
    build = "/opt/python/cp312-cp312"
    old = [f"{build}/include/python3.12", f"{build}/lib/python3.12/site-packages/numpy/_core/include", "/opt/x"]
    (folder / "export.cmake").write_text(";".join(old))
    assert relocate(tmp_path) == 1
    python_include, numpy_include, other = (folder / "export.cmake").read_text().split(";")
    assert Path(python_include, "Python.h").is_file()
    assert Path(numpy_include, "numpy").is_dir()
    assert other == "/opt/x"
    assert relocate(tmp_path) == 0


@pytest.mark.parametrize(
    ("missing", "said"),
    [("g++", "setup: g++ was not found"), ("cmake", "setup: cmake was not found"), ("python3", "Python 3.11 or newer")],
)
def test_setup_says_in_one_sentence_what_is_missing(tmp_path: Path, missing: str, said: str):
    for tool in {"bash", "cmake", "dirname", "g++", "python3", "uname"} - {missing}:
        found = sys.executable if tool == "python3" else shutil.which(tool)
        assert found is not None, f"{tool} is needed to test the absence of {missing}"
        (tmp_path / tool).symlink_to(found)
    result = subprocess.run(
        [tmp_path / "bash", ROOT / "tools" / "setup.sh"],
        env={"PATH": str(tmp_path), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_pip_installs_every_file_of_the_core(tmp_path: Path):
    """Weights and pictures, too: a package without its data imports well and fails later."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    commands = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run([sys.executable, "setup.py", "-q", *commands], cwd=ROOT, capture_output=True, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "elysium_core"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    built = {str(path.relative_to(tmp_path / "lib")) for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    assert tracked - built == set()
