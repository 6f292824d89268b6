"""Names of a model's classes, from a file with one on each line."""

import json
import re
import unicodedata
from pathlib import Path

from adafocus_ops.checks import require


def read_class_names(path: Path) -> list[str]:
    """A name for every class, in the order of the classes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else than one name a line; the message says what.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a text in UTF-8 ({error.reason}): save it as such") from error
    require(text != "", lambda: f"{path} must have a line for each class, but it is empty")
    require(not _is_json(text), lambda: f"{path} must have one class name on each line, but it is JSON")
    names = [line.strip() for line in text.split("\n")]
    require(len(names) > 1, lambda: f"{path} must have one class name on each line, but it has a single line")
    for number, name in enumerate(names, 1):
        require(name != "", lambda n=number: f"{path} must have one class name on each line, but line {n} is empty")
        plain = all(unicodedata.category(character) != "Cc" for character in name)
        require(plain, lambda n=number: f"{path} must have one class name on each line, but line {n} has a tab or such")
    numbered = all(re.match(r"\d+[\s,;:]|.*[,;]\s*\d+$", name) for name in names)
    require(
        not numbered,
        lambda: (
            f"{path} must have one class name on each line and nothing else, but each has a number:"
            " sort the lines by it, and take it out"
        ),
    )
    return names


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False
