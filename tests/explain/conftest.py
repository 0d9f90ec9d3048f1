"""Fixtures of the contract tests."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

import camplug
from camplug.plug import captures


@pytest.fixture
def captured(monkeypatch):
    """Weak references to every activation and gradient that an explanation gets to see."""
    seen: list[Any] = []
    snapshot, lay_on_grid = captures.snapshot, camplug.LayerExplainer.lay_on_grid

    def watched_snapshot(tensor):
        kept = snapshot(tensor)
        seen.append(weakref.ref(kept))
        return kept

    def watched_grid(self, tensor, layer, x):
        seen.append(weakref.ref(tensor))
        return lay_on_grid(self, tensor, layer, x)

    monkeypatch.setattr(captures, "snapshot", watched_snapshot)
    monkeypatch.setattr(camplug.LayerExplainer, "lay_on_grid", watched_grid)
    return seen
