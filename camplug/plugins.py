"""Extensions by other packages: entry points of the group "camplug.plugins", and objects named "import:...".

A package registers its methods, wrappers, stages and data sets by the entry point

    [project.entry-points."camplug.plugins"]
    mypackage = "mypackage.camplug"

whose module is imported when a name is looked up for the first time.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.metadata import entry_points
from typing import Any

from camplug.errors import InputError

GROUP = "camplug.plugins"
PREFIX = "import:"
_is_loaded = False


def load_plugins() -> None:
    """Import the modules of all entry points of the group "camplug.plugins", once per process.

    Warns of one that cannot be imported, and goes on with the others.
    """
    global _is_loaded
    if _is_loaded:
        return
    _is_loaded = True
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # arbitrary code
            warnings.warn(
                f"the plug-in {point.name!r} ({point.value}) cannot be imported and is left out: "
                f"{type(error).__name__}: {error}",
                stacklevel=3,
            )


def import_object(text: str) -> Any:
    """Import the object that "import:PACKAGE.MODULE:NAME" names; modules of the working directory are found, too.

    Raises:
        InputError: the text has another form, or the object cannot be imported.

    >>> import_object("import:math:sqrt")(9.0)
    3.0
    """
    module, colon, name = text.removeprefix(PREFIX).partition(":")
    if not colon or not module or not name:
        raise InputError(f"{text!r} cannot be read; write import:PACKAGE.MODULE:NAME.")
    try:
        found: Any = _import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # arbitrary code
        says = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{text!r} could not be imported ({says}); write import:PACKAGE.MODULE:NAME.") from None
    return found


def import_plugin(module: str) -> None:
    """Import a module that registers extensions; modules of the working directory are found, too.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        _import_module(module)
    except Exception as error:  # arbitrary code
        says = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"the plug-in {module!r} could not be imported ({says}); name a module.") from None


def _import_module(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    return importlib.import_module(name)


def is_same_definition(old: Any, new: Any) -> bool:
    """Return whether two classes or functions have one module and name, as after a notebook cell has run again."""
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)
