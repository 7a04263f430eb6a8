"""Draw the sprite atlas from Debian's colour emoji font; run once, the result is committed.

``python -m elysium_core.data.synthetic.build_assets --font NotoColorEmoji.ttf --out assets``

The font's images are Apache-2.0, the font itself OFL-1.1 (Google, "Noto Emoji").
"""

# ruff: noqa: E501 - editors count an emoji as one column, the checker as two
from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL_PX = 96
COLUMNS = 12
# The font's bitmaps exist at this one size only.
_FONT_PX = 109

# Order matters: recipes take the first N names as vocabulary, the rest stay unseen.
GLYPHS = {
    "apple": "🍎", "banana": "🍌", "car": "🚗", "bus": "🚌", "dog": "🐶", "cat": "🐱", "football": "⚽", "basketball": "🏀",
    "guitar": "🎸", "umbrella": "☂", "key": "🔑", "clock": "⏰", "camera": "📷", "teddy bear": "🧸", "cup": "☕",
    "mushroom": "🍄", "turtle": "🐢", "fish": "🐟", "butterfly": "🦋", "bicycle": "🚲", "airplane": "✈", "rocket": "🚀",
    "balloon": "🎈", "gift": "🎁", "shoe": "👟", "crown": "👑", "hat": "🎩", "cactus": "🌵", "sunflower": "🌻", "pizza": "🍕",
    "donut": "🍩", "strawberry": "🍓", "grapes": "🍇", "watermelon": "🍉", "penguin": "🐧", "crab": "🦀", "frog": "🐸",
    "pig": "🐷", "panda": "🐼", "backpack": "🎒", "carrot": "🥕", "corn": "🌽", "elephant": "🐘", "octopus": "🐙", "cow": "🐮",
    "chicken": "🐔", "lion": "🦁", "tiger": "🐯", "bear": "🐻", "rabbit": "🐰", "fox": "🦊", "train": "🚂", "fire truck": "🚒",
    "ambulance": "🚑", "tractor": "🚜", "sailboat": "⛵", "helicopter": "🚁", "hammer": "🔨", "wrench": "🔧", "scissors": "✂",
    "light bulb": "💡", "phone": "📱", "laptop": "💻", "books": "📚", "chair": "🪑", "cake": "🎂", "burger": "🍔",
    "ice cream": "🍦", "cheese": "🧀", "egg": "🥚", "bell": "🔔", "drum": "🥁", "piano": "🎹", "trumpet": "🎺", "plant": "🪴",
    "socks": "🧦", "shirt": "👕", "handbag": "👜", "sunglasses": "🕶", "diamond": "💎", "anchor": "⚓", "magnet": "🧲",
    "flashlight": "🔦", "fire extinguisher": "🧯", "bucket": "🪣", "broom": "🧹", "ladder": "🪜",
}  # fmt: skip


def draw_cell(font: ImageFont.FreeTypeFont, glyph: str) -> Image.Image:
    """Return one glyph, cut to its own edge and scaled to fill a cell (RGBA, CELL_PX square)."""
    canvas = Image.new("RGBA", (2 * _FONT_PX, 2 * _FONT_PX))
    ImageDraw.Draw(canvas).text((_FONT_PX // 4, _FONT_PX // 4), glyph, font=font, embedded_color=True)
    extent = canvas.getbbox()
    if extent is None:
        raise SystemExit(f"the font has no glyph for {glyph!r}")
    sprite = canvas.crop(extent)
    sprite.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (CELL_PX, CELL_PX))
    cell.paste(sprite, ((CELL_PX - sprite.width) // 2, (CELL_PX - sprite.height) // 2))
    return cell


def main() -> None:
    """Write ``atlas.png`` and ``atlas.json`` into the folder given by ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--font", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    font = ImageFont.truetype(str(arguments.font), _FONT_PX)
    rows = math.ceil(len(GLYPHS) / COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL_PX, rows * CELL_PX))
    for position, glyph in enumerate(GLYPHS.values()):
        atlas.paste(draw_cell(font, glyph), ((position % COLUMNS) * CELL_PX, (position // COLUMNS) * CELL_PX))
    arguments.out.mkdir(parents=True, exist_ok=True)
    atlas.save(arguments.out / "atlas.png", optimize=True)
    layout = {"cell_px": CELL_PX, "columns": COLUMNS, "names": list(GLYPHS)}
    (arguments.out / "atlas.json").write_text(json.dumps(layout, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
