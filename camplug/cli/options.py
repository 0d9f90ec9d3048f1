"""Command-line options derived from dataclass settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.models import OptionInfo, ParameterInfo

from camplug.settings import SettingsField, find_fields
from camplug.settings_files import read_settings_file

Command = Callable[..., None]


def add_options(*settings: Any) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for every field of the settings; the command gets them as keywords.

    An option that is not given is None. Its help is the field's entry in the class's docstring, its default the
    field's value; a `typer.Option` or `typer.Argument` in the field's `Annotated` type sets help, flags and the text
    shown for the default. Several numbers are separated by commas, and "none" stands for None.

    Args:
        settings: dataclass instances; of two fields of one name the first counts.
    """
    derived: dict[str, inspect.Parameter] = {}
    for name, entry in ((name, entry) for group in settings for name, entry in find_fields(group).items()):
        annotation: Any = Annotated[_option_type(entry.kind) | None, _make_option(entry)]
        made = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        derived.setdefault(name, made)

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__signature__ = signature.replace(parameters=[*derived.values(), *own])  # type: ignore[attr-defined]
        return command

    return decorate


def read_options(given: Mapping[str, Any], config: Path | None, *settings: Any) -> dict[str, Any]:
    """Return the values given for fields of the settings, those of the command line before those of the file.

    Args:
        given: options of the command line; None where not given.
        config: a TOML or YAML file of options.
        settings: dataclass instances.

    Raises:
        InputError: the file cannot be read, or has an unknown option or a value of another type.
    """
    names = {name for group in settings for name in find_fields(group)}
    values = {} if config is None else read_settings_file(config, *settings)
    return values | {name: value for name, value in given.items() if name in names and value is not None}


def _make_option(entry: SettingsField) -> ParameterInfo:
    found = next((copy(extra) for extra in entry.extras if isinstance(extra, ParameterInfo)), None)
    if found is None:
        text = re.sub(r"\bNone\b", "none", entry.help[:1].upper() + entry.help[1:])  # as it is given on a command line
        found = typer.Option(help=text, show_default=_format_default(entry.default))
    elif isinstance(found, OptionInfo) and found.show_default is True:
        found.show_default = entry.default is not None and _format_default(entry.default)
    if _option_type(entry.kind) is str:
        found.metavar = _describe_kind(entry.kind)
    return found


def _option_type(kind: Any) -> Any:
    """Return the type that typer reads; what it cannot read is text."""
    kinds = [k for k in get_args(kind) if k is not NoneType] if get_origin(kind) in (Union, UnionType) else [kind]
    if len(kinds) == 1 and kinds[0] in (bool, Path):
        return kinds[0]
    with_none = NoneType in get_args(kind)  # "none" is a value, too
    return kinds[0] if len(kinds) == 1 and kinds[0] in (int, float) and not with_none else str


def _describe_kind(kind: Any) -> str:
    """Return the placeholder of an option's value."""
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind]
    words = []
    for choice in choices:
        if get_origin(choice) is Literal:
            words += [str(value) for value in get_args(choice)]
        elif get_origin(choice) is tuple:
            words.append("NAMES" if get_args(choice)[0] is str else "NUMBERS")
        else:
            words.append({int: "INTEGER", float: "NUMBER", NoneType: "none"}.get(choice, "TEXT"))
    return "TEXT" if set(words) <= {"TEXT", "none"} else "|".join(dict.fromkeys(words))


def _format_default(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(_format_default(part) for part in default)
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
