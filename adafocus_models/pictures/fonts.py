"""A font for any text: Pillow's own, or one of the system that has the characters which that lacks."""

import shutil
import subprocess
import unicodedata
import warnings
from collections.abc import Iterator
from functools import cache

from PIL import ImageFont

# Fonts of many scripts that come with Windows and macOS; elsewhere fontconfig knows what there is.
_OFTEN_THERE = ("msyh.ttc", "YuGothM.ttc", "malgun.ttf", "segoeui.ttf", "PingFang.ttc", "Arial Unicode.ttf")

# Of a code point that no font has a glyph for, to see what stands for a missing one.
_UNKNOWN = "\U0010ffff"


def font_for(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font that has the whole text, and the text to draw with it.

    Where no font here has a character, the text spells it out (`\\u4e2d`).

    Args:
        size: in pixels.

    Warns:
        UserWarning: characters are spelt out; the message says which.
    """
    own = ImageFont.load_default(size)
    missing = _missing(own, text)
    if not missing:
        return own, text
    font = _system_font("".join(sorted(set(text))), size)
    if font:
        return font, text
    warnings.warn(
        f"no font here has {', '.join(map(ascii, missing))}: drawn as codes; install one that does, Noto Sans CJK say",
        stacklevel=2,
    )
    return own, "".join(c.encode("ascii", "backslashreplace").decode() if c in missing else c for c in text)


@cache
def _system_font(characters: str, size: int) -> ImageFont.FreeTypeFont | None:
    """The first font of the system that has all the characters."""
    for file in _system_font_files(characters):
        try:
            font = ImageFont.truetype(file, size)
        except OSError:  # it is not there, or has pixels of one size alone
            continue
        if not _missing(font, characters):
            return font
    return None


def _system_font_files(characters: str) -> Iterator[str]:
    """Files, or names that Pillow finds, of fonts that may have the characters."""
    match = shutil.which("fc-match")
    if match:
        wanted = " ".join(f"{ord(c):x}" for c in characters if _is_visible(c))
        done = subprocess.run([match, "--format=%{file}", f":charset={wanted}"], capture_output=True, text=True)
        if done.stdout:
            yield done.stdout
    yield from _OFTEN_THERE


def _missing(font: ImageFont.FreeTypeFont, text: str) -> list[str]:
    """The characters of a text, each once, that a font has no glyph for."""
    absent = _shape(font, _UNKNOWN)
    return [c for c in dict.fromkeys(text) if _is_visible(c) and _shape(font, c) == absent]


def _is_visible(character: str) -> bool:
    return not (character.isspace() or unicodedata.category(character).startswith("C"))  # control characters and such


def _shape(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
