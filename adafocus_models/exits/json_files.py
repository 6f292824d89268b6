"""JSON files of results that take time to find: written whole or not at all, read only if they are what they say."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adafocus_ops.checks import require

from .whole_files import written_whole


def write_json(path: str | os.PathLike, file_format: str, version: int, content: Mapping[str, Any]) -> None:
    """Writes a file of this format and version; what is there already stays until the new one is complete."""
    whole = {"format": file_format, "version": version, **content}
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike, file_format: str, version: int, what: str) -> dict[str, Any]:
    """The content of a file that `write_json` wrote.

    Args:
        what: it holds, in the plural, for messages.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is of another format or version, or no JSON.
    """
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"{path} must be a JSON file of {what}, but it cannot be read: {error}") from error
    is_ours = isinstance(content, dict) and content.get("format") == file_format
    require(is_ours, lambda: f'{path} must be a file of {what}, with "format": "{file_format}"')
    found = content.get("version")
    require(found == version, lambda: f"{path} must be of version {version}, got {found!r}")
    return content


def format_of(path: str | os.PathLike) -> str | None:
    """The format that a file says it is of; None if it says none. Raises OSError where it cannot be opened."""
    try:
        content = json.loads(Path(path).read_text())
    except ValueError:
        return None
    return content.get("format") if isinstance(content, dict) else None
