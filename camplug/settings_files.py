"""Settings from TOML and YAML files."""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.options import parse_value
from camplug.settings import find_fields, prefix_errors, read_value


def read_settings_file(path: Path, *settings: Any) -> dict[str, Any]:
    """Return the values that a file gives to fields of settings, by name ("-" and "_" are the same).

    Args:
        path: a .toml, .yaml or .yml file.
        settings: dataclass instances.

    Raises:
        InputError: the file cannot be read, or holds a name without a field or a value of another type.
    """
    content = _load_file(path)
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    if len(values) < len(content):
        twice = next(key for key in map(str, content) if "-" in key and key.replace("-", "_") in content)
        raise InputError(f"{str(path)!r} gives {twice!r} twice, with '-' and with '_'; leave one out.")
    known = {name: entry.kind for group in settings for name, entry in find_fields(group).items()}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"{str(path)!r} has an unknown option {name!r}; allowed are {', '.join(known)}{hint}")
    with prefix_errors(repr(str(path))):
        return {name: read_value(known[name], value, name) for name, value in values.items()}


def parse_config(text: str, suffix: str, what: str = "a configuration") -> Any:
    """Return the data of a TOML or YAML text.

    Args:
        text: content of the file.
        suffix: ".toml", ".yaml" or ".yml".
        what: name of the file, for messages.

    Raises:
        InputError: another suffix, or a text of another form.
    """
    import yaml

    if suffix not in (".toml", ".yaml", ".yml"):
        raise InputError(f"{what} is a .toml, .yaml or .yml file.")
    try:
        return tomllib.loads(text) if suffix == ".toml" else yaml.load(text, _make_loader())
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        kind = "TOML" if suffix == ".toml" else "YAML"
        raise InputError(f"this is not {kind} ({' '.join(str(error).split())}).") from None


@cache
def _make_loader() -> Any:
    """Return YAML's safe loader, which in addition refuses a name that stands twice in one section."""
    import yaml

    class UniqueLoader(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            for name in (n for n, count in Counter(map(str, names)).items() if count > 1):
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", node.start_mark)
            return super().construct_mapping(node, deep)

    return UniqueLoader


def set_value(sections: dict[str, Any], change: str) -> None:
    """Set a value in nested sections.

    Args:
        sections: data of a file, changed in place.
        change: "section.setting=value", as given to `--set`; the value is read as YAML.

    Raises:
        InputError: the change is of another form.
    """
    path, equals, text = change.partition("=")
    names = [name.strip() for name in path.split(".")]
    if not equals or not all(names):
        raise InputError(f"--set {change!r} cannot be read; write for instance --set seeds.explainer=CAM.")
    place: Any = sections
    for name in names[:-1]:
        if not isinstance(place.get(name), dict):
            place[name] = {}
        place = place[name]
    place[names[-1]] = parse_value(text)


def _load_file(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"there is no configuration file {str(path)!r} that can be read.") from None
    with prefix_errors(repr(str(path))):
        found = parse_config(text, path.suffix.lower())
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} holds no options; write for instance: data = 'voc:VOCdevkit/VOC2012'.")
    return found
