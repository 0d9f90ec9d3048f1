"""Settings from the sections of a recipe: checked names, checked types, and back from plain data."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from camplug.errors import InputError

S = TypeVar("S")
T = TypeVar("T")


def changed(settings: S, section: Mapping[str, Any], where: str) -> S:
    """Settings with the values of a section in place of their own, also in the settings within.

    Args:
        settings: a dataclass.
        section: values by the names of its fields; fields of dataclasses within it are named without a prefix.
        where: the section, in messages.

    Raises:
        InputError: a name that no field has; a value that cannot be read, or is out of its range.

    >>> from camplug.wsss.train import ScheduleSettings
    >>> changed(ScheduleSettings(), {"lr": "1e-3", "optimizer": "adamw"}, "deeplab").lr
    0.001
    >>> changed(ScheduleSettings(), {"optimiser": "adamw"}, "deeplab")
    Traceback (most recent call last):
    ...
    camplug.errors.InputError: deeplab.optimiser: there is no such setting; did you mean 'optimizer'?
    """
    check_names(section, names_of(settings), where)
    return _changed(settings, section, where)


def names_of(settings: Any) -> list[str]:
    """The names of all fields that `changed` takes, also of those of settings within."""
    names: list[str] = []
    for entry in fields(settings):
        if entry.init:
            value = getattr(settings, entry.name, None)
            names += names_of(value) if _within(value) else [entry.name]
    return names


def check_names(section: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Refuse a name that is not allowed.

    Raises:
        InputError: with the nearest name that is.
    """
    known = list(allowed)
    for name in section:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}."
            path = f"{where}.{name}" if where else str(name)
            raise InputError(f"{path}: there is no such {'setting' if where else 'section'}; {hint}")


def restored(cls: type[T], plain: Mapping[str, Any]) -> T:
    """The settings of which `plain` is the plain data, as `asdict` and JSON make it."""
    found: T = _read(cls, dict(plain), cls.__name__)
    return found


def plain(settings: Any) -> Any:
    """Settings as plain data: what JSON can hold."""
    values = asdict(settings) if _within(settings) else settings
    if isinstance(values, Mapping):
        return {str(k): plain(v) for k, v in values.items()}
    return [plain(v) for v in values] if isinstance(values, (list, tuple)) else values


def said(where: str, make: Callable[[], T]) -> T:
    """What `make` makes; its errors tell the section first.

    Raises:
        InputError: whenever `make` raises it.
    """
    try:
        return make()
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _changed(settings: S, section: Mapping[str, Any], where: str) -> S:
    hints = get_type_hints(type(settings))
    values: dict[str, Any] = {}
    for entry in fields(settings):  # type: ignore[arg-type]
        now = getattr(settings, entry.name)
        if _within(now) and entry.init:
            values[entry.name] = _changed(now, section, where)
        elif entry.name in section:
            values[entry.name] = _read(hints[entry.name], section[entry.name], f"{where}.{entry.name}")
    return said(where, lambda: replace(settings, **values))  # type: ignore[type-var]


def _within(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value as a field wants it; "none" is None where that is allowed."""
    choices = list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]
    nothing = value is None or (isinstance(value, str) and value.lower() == "none")
    if nothing and (NoneType in choices or kind is Any):
        return None
    for choice in choices:
        try:
            return _as(choice, value, where)
        except (TypeError, ValueError):
            continue
    wanted = " or ".join(_called(choice) for choice in choices if choice is not NoneType)
    none = " or none" if NoneType in choices else ""
    raise InputError(f"{where} = {value!r} cannot be read; give {wanted}{none}.")


def _as(kind: Any, value: Any, where: str) -> Any:
    """A value as one type; raises TypeError or ValueError where it is none of it."""
    origin = get_origin(kind) or kind
    if kind is Any:
        return value
    if origin is Literal:
        if value in get_args(kind):
            return value
    elif isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        check_names(value, hints, where)
        return kind(**{k: _read(hints[k], v, f"{where}.{k}") for k, v in value.items()})
    elif origin is tuple and not isinstance(value, Mapping):
        parts = [p for p in value.replace(",", " ").split() if p] if isinstance(value, str) else value
        parts = list(parts) if isinstance(parts, (list, tuple)) else [parts]
        of = get_args(kind)
        whole = [of[0]] * len(parts) if Ellipsis in of else list(of)
        if len(whole) == len(parts):
            return tuple(_as(k, part, where) for k, part in zip(whole, parts, strict=True))
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        if not isinstance(value, bool) and not (kind is int and isinstance(value, float) and value != int(value)):
            return kind(value)
    elif kind is str and isinstance(value, str):
        return value
    raise TypeError


def _called(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return ", ".join(map(str, get_args(kind)))
    if origin is tuple:
        count = "" if Ellipsis in get_args(kind) else f"{len(get_args(kind))} "
        return f"a list of {count}{'texts' if get_args(kind)[0] is str else 'numbers'}"
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(kind, "a section of settings")
