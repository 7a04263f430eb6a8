"""A page, complete in one file, on which a person decides by keys whether words name one object only."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from dataclasses import dataclass

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>elysium: one object only?</title>
<style>
body { font: 16px sans-serif; margin: 1em auto; max-width: 72em; background: #181818; color: #e1e1e1; }
header { position: sticky; top: 0; background: #181818; padding: .5em; }
article { padding: .5em; border-left: .4em solid transparent; }
article.current { background: #303030; }
article[data-decision="unique"] { border-color: #3c3; }
article[data-decision="not unique"] { border-color: #c33; }
img { max-width: 100%; }
</style>
<header><b>Do the words name the boxed object, and no other, in all three pictures?</b>
<b>y</b> yes, <b>n</b> no, <b>u</b> undo, arrows: move. <span id="count"></span>
<button id="save">Save decisions.json</button></header>
<main>
"""

# Decisions are kept by the browser as well, so that a closed page loses nothing.
_TAIL = """</main>
<script>
"use strict";
const cards = [...document.querySelectorAll("article")];
const store = "elysium-review-" + KEY;
const decisions = JSON.parse(localStorage.getItem(store) || "{}");
let current = 0;
function show() {
  cards.forEach((card, number) => {
    card.classList.toggle("current", number === current);
    card.dataset.decision = decisions[card.dataset.id] || "";
  });
  cards[current].scrollIntoView({ block: "center" });
  document.getElementById("count").textContent = Object.keys(decisions).length + " of " + cards.length + " decided.";
  localStorage.setItem(store, JSON.stringify(decisions));
}
function move(step) { current = Math.min(cards.length - 1, Math.max(0, current + step)); show(); }
document.addEventListener("keydown", (event) => {
  const id = cards[current].dataset.id;
  if (event.key === "y") { decisions[id] = "unique"; move(1); }
  else if (event.key === "n") { decisions[id] = "not unique"; move(1); }
  else if (event.key === "u") { delete decisions[id]; show(); }
  else if (event.key === "ArrowDown" || event.key === "ArrowRight") { event.preventDefault(); move(1); }
  else if (event.key === "ArrowUp" || event.key === "ArrowLeft") { event.preventDefault(); move(-1); }
});
document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(decisions, null, 1)], { type: "application/json" }));
  link.download = "decisions.json";
  link.click();
});
show();
</script></html>
"""


@dataclass(frozen=True, slots=True)
class ReviewCard:
    """One track on the page.

    Attributes:
        track_id: Its id, under which the decision is saved.
        expression: The words.
        jpeg: The first, middle and last frame with the box.
    """

    track_id: str
    expression: str
    jpeg: bytes


def review_page(cards: Iterable[ReviewCard]) -> str:
    """Return the page as HTML that loads nothing else; at least one card is needed."""
    parts, ids = [_HEAD], []
    for card in cards:
        picture = base64.b64encode(card.jpeg).decode("ascii")
        ids.append(card.track_id)
        parts.append(
            f'<article data-id="{html.escape(card.track_id)}"><p>{html.escape(card.expression)}</p>'
            f'<img alt="" src="data:image/jpeg;base64,{picture}"></article>\n'
        )
    key = json.dumps(f"{len(ids)}-{ids[0]}").replace("<", "\\u003c")
    return "".join([*parts, _TAIL.replace("KEY", key, 1)])
