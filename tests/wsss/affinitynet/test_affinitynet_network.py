"""The feature head: its widths, its grid, and fewer stages than three."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from camplug.errors import InputError
from camplug.wsss.affinitynet import FeatureHead, grid_size


def widths(head):
    return [stage[0].out_channels for stage in head.stages]


def test_the_published_widths():
    head = FeatureHead([64, 256, 512, 1024, 2048])
    assert [stage[0].in_channels for stage in head.stages] == [512, 1024, 2048]
    assert widths(head) == [64, 128, 256]
    assert [stage[1].num_groups for stage in head.stages] == [8, 16, 32]
    assert head.join.weight.shape == (448, 448, 1, 1)


@pytest.mark.parametrize("channels, wanted", [([5], [32]), ([5, 6], [16, 32]), ([5, 6, 7], [8, 16, 32])])
def test_fewer_stages_keep_the_wide_ones(channels, wanted, device):
    head = FeatureHead(channels, 56).to(device)
    assert widths(head) == wanted
    features = head([torch.randn(2, c, 6, 6).to(device) for c in channels], (3, 4))
    assert features.shape == (2, 56, 3, 4)


def test_forward_is_the_formula(device):
    head = FeatureHead([2, 3, 4, 5], 56).to(device)
    maps = [torch.randn(1, c, s, s).to(device) for c, s in ((2, 32), (3, 8), (4, 4), (5, 2))]
    planes = []
    for (conv, norm), x in zip(head.stages, maps[1:], strict=True):
        y = F.group_norm(F.conv2d(x, conv.weight), conv.out_channels // 8, norm.weight, norm.bias)
        planes.append(F.elu(F.interpolate(y, (4, 4), mode="bilinear", align_corners=False)))
    wanted = F.elu(F.conv2d(torch.cat(planes, 1), head.join.weight))
    torch.testing.assert_close(head(maps, (4, 4)), wanted)


@pytest.mark.parametrize("width", [0, 55, 57, 100, -56])
def test_widths_that_do_not_divide(width):
    with pytest.raises(InputError, match="multiple of 56"):
        FeatureHead([3], width)


@pytest.mark.parametrize("side, wanted", [(1, 1), (8, 1), (9, 2), (375, 47), (500, 63)])
def test_grid_size_rounds_up(side, wanted):
    assert grid_size(side, 8 * side) == (wanted, side)
