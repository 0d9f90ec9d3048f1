"""Options behind a question mark, as in "net.onnx?side=320", and values of texts."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from camplug.errors import InputError


def parse_value(text: str) -> Any:
    """Return a value read as YAML, or the text itself where it is none.

    >>> parse_value("0.5"), parse_value("[1, 2]"), parse_value("{")
    (0.5, [1, 2], '{')
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def split_options(text: str, example: str) -> tuple[str, dict[str, Any]]:
    """Split a text into the part before "?" and the options behind it; "none" stands for None.

    Args:
        text: a text such as "PATH?one=1&other=2", with %XX for special characters in the options.
        example: options for the error message.

    Raises:
        InputError: an option has no name or no value.

    >>> split_options("net.onnx?side=320", "?side=224")
    ('net.onnx', {'side': '320'})
    """
    place, mark, tail = text.partition("?")
    options = dict[str, Any]()
    for part in tail.split("&") if mark else ():
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise InputError(f"{text!r}: {part!r} is no option; write for instance {example}.")
        options[unquote(name)] = None if value == "none" else unquote(value)
    return place, options
