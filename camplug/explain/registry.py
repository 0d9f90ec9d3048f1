"""Methods by name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from camplug.errors import InputError

if TYPE_CHECKING:
    from camplug.explain.base import Explainer

_methods: dict[str, type[Explainer]] = {}
E_ = TypeVar("E_", bound="type[Explainer]")


def register(name: str) -> Callable[[E_], E_]:
    """Class decorator: make an explainer available to `create`, `list_methods` and the command line."""

    def add(cls: E_) -> E_:
        if name in _methods:
            raise ValueError(f"a method named {name!r} is registered already")
        cls.name = name
        _methods[name] = cls
        return cls

    return add


def list_methods(pattern: str = "*") -> list[str]:
    """The names of the registered methods that match a wildcard pattern, in alphabetical order.

    >>> list_methods("*grad*")
    ['gradcam', 'gradcam++', 'xgradcam']
    """
    return sorted(fnmatch.filter(_methods, pattern))


def method(name: str) -> type[Explainer]:
    """The explainer class of a name; case, "-" and "_" do not matter.

    Raises:
        InputError: no such method.
    """
    plain = name.lower().replace("-", "").replace("_", "")
    for candidate in (plain, plain.removesuffix("cam"), plain + "cam"):
        if candidate in _methods:
            return _methods[candidate]
    near = difflib.get_close_matches(plain, _methods, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"there is no method {name!r}; available are {', '.join(list_methods())}.{hint}")


def create(name: str, model: nn.Module, **options: Any) -> Explainer:
    """Build an explainer by name: `create("fully", model, layer_norm="max")`."""
    return method(name)(model, **options)
