"""Registries that forget what a test registers."""

from __future__ import annotations

import pytest

from camplug.explain import registry
from camplug.models import hosts
from camplug.trust import registry as metrics
from camplug.wsss.classifier import method
from camplug.wsss.data import opening
from camplug.wsss.recipe import stage, walks

REGISTRIES = (
    (hosts, "HOSTS"),
    (metrics, "_metrics"),
    (registry, "_methods"),
    (registry, "_wrappers"),
    (method, "_METHODS"),
    (walks, "WALKS"),
    (stage, "_KINDS"),
    (opening, "OPENERS"),
    (opening, "OPTIONS"),
)


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every registry a copy for the time of a test."""
    for module, name in REGISTRIES:
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
