"""State one can see: an object is whole when it is made, and nobody but itself changes it. Checked on every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "elysium_ros").rglob("*.py"))

# Messages have no constructor that takes all of their parts, so they are filled in by whoever makes them.
MESSAGES = {
    "array", "descriptor", "detection", "hypothesis", "info", "marker", "message", "position", "request", "response",
    "result", "status",
}  # fmt: skip
# rclpy's own services of the parameters, around whose callbacks the node puts its checks.
ALLOWED = {"elysium_ros/node/parameter_server.py": {"service.callback"}}


def written_from_outside(tree: ast.AST) -> Iterator[str]:
    """Yield each attribute that is assigned on something else than ``self`` or a message."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            continue
        attributes = [part for target in targets for part in parts_of(target) if isinstance(part, ast.Attribute)]
        for attribute in attributes:
            owner = attribute
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            name = ast.unparse(owner)
            if name == "self" and isinstance(attribute.value, ast.Name):
                continue
            if name not in MESSAGES:
                yield ast.unparse(attribute)


def parts_of(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from parts_of(part)
    else:
        yield target


def methods_called_in_init(tree: ast.AST) -> Iterator[str]:
    """Yield each method that ``__init__`` of its own class calls: a subclass could override it."""
    for owner in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
        functions = {node.name: node for node in owner.body if isinstance(node, ast.FunctionDef)}
        init = functions.get("__init__")
        calls = [node for node in ast.walk(init) if isinstance(node, ast.Call)] if init else []
        for call in calls:
            name = ast.unparse(call.func)
            if name.startswith("self.") and name.removeprefix("self.") in functions:
                yield f"{owner.name}.{name.removeprefix('self.')}"


def test_the_walkers_see_what_they_must():
    code = """
class A:
    def __init__(self):
        self.value = self.make()
        self.part.value = 1
    def make(self): ...
other.value = 1
x, (other.more, y) = 1, (2, 3)
other.count += 1
response.success = True
message.header.stamp = 3
"""
    assert sorted(written_from_outside(ast.parse(code))) == [
        "other.count",
        "other.more",
        "other.value",
        "self.part.value",
    ]
    assert list(methods_called_in_init(ast.parse(code))) == ["A.make"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_writes_an_attribute_of_another_object(path: Path):
    found = set(written_from_outside(ast.parse(path.read_text("utf-8"))))
    assert found - ALLOWED.get(str(path.relative_to(ROOT)), set()) == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_method_is_called_before_its_object_is_whole(path: Path):
    assert list(methods_called_in_init(ast.parse(path.read_text("utf-8")))) == []
