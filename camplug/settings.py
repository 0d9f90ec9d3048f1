"""Read dataclass settings from the command line, from TOML and YAML files and from `--set`, by one set of rules.

The settings are plain dataclasses, so the library needs no reader. pydantic coerces by other rules and reports by JSON
path; jsonargparse replaces typer and brings its own help. Both are larger than the rules below.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from camplug.errors import InputError

S = TypeVar("S")
T = TypeVar("T")


def update_settings(settings: S, values: Mapping[str, Any], where: str = "") -> S:
    """Return settings with the given values, also in nested settings.

    Args:
        settings: a dataclass instance.
        values: new values by field name; fields of nested dataclasses are named without a prefix.
        where: name of the section, for messages.

    Raises:
        InputError: a name without a field; a value of another type or out of its range.

    >>> from camplug.wsss.train import ScheduleSettings
    >>> update_settings(ScheduleSettings(), {"lr": "1e-3", "optimizer": "adamw"}, "deeplab").lr
    0.001
    >>> update_settings(ScheduleSettings(), {"optimiser": "adamw"}, "deeplab")
    Traceback (most recent call last):
    ...
    camplug.errors.InputError: deeplab.optimiser: there is no such setting; did you mean 'optimizer'?
    """
    check_names(values, list_settings(settings), where)
    return _update(settings, values, where)


def list_settings(settings: Any) -> list[str]:
    """Return the names that `update_settings` takes: the fields of the settings and of nested settings."""
    names: list[str] = []
    for entry in fields(settings):
        if entry.init:
            value = getattr(settings, entry.name, None)
            names += list_settings(value) if _is_settings(value) else [entry.name]
    return names


def check_names(section: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Raise `InputError` for a name that is not allowed, with the nearest allowed one."""
    known = list(allowed)
    for name in section:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}."
            path = f"{where}.{name}" if where else str(name)
            raise InputError(f"{path}: there is no such {'setting' if where else 'section'}; {hint}")


def restore_settings(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return settings from their plain data, as `to_plain` and JSON give it."""
    found: T = read_value(cls, dict(values), cls.__name__)
    return found


def to_plain(settings: Any) -> Any:
    """Return settings as plain data that JSON can hold."""
    values = asdict(settings) if _is_settings(settings) else settings
    if isinstance(values, Mapping):
        return {str(k): to_plain(v) for k, v in values.items()}
    return [to_plain(v) for v in values] if isinstance(values, (list, tuple)) else values


@contextmanager
def prefix_errors(where: str) -> Iterator[None]:
    """Put the section's name before the message of an `InputError` raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None


def read_value(kind: Any, value: Any, where: str) -> Any:
    """Return a value as a field's type; the text "none" is None where None is allowed.

    Args:
        kind: the field's type.
        value: a value from the command line or a file.
        where: name of the setting, for messages.

    Raises:
        InputError: the value is not of the type.

    >>> read_value(tuple[int, int], "640, 480", "size"), read_value(int | None, "none", "stride")
    ((640, 480), None)
    >>> read_value(int, 2.5, "epochs")
    Traceback (most recent call last):
    ...
    camplug.errors.InputError: epochs = 2.5 cannot be read; give a whole number.
    """
    choices = list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]
    nothing = value is None or (isinstance(value, str) and value.lower() == "none")
    if nothing and (NoneType in choices or kind is Any):
        return None
    for choice in choices:
        try:
            return _convert(choice, value, where)
        except (TypeError, ValueError, OverflowError):
            continue
    raise InputError(f"{where} = {value!r} cannot be read; give {describe_type(kind)}.")


def describe_type(kind: Any) -> str:
    """Return a field's type in words, for messages.

    >>> describe_type(float | tuple[float, float, float] | None)
    '1 or 3 numbers separated by commas or none'
    """
    choices = list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]
    words = [_describe(choice) for choice in choices if choice is not NoneType]
    if float in choices and any(re.match(r"\d+ numbers", word) for word in words):
        words.remove("a number")
        words = [f"1 or {word}" for word in words]
    return " or ".join([*words, "none"] if NoneType in choices else words)


def _update(settings: S, section: Mapping[str, Any], where: str) -> S:
    hints = get_type_hints(type(settings))
    values: dict[str, Any] = {}
    for entry in fields(settings):  # type: ignore[arg-type]
        now = getattr(settings, entry.name)
        if _is_settings(now) and entry.init:
            values[entry.name] = _update(now, section, where)
        elif entry.name in section:
            path = f"{where}.{entry.name}" if where else entry.name
            values[entry.name] = read_value(hints[entry.name], section[entry.name], path)
    with prefix_errors(where):
        return replace(settings, **values)  # type: ignore[type-var]


def _is_settings(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Return a value as one type that is no union.

    Raises:
        TypeError: the value is not of the type; ValueError, OverflowError: likewise, from int() and float().
    """
    origin = get_origin(kind) or kind
    if kind is Any:
        return value
    if origin is Literal:
        if value in get_args(kind):
            return value
    elif isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        check_names(value, hints, where)
        return kind(**{k: read_value(hints[k], v, f"{where}.{k}") for k, v in value.items()})
    elif origin is tuple and not isinstance(value, Mapping):
        return _convert_tuple(get_args(kind), value, where)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        return _convert_number(kind, value)
    elif kind is str and isinstance(value, str):
        return value
    raise TypeError


def _convert_number(kind: type[int] | type[float], value: Any) -> int | float:
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise TypeError
    number = kind(value)
    if math.isnan(number):
        raise ValueError
    return number


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    parts = [p for p in re.split(r"[\s,]+", value) if p] if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, (list, tuple)) else [parts]
    whole = [kinds[0]] * len(parts) if Ellipsis in kinds else list(kinds)
    if len(whole) != len(parts):
        raise TypeError
    return tuple(_convert(kind, part, where) for kind, part in zip(whole, parts, strict=True))


def _describe(kind: Any) -> str:
    """Return a type in words, for messages."""
    origin = get_origin(kind) or kind
    if origin is Literal:
        return ", ".join(map(str, get_args(kind)))
    if origin is tuple:
        count = "" if Ellipsis in get_args(kind) else f"{len(get_args(kind))} "
        return f"{count}{'names' if get_args(kind)[0] is str else 'numbers'} separated by commas"
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(kind, "a section of settings")
