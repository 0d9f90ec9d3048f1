"""Options that several commands take, written down once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_type_hints

Command = Callable[..., None]


def takes(*groups: type) -> Callable[[Command], Command]:
    """Decorator: the command also takes the options that the groups' attributes describe, through its `**given`.

    Args:
        groups: classes whose annotated attributes are options, with their defaults.
    """

    def add(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(group, name), annotation=annotation)
            for group in groups
            for name, annotation in get_type_hints(group, include_extras=True).items()
        ]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        command.__signature__ = signature.replace(parameters=[*shared, *own])  # type: ignore[attr-defined]
        return command

    return add
