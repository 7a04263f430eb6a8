"""The packaged settings of Fast DDS: who uses them, and that pictures pass with them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from elysium_ros.client import node_process
from elysium_ros.client.node_process import PROFILE_VARIABLES, add_profile, packaged_profile, private_environment

ROOT = Path(__file__).resolve().parents[3]


def texts(tag: str) -> list[str]:
    tree = ElementTree.parse(ROOT / "config" / "fastdds.xml")
    return [str(element.text) for element in tree.iter() if element.tag.rpartition("}")[2] == tag]


def test_the_file_replaces_the_transports_by_those_that_it_describes() -> None:
    described, used = texts("transport_id")[:2], texts("transport_id")[2:]
    assert sorted(described) == sorted(used)
    assert texts("type") == ["SHM", "UDPv4"]
    assert texts("useBuiltinTransports") == ["false"]
    (segment,), (longest,) = map(int, texts("segment_size")), map(int, texts("maxMessageSize"))
    # In one piece, and the next one while a slow receiver still reads the first.
    assert 1920 * 1080 * 3 < longest <= segment // 2


def test_it_is_found_and_added_unless_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert packaged_profile() == ROOT / "config" / "fastdds.xml"
    environment: dict[str, str] = {}
    add_profile(environment)
    assert environment == dict.fromkeys(PROFILE_VARIABLES, str(packaged_profile()))
    for name in PROFILE_VARIABLES:
        chosen = {name: "mine.xml"}
        add_profile(chosen)
        assert chosen == {name: "mine.xml"}
    monkeypatch.setattr(node_process, "packaged_profile", lambda: None)
    environment = {}
    add_profile(environment)
    assert environment == {}


def test_an_installed_package_finds_it_in_its_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(node_process, "__file__", str(tmp_path / "lib" / "elysium_ros" / "client" / "node_process.py"))
    monkeypatch.setattr(node_process, "get_package_share_directory", lambda name: str(tmp_path / name))
    assert packaged_profile() is None
    file = tmp_path / "elysium_ros" / "config" / "fastdds.xml"
    file.parent.mkdir(parents=True)
    file.touch()
    assert packaged_profile() == file


def test_processes_of_the_package_use_it_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert private_environment(7)[PROFILE_VARIABLES[0]] == str(packaged_profile())
    assert PROFILE_VARIABLES[0] not in private_environment(7, plain_dds=True)
