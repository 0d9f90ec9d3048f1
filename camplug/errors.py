"""The exceptions that camplug raises: one sentence each, saying what was given, what is allowed and how to mend it."""

from __future__ import annotations


class CamplugError(Exception):
    """Base of everything that camplug raises on purpose; the command line shows its text and exits with code 2."""


class LayerError(CamplugError, ValueError):
    """A layer that does not exist, did not run, cannot be laid on a grid, or cannot be differentiated."""


class TargetError(CamplugError, ValueError):
    """A class, a name or a score that the model's output does not offer."""


class InputError(CamplugError, ValueError):
    """An image, a tensor, a file or an option that cannot be used."""


class ModelError(CamplugError, ValueError):
    """A model on which the method cannot work, or that could not be loaded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the CPU or on a device."""
    says = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(t in says for t in ("outofmemory", "out of memory", "can't allocate"))


def size_error(error: BaseException, size: tuple[int, int], called: str = "") -> ModelError:
    """Return what is said where a model fails on images of a size, which it may not take or memory may not hold.

    Args:
        error: that the model raised.
        size: height and width of the images.
        called: what they are and how to do without them.
    """
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    which = f", which is {called}" if called else ""
    if is_out_of_memory(error):
        hint = "" if called else "; give a smaller long side or crop, or a smaller batch"
        return ModelError(f"out of memory on images of {size[0]}x{size[1]} pixels ({first.rstrip('.')}){which}{hint}.")
    return ModelError(f"the model does not take images of {size[0]}x{size[1]} pixels ({first}){which}.")
