"""Draw the sprite atlas from Debian's colour emoji font; run once, the result is committed.

``python -m tools.build_assets --font NotoColorEmoji.ttf --out assets``

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

# The order must never change, because the frozen test set depends on it. New entries go to the end.
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
    # Entries from here on are for training; those above, from "carrot" on, are held out for tests.
    "monkey": "🐒", "gorilla": "🦍", "horse": "🐴", "unicorn": "🦄", "zebra": "🦓", "deer": "🦌", "sheep": "🐑",
    "camel": "🐫", "giraffe": "🦒", "rhino": "🦏", "hippo": "🦛", "mouse": "🐭", "hedgehog": "🦔", "bat": "🦇",
    "koala": "🐨", "sloth": "🦥", "skunk": "🦨", "kangaroo": "🦘", "duck": "🦆", "eagle": "🦅", "owl": "🦉",
    "flamingo": "🦩", "peacock": "🦚", "parrot": "🦜", "swan": "🦢", "chick": "🐤", "crocodile": "🐊", "lizard": "🦎",
    "snake": "🐍", "dragon": "🐲", "dinosaur": "🦖", "whale": "🐳", "dolphin": "🐬", "shark": "🦈", "blowfish": "🐡",
    "snail": "🐌", "ant": "🐜", "bee": "🐝", "beetle": "🪲", "ladybug": "🐞", "spider": "🕷", "scorpion": "🦂",
    "shrimp": "🦐", "lobster": "🦞", "wolf": "🐺", "raccoon": "🦝", "beaver": "🦫", "bison": "🦬", "poodle": "🐩",
    "turkey": "🦃", "rooster": "🐓", "shell": "🐚", "rose": "🌹", "tulip": "🌷", "hibiscus": "🌺", "daisy": "🌼",
    "bouquet": "💐", "palm tree": "🌴", "pine tree": "🌲", "seedling": "🌱", "clover": "🍀", "maple leaf": "🍁",
    "lemon": "🍋", "pineapple": "🍍", "mango": "🥭", "pear": "🍐", "peach": "🍑", "cherries": "🍒",
    "blueberries": "🫐", "kiwi": "🥝", "tomato": "🍅", "coconut": "🥥", "avocado": "🥑", "eggplant": "🍆",
    "potato": "🥔", "chili": "🌶", "cucumber": "🥒", "broccoli": "🥦", "garlic": "🧄", "onion": "🧅", "peanuts": "🥜",
    "bread": "🍞", "croissant": "🥐", "baguette": "🥖", "pretzel": "🥨", "pancakes": "🥞", "waffle": "🧇",
    "bacon": "🥓", "drumstick": "🍗", "fries": "🍟", "hot dog": "🌭", "sandwich": "🥪", "taco": "🌮", "salad": "🥗",
    "popcorn": "🍿", "sushi": "🍣", "noodles": "🍜", "cookie": "🍪", "chocolate": "🍫", "candy": "🍬",
    "lollipop": "🍭", "honey": "🍯", "cupcake": "🧁", "milk": "🥛", "wine": "🍷", "teapot": "🫖", "spoon": "🥄",
    "taxi": "🚕", "truck": "🚚", "van": "🚐", "motorcycle": "🏍", "scooter": "🛵", "ship": "🚢", "parachute": "🪂",
    "skateboard": "🛹", "traffic light": "🚦", "stop sign": "🛑", "tent": "⛺", "castle": "🏰", "house": "🏠",
    "volcano": "🌋", "television": "📺", "radio": "📻", "watch": "⌚", "telephone": "☎", "battery": "🔋",
    "plug": "🔌", "keyboard": "⌨", "printer": "🖨", "microscope": "🔬", "candle": "🕯", "notebook": "📓",
    "envelope": "✉", "package": "📦", "mailbox": "📫", "pencil": "✏", "paintbrush": "🖌", "briefcase": "💼",
    "calendar": "📅", "ruler": "📏", "lock": "🔒", "axe": "🪓", "saw": "🪚", "screwdriver": "🪛", "gear": "⚙",
    "sword": "🗡", "bow": "🏹", "shield": "🛡", "bomb": "💣", "pill": "💊", "thermometer": "🌡", "toilet": "🚽",
    "soap": "🧼", "sponge": "🧽", "toothbrush": "🪥", "basket": "🧺", "bed": "🛏", "couch": "🛋", "door": "🚪",
    "mirror": "🪞", "compass": "🧭", "globe": "🌍", "sun": "☀", "star": "⭐", "cloud": "☁", "rainbow": "🌈",
    "snowman": "⛄", "snowflake": "❄", "fire": "🔥", "water drop": "💧", "pumpkin": "🎃", "trophy": "🏆",
    "baseball": "⚾", "tennis racket": "🎾", "volleyball": "🏐", "rugby ball": "🏉", "boxing glove": "🥊",
    "dart board": "🎯", "kite": "🪁", "pool ball": "🎱", "crystal ball": "🔮", "game controller": "🎮", "die": "🎲",
    "puzzle piece": "🧩", "pawn": "♟", "palette": "🎨", "yarn": "🧶", "glasses": "👓", "jeans": "👖", "scarf": "🧣",
    "gloves": "🧤", "coat": "🧥", "dress": "👗", "high heel": "👠", "boot": "👢", "cap": "🧢", "helmet": "⛑",
    "lipstick": "💄", "ring": "💍", "megaphone": "📣", "microphone": "🎤", "headphones": "🎧", "saxophone": "🎷",
    "violin": "🎻", "coin": "🪙", "credit card": "💳", "magnifying glass": "🔍", "bone": "🦴", "tooth": "🦷",
    "brain": "🧠", "heart": "❤", "skull": "💀", "robot": "🤖", "ghost": "👻", "alien": "👽", "clown": "🤡",
    "feather": "🪶", "rock": "🪨", "lantern": "🏮", "roller skate": "🛼", "mug": "🍺",
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
