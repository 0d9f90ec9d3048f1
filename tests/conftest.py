"""Shared fixtures: one thread (small tensors wait for each other on more), fixed seeds."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _steady():
    torch.manual_seed(0)
    torch.set_num_threads(1)
