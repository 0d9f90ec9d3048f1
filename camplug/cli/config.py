"""Options from a file: TOML or YAML, with the names that they have on the command line."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from camplug.errors import InputError


def read_config(path: Path | None, allowed: dict[str, Any]) -> dict[str, Any]:
    """The options that a file gives, by name ("-" and "_" are the same), checked; none without a file.

    Args:
        path: a .toml, .yaml or .yml file.
        allowed: the types of the options that may stand in it.

    Raises:
        InputError: the file cannot be read, or holds an unknown option or a value of another type.
    """
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"there is no configuration file {str(path)!r} that can be read.") from None
    suffix = path.suffix.lower()
    if suffix == ".toml":
        try:
            found: Any = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{str(path)!r} is not TOML ({error}).") from None
    elif suffix in (".yaml", ".yml"):
        import yaml

        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"{str(path)!r} is not YAML ({' '.join(str(error).split())}).") from None
    else:
        raise InputError(f"{str(path)!r}: a configuration is a .toml, .yaml or .yml file.")
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} holds no options; write for instance: data = 'voc:VOCdevkit/VOC2012'.")
    options = {str(key).replace("-", "_"): value for key, value in found.items()}
    for key, value in options.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"{str(path)!r} has an unknown option {key!r}; allowed are {', '.join(allowed)}{hint}")
        kinds = allowed[key] if isinstance(allowed[key], tuple) else (allowed[key],)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{str(path)!r}: {key} = {value!r} is a {type(value).__name__}; give {names}.")
    return options
