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
