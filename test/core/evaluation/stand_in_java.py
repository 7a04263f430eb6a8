"""Stands for ``java`` where it would run the two programs of METEOR: a tokenizer, and a scorer that talks in lines.

Both speak as the real ones do, in a tenth of a second. The score is the share of the reference's words that the answer
has, so it is another one if answer and reference change places.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tokenize(path: Path) -> None:
    """Lower case, punctuation apart, line for line; empty lines at the end are lost."""
    lines = [" ".join(re.findall(r"\w+|[^\w\s]", line.lower())) for line in path.read_text().split("\n")]
    say("\n".join(lines).rstrip("\n"))


def score() -> None:
    """``SCORE ||| reference ||| answer`` gives figures; ``EVAL ||| figures ...`` a score each, then that of all."""
    for line in sys.stdin:
        command, *fields = line.rstrip("\n").split(" ||| ")
        if command == "SCORE":
            reference, answer = (Counter(field.split()) for field in fields)
            say(f"{(reference & answer).total()} {reference.total()}")
        elif command == "EVAL":
            figures = [tuple(map(int, field.split())) for field in fields]
            totals = [*figures, tuple(map(sum, zip(*figures, strict=True)))]
            say("\n".join(str(found / wanted) for found, wanted in totals))
        else:
            sys.exit(f"Error: not a command: {line}")


if __name__ == "__main__":
    if "-jar" in sys.argv:
        score()
    else:
        tokenize(Path(sys.argv[-1]))
