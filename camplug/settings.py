"""Read dataclass settings from the command line, from files and from `--set`, by one set of rules.

pydantic (10 MB) and jsonargparse (2 MB, and it replaces typer) read dataclasses, too, but neither takes "1,2" for a
tuple or "none" for None, nor says in one sentence which file, setting and value is wrong and what is allowed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

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


def apply_values(settings: S, values: Mapping[str, Any]) -> S:
    """Return settings with those of the values that they have a field for; see `update_settings`."""
    return update_settings(settings, {name: values[name] for name in list_settings(settings) if name in values})


def list_settings(settings: Any) -> list[str]:
    """Return the names that `update_settings` takes: the fields of the settings and of nested settings."""
    return list(find_fields(settings))


@dataclass(frozen=True)
class SettingsField:
    """Field of settings.

    Attributes:
        kind: the type.
        default: the value in the settings.
        help: the entry below "Args:" of the class's docstring, or "".
        extras: metadata of an `Annotated` type.
    """

    kind: Any
    default: Any
    help: str = ""
    extras: tuple[Any, ...] = ()


def find_fields(settings: Any) -> dict[str, SettingsField]:
    """Return the fields of settings and of nested settings by name.

    Args:
        settings: a dataclass instance.
    """
    found: dict[str, SettingsField] = {}
    hints = get_type_hints(type(settings), include_extras=True)
    texts = {name: text for cls in reversed(type(settings).__mro__) for name, text in find_help(cls).items()}
    for entry in fields(settings):
        value = getattr(settings, entry.name, None)
        if not entry.init:
            continue
        if _is_settings(value):
            found |= find_fields(value)
        else:
            hint = hints[entry.name]
            kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
            found[entry.name] = SettingsField(kind, value, texts.get(entry.name, ""), tuple(extras))
    return found


def find_help(cls: type) -> dict[str, str]:
    """Return the entries below "Args:" of a docstring by name, each in one line without the markup of code.

    >>> class Settings:
    ...     '''Some.
    ...
    ...     Args:
    ...         crop: side of the
    ...             square.
    ...         low, high: its bounds.
    ...     '''
    >>> find_help(Settings)
    {'crop': 'side of the square.', 'low': 'its bounds.', 'high': 'its bounds.'}
    """
    doc = (cls.__doc__ or "").partition("Args:")[2]
    found: dict[str, str] = {}
    for match in re.finditer(r"^ {8}([\w, ]+): (.*(?:\n {12}.*)*)", doc, re.MULTILINE):
        text = " ".join(match[2].split()).replace("`", "")
        found |= {name.strip(): text for name in match[1].split(",")}
    return found


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


def restore_part(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return settings from plain data that holds other entries, too; see `restore_settings`."""
    return restore_settings(cls, {name: values[name] for name in get_type_hints(cls) if name in values})


def to_plain(settings: Any) -> Any:
    """Return settings as plain data that JSON can hold."""
    values = asdict(settings) if _is_settings(settings) else settings
    if isinstance(values, Mapping):
        return {str(k): to_plain(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [to_plain(v) for v in values]
    return values if values is None or isinstance(values, (bool, int, float, str)) else str(values)  # a date, say


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
    >>> read_value(Literal["sgd", "adamw"], "adam", "optimizer")
    Traceback (most recent call last):
    ...
    camplug.errors.InputError: optimizer='adam'; allowed are sgd, adamw.
    """
    choices = list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]
    listed = any(get_origin(choice) is Literal and value in get_args(choice) for choice in choices)
    nothing = value is None or (isinstance(value, str) and value.lower() == "none" and not listed)
    if nothing and (NoneType in choices or kind is Any):
        return None
    for choice in choices:
        try:
            return _convert(choice, value, where)
        except InputError:  # a section of the right type with a wrong value
            raise
        except (TypeError, ValueError, OverflowError):
            continue
    if all(choice is NoneType or get_origin(choice) is Literal for choice in choices):
        raise InputError(f"{where}={value!r}; allowed are {describe_type(kind)}.")
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
    words += ["none"] if NoneType in choices else []
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


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
    elif isinstance(kind, type) and isinstance(value, kind) and is_dataclass(kind):
        return value
    elif isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        check_names(value, hints, where)
        values = {k: read_value(hints[k], v, f"{where}.{k}") for k, v in value.items()}
        with prefix_errors(where):
            return kind(**values)
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
    elif kind in (str, Path) and isinstance(value, (str, kind)):
        return kind(value)
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
    if len(whole) != len(parts) or (isinstance(value, str) and not parts):
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
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        Path: "a path",
    }
    return names.get(kind, "a section of settings")
