"""The walls of the house: which part may import which, checked on every module (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# In the order data flows: a module imports from its own layer and from those before it.
LAYERS = (
    {"errors", "geometry", "frames", "device"},
    {"settings", "types", "calibration"},
    {"io"},
    {"network"},
    {"checkpoint"},
    {"prompt"},
    {"engine"},
    {"vision"},
    {"families"},
    {"runtime"},
    {"tracking"},
    {"api"},
    {"data"},
    {"curation"},
    {"training"},
    {"evaluation"},
    {"viewer"},
    {"cli"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ROS_MODULES = re.compile(
    r"(rcl\w*|rosidl\w*|rosgraph_msgs|ament\w*|launch\w*|cv_bridge|tf2\w*|elysium_ros|\w+_msgs|\w+_interfaces)(\.|$)"
)
PACKAGES = ("elysium_core", "elysium_ros")


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything a module imports, also inside functions; not what is only for types."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
        pending += ast.iter_child_nodes(node)


def imported(path: Path) -> list[str]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def rank(name: str) -> int | None:
    """Return the rank of the layer that a dotted name inside the core belongs to, or None for what is at its root.

    Raises:
        KeyError: A new part of the core that has no place in LAYERS yet.
    """
    parts = name.split(".")
    if parts[1:] == ["Elysium"]:
        return RANK["api"]  # re-exported at the root
    inside = ROOT / "elysium_core" / parts[1] if len(parts) > 1 else None
    if inside is None or parts[1] == "__init__" or not (inside.is_dir() or inside.with_suffix(".py").is_file()):
        return None
    return RANK[parts[1]]


def test_import_walker_sees_what_it_must():
    code = """
import a.b
from c import d
from . import e
def f():
    from g.h import i
    importlib.import_module("j")
if TYPE_CHECKING:
    import never
else:
    import k
"""
    assert sorted(imports(ast.parse(code))) == ["..e", "a.b", "c.d", "g.h.i", "j", "k"]


@pytest.mark.parametrize("path", modules("elysium_core"), ids=dotted)
def test_a_core_module_stays_inside_its_walls(path: Path):
    """The core never imports ROS, and a layer never imports a later one."""
    names = imported(path)
    assert [name for name in names if ROS_MODULES.match(name)] == []
    assert [name for name in names if name.startswith(".")] == [], "relative imports hide the layer"
    own = rank(dotted(path))
    if own is None:
        return  # the root re-exports from every layer
    reached = {name: rank(name) for name in names if name.startswith("elysium_core.")}
    assert {name for name, other in reached.items() if other is not None and other > own} == set()


def test_nothing_imports_the_benchmarks():
    found = {dotted(path): name for path in modules(*PACKAGES) for name in imported(path) if name.startswith("bench.")}
    assert found == {}


def test_perception_and_conversion_know_no_node():
    """The node is wired from parts that can be used and tested without it."""
    for path in modules("elysium_ros/perception"):
        names = imported(path)
        assert [name for name in names if name.startswith(("rclpy", "elysium_ros.msg", "elysium_ros.node"))] == [], path
    for path in modules("elysium_ros/convert"):
        assert [name for name in imported(path) if name.startswith(("rclpy", "elysium_ros.node"))] == [], path


def test_fine_tuning_imports_no_emoji_generator():
    found = {
        dotted(path): name
        for path in modules("elysium_core/training/finetune")
        for name in imported(path)
        if name.startswith(("elysium_core.data.synthetic", "elysium_core.training.nano"))
    }
    assert found == {}


def test_training_on_photos_needs_nothing_of_nano():
    found = {
        dotted(path): name
        for path in modules("elysium_core/training/real")
        for name in imported(path)
        if name.startswith(("elysium_core.data.synthetic", "elysium_core.training.nano"))
    }
    assert found == {}


def test_a_file_name_occurs_once_in_the_core():
    names = Counter(path.name for path in modules("elysium_core") if path.name not in ("__init__.py", "__main__.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str):
    """Not even through a module that is imported inside a function."""
    known = {dotted(path): path for path in modules(package)}
    edges = {name: set(_modules_reached(path, known)) - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in sorted(known):
        visit(name, [])


def _modules_reached(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for name in imported(path):
        # `from package.module import Name`: the longest part that is a module.
        if name in known:
            yield name
        elif (module := name.rpartition(".")[0]) in known and known[module].name != "__init__.py":
            yield module
