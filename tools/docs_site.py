"""Hooks of mkdocs: the site shows README and other pages of the repository beside those of docs/, with working links.

A link to a file that is no page of the site becomes plain text, because the site does not know where the repository is
hosted.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "QUALITY_DECLARATION.md": "quality.md",
    "NOTICE": "notice.md",
    "training/README.md": "recipes.md",
    "elysium_core/data/synthetic/assets/LICENSES.md": "licenses.md",
}
"""Files of the repository that are pages, too: path in the repository, path in the site."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from outside docs/."""
    from mkdocs.structure.files import File  # type: ignore[import-not-found]

    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=rewritten(text, source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page of docs/."""
    return markdown if page.file.generated_by else rewritten(markdown, f"docs/{page.file.src_uri}")


def rewritten(text: str, source: str) -> str:
    """Markdown whose links between files of the repository are those between pages of the site.

    Args:
        text: Markdown.
        source: Path of its file in the repository.
    """

    def one(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = PAGES.get(inside, inside.removeprefix("docs/") if inside.startswith("docs/") else "")
        if not page:
            return words
        return f"{mark}[{words}]({page}{'#' * bool(anchor)}{anchor})"

    return _LINK.sub(one, text)
