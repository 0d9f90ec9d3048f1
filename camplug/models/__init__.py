"""Classifiers: loading by name, and the preprocessing, class names and kind of outputs that a model declares."""

from camplug.models.hosts import register_host
from camplug.models.load import FILES, MADE_WITH, list_models, load_model
from camplug.models.prompts import Prompts

__all__ = ["FILES", "MADE_WITH", "Prompts", "list_models", "load_model", "register_host"]
