"""Shared fixtures: two threads, fixed seeds, quiet random weights."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _steady():
    torch.manual_seed(0)
    torch.set_num_threads(2)
