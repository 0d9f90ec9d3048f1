"""Tokens and channels-last maps on a grid."""

from __future__ import annotations

import pytest
import torch

from camplug import LayerError
from camplug.plug import to_grid


def on_grid(tensor, size, patch=16):
    return to_grid(tensor, size, (patch, patch), "blocks.3")


def test_feature_maps_stay():
    t = torch.randn(2, 8, 5, 7)
    assert on_grid(t, (80, 112)) is t


@pytest.mark.parametrize("prefix", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 48)])
def test_tokens_row_by_row_without_prefix(prefix, size, device):
    h, w = size[0] // 16, size[1] // 16
    cells = torch.arange(h * w, dtype=torch.float32)[None, :, None].expand(1, -1, 3)
    tokens = torch.cat([torch.full((1, prefix, 3), -1.0), cells], 1)
    got = on_grid(tokens.to(device), size).cpu()
    assert got.shape == (1, 3, h, w)
    assert torch.equal(got[0, 0], torch.arange(h * w, dtype=torch.float32).view(h, w))


def test_tokens_of_a_later_stage():
    assert on_grid(torch.randn(1, 4 * 6, 8), (64, 96), patch=4).shape == (1, 8, 4, 6)


def test_tokens_of_an_image_that_the_patches_do_not_divide():
    assert on_grid(torch.randn(1, 1 + 14 * 10, 8), (230, 170)).shape == (1, 8, 14, 10)


@pytest.mark.parametrize(("h", "w"), [(7, 7), (4, 9), (12, 5)])
def test_channels_last_maps(h, w, device):
    t = torch.randn(2, h, w, 96).to(device)
    assert torch.equal(on_grid(t, (h * 32, w * 32)), t.permute(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(1, 192), (2, 7, 3), (1, 3, 4, 5, 6)])
def test_what_is_no_grid_is_told(shape):
    with pytest.raises(LayerError, match=r"blocks\.3.*reshape="):
        on_grid(torch.randn(shape), (224, 224))
