"""Exceptions of camplug. Each message says what was given, what is allowed and how to mend it."""

from __future__ import annotations


class CamplugError(Exception):
    """Base class of camplug's exceptions; the command line prints the message and exits with code 2."""


class LayerError(CamplugError, ValueError):
    """Layer that does not exist, did not run, has no spatial grid, or cannot be differentiated."""


class TargetError(CamplugError, ValueError):
    """Class, class name or score that the model's output does not have."""


class InputError(CamplugError, ValueError):
    """Image, tensor, file or option that cannot be used."""


class ModelError(CamplugError, ValueError):
    """Model that the method does not support, or that could not be loaded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory ran out, on the CPU or on a device."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(t in text for t in ("outofmemory", "out of memory", "can't allocate"))


def make_size_error(error: BaseException, size: tuple[int, int], called: str = "") -> ModelError:
    """Return the error for a model that fails on images of some size.

    Args:
        error: exception of the model.
        size: height and width of the images.
        called: description of the images and way to avoid them.
    """
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    which = f", which is {called}" if called else ""
    if is_out_of_memory(error):
        hint = "" if called else "; give a smaller long side or crop, or a smaller batch"
        return ModelError(f"out of memory on images of {size[0]}x{size[1]} pixels ({first.rstrip('.')}){which}{hint}.")
    return ModelError(f"the model does not take images of {size[0]}x{size[1]} pixels ({first}){which}.")
