"""Attributes of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def attach_lazy(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package, so that heavy libraries are imported only where needed.

    Args:
        package: `__name__` of the package, whose `__all__` lists the API.
        modules: names to import by module; a module that begins with "." lies within the package.

    Returns:
        `__getattr__`, which imports a name on first use, and `__dir__`, which lists `__all__`.
    """
    places = {name: module for module, names in modules.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(places[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return get_attribute, list_names
