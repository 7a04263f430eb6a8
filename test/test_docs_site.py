"""The documentation as a web site: every page is in its menu, and links between pages work there."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(menu) -> list[str]:
    if isinstance(menu, str):
        return [menu]
    values = menu.values() if isinstance(menu, dict) else menu
    return [page for value in values for page in pages_of(value)]


def test_every_page_is_in_the_menu_once(site):
    own = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert sorted(pages_of(SITE["nav"])) == sorted([*own, *site.PAGES.values()])
    assert SITE["strict"]


def test_pages_from_outside_exist(site):
    assert [source for source in site.PAGES if not (ROOT / source).is_file()] == []


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        (
            "README.md",
            "[a](docs/tasks.md#small) ![p](docs/images/demo.gif)",
            "[a](tasks.md#small) ![p](images/demo.gif)",
        ),
        ("docs/data.md", "[a](../CONTRIBUTING.md#a-data-set)", "[a](contributing.md#a-data-set)"),
        ("docs/data.md", "see [the recipe](../training/real.yaml).", "see the recipe."),
        ("training/README.md", "[a](../docs/real.md), [b](#here)", "[a](real.md), [b](#here)"),
        ("docs/data.md", "[a](https://arxiv.org/abs/2403.16558)", "[a](https://arxiv.org/abs/2403.16558)"),
    ],
)
def test_links_lead_to_pages_of_the_site(site, source, text, expected):
    assert site.rewritten(text, source) == expected


def test_the_site_asks_no_other_host():
    assert SITE["theme"]["font"] is False
    assert "offline" in SITE["plugins"]
    assert re.search(r"^docs: setup ## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
