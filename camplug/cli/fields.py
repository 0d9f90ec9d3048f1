"""Command-line options from settings: one per field, with its name and type, and help from the docstring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from camplug.errors import InputError

S = TypeVar("S")


def option_group(*settings: type) -> type:
    """A group for `camplug.cli.options.takes`: every field of dataclasses is an option, None where it is not given.

    Fields that are dataclasses themselves are left out; name their classes, too. A field of several numbers is written
    with commas, one of a whole number or a name as either, and "none" stands for None.
    """
    annotations: dict[str, Any] = {}
    for cls in settings:
        texts = described(cls)
        for name, (kind, entry) in _fields(cls).items():
            shown = _written(entry.default)
            help_text = texts.get(name, "")
            annotations[name] = Annotated[_asked(kind) | None, typer.Option(help=help_text, show_default=shown)]
    return type("Options", (), {"__annotations__": annotations, **dict.fromkeys(annotations)})


def allowed(*settings: type) -> dict[str, Any]:
    """The types that a configuration file may give the fields in."""
    return {name: _types(kind) for cls in settings for name, (kind, _) in _fields(cls).items()}


def changed(settings: S, chosen: Mapping[str, Any]) -> S:
    """Settings with the chosen values in place of their own, also in the settings within.

    Raises:
        InputError: a value that cannot be read, or is out of its range.
    """
    values: dict[str, Any] = {}
    for entry in fields(settings):  # type: ignore[arg-type]
        now = getattr(settings, entry.name)
        if is_dataclass(now) and not isinstance(now, type):
            values[entry.name] = changed(now, chosen)
    for name, (kind, _) in _fields(type(settings)).items():
        if chosen.get(name) is not None:
            values[name] = _read(name, kind, chosen[name])
    return replace(settings, **values)  # type: ignore[type-var]


def described(cls: type) -> dict[str, str]:
    """What the "Args:" of a docstring say of each name, in one line without the markup of code.

    >>> class Settings:
    ...     '''Some.
    ...
    ...     Args:
    ...         crop: side of the
    ...             square.
    ...         low, high: its bounds.
    ...     '''
    >>> described(Settings)
    {'crop': 'side of the square.', 'low': 'its bounds.', 'high': 'its bounds.'}
    """
    doc = (cls.__doc__ or "").partition("Args:")[2]
    found: dict[str, str] = {}
    for match in re.finditer(r"^ {8}([\w, ]+): (.*(?:\n {12}.*)*)", doc, re.MULTILINE):
        text = " ".join(match[2].split()).replace("`", "")
        found |= {name.strip(): text for name in match[1].split(",")}
    return found


def _fields(cls: type) -> dict[str, tuple[Any, Field[Any]]]:
    hints = get_type_hints(cls)
    return {f.name: (hints[f.name], f) for f in fields(cls) if f.init and not _nested(hints[f.name])}


def _nested(kind: Any) -> bool:
    return any(is_dataclass(k) for k in _choices(kind))


def _choices(kind: Any) -> list[Any]:
    """The types of a union, without None."""
    return [k for k in get_args(kind) if k is not NoneType] if get_origin(kind) in (Union, UnionType) else [kind]


def _asked(kind: Any) -> Any:
    """What the command line reads for a field."""
    kinds = _choices(kind)
    if NoneType in get_args(kind) and kinds != [bool]:  # "none" is a value, too
        return str
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float) else str


def _types(kind: Any) -> tuple[type, ...]:
    found: list[type] = []
    for k in _choices(kind):
        if get_origin(k) is tuple:
            found += [list, str]
        elif get_origin(k) is Literal:
            found += [type(v) for v in get_args(k)]
        elif get_origin(k) is not None:  # a mapping
            found.append(get_origin(k))
        else:
            found += [int, float] if k is float else [k]
    return tuple(dict.fromkeys([*found, str] if NoneType in get_args(kind) else found))


def _read(name: str, kind: Any, value: Any) -> Any:
    """A value as the field wants it; "none" is None where that is allowed."""
    if isinstance(value, str) and value.lower() == "none" and NoneType in get_args(kind):
        return None
    for k in _choices(kind):
        try:
            if get_origin(k) is tuple:
                parts = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else list(value)
                of = get_args(k)
                numbers = tuple(of[0](part) for part in parts)
                if Ellipsis not in of and len(numbers) != len(of):
                    continue
                return numbers
            if k in (int, float) and not isinstance(value, bool):
                return k(value)
            if k is bool and isinstance(value, bool):
                return value
            if k is str or get_origin(k) is not None:
                return value
        except (TypeError, ValueError):
            continue
    raise InputError(f"{name} = {value!r} cannot be read; give {_says(kind)}.")


def _says(kind: Any) -> str:
    kinds = []
    for k in _choices(kind):
        if get_origin(k) is tuple:
            count = "" if Ellipsis in get_args(k) else f"{len(get_args(k))} "
            kinds.append(f"{count}numbers separated by commas")
        else:
            kinds.append({int: "a whole number", float: "a number", bool: "true or false"}.get(k, "a text"))
    return " or ".join([*kinds, "none"] if NoneType in get_args(kind) else kinds)


def _written(default: Any) -> str | bool:
    if default is MISSING:
        return False
    if isinstance(default, tuple):
        return ",".join(f"{v:g}" for v in default)
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
