"""The focused-unfocused module on a level of the pyramid, against loops over positions."""

from __future__ import annotations

import json

import pytest
import torch
from moved import on
from torch import nn

from camplug.errors import InputError
from camplug.wsss.atm import PyramidFUM, context_relation
from camplug.wsss.classifier.body import Body, find_cut
from camplug.wsss.classifier.stages import find_neck_stage, run_with_stage

PARTS = ("channel_attention", "spatial_attention", "atrous", "context")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def fum_of(*parts, **options):
    chosen = {part: part in parts for part in PARTS}
    return PyramidFUM(6, stage="1", stage_channels=4, lateral=8, reduction=2, **chosen, **options)


def inputs(n=2, size=(2, 3)):
    return torch.randn(n, 6, *size), torch.randn(n, 4, 2 * size[0], 2 * size[1])


def test_relation_golden_numbers():
    """Positions (3,1), (1,3), (2,1), (2,3) about their mean (2,2): cosines 1, 0 and s = .7071."""
    fum = PyramidFUM(1, stage="1", stage_channels=2, lateral=2, **{part: part == "context" for part in PARTS})
    with torch.no_grad():
        fum.lateral.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]])[..., None, None])  # keeps the angles
    earlier = torch.tensor([[[[3.0, 1.0], [2.0, 2.0]], [[1.0, 3.0], [1.0, 3.0]]]])
    s = 0.5**0.5
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    rows = [1 + 3 * s, 2 + 4 * s, s + 3, 2 * s + 4]
    torch.testing.assert_close(fum(x, earlier).flatten(), torch.tensor(rows) / (1 + s), atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_trained_module_equals_a_loop(device):
    fum = fum_of(*PARTS, dilations=(1, 2)).eval()
    for parameter in fum.parameters():
        parameter.normal_(0, 0.5)
    x, earlier = inputs()
    up = nn.functional.interpolate(x, (4, 6), mode="bilinear")
    attended = 2 * fum.spatial_attention(2 * fum.channel_attention(up))
    level = torch.zeros(2, 8, 4, 6)
    for y in range(4):
        for u in range(6):
            level[:, :, y, u] = earlier[:, :, y, u] @ fum.lateral.weight[..., 0, 0].T
            level[:, :, y, u] += up[:, :, y, u] @ fum.top.weight[..., 0, 0].T
    unfocused = fum.atrous(level)
    relation = context_relation(level + fum.relate(unfocused), centred=True)
    expected = fum.project(unfocused)
    for i in range(2):
        for m in range(24):
            mixed = sum(relation[i, m, k] * attended[i, :, k // 6, k % 6] for k in range(24))
            expected[i, :, m // 6, m % 6] += mixed
    torch.testing.assert_close(on(device, fum)(x, earlier), expected, atol=1e-4, rtol=1e-4)


def test_the_untrained_module_is_the_relation_of_the_earlier_stage():
    fum, (x, earlier) = fum_of(*PARTS), inputs()
    up = nn.functional.interpolate(x, (4, 6), mode="bilinear")
    relation = context_relation(earlier, centred=True)  # 8 orthonormal columns of 4 keep all inner products
    torch.testing.assert_close(
        fum(x, earlier), (relation @ up.flatten(2).mT).mT.reshape(up.shape), atol=1e-5, rtol=1e-5
    )
    for parts in ((), ("atrous",), ("channel_attention", "spatial_attention")):
        torch.testing.assert_close(fum_of(*parts)(x, earlier), up)
    assert not list(fum_of().parameters())


@pytest.mark.parametrize("parts", [PARTS, ("atrous",), ("context",), ("channel_attention", "atrous")], ids=str)
def test_every_part_learns(parts):
    fum, (x, earlier) = fum_of(*parts), inputs()
    wanted = torch.randn(2, 6, 4, 6)
    optimizer = torch.optim.SGD(fum.parameters(), 0.5)
    before = {name: p.detach().clone() for name, p in fum.named_parameters()}
    for _ in range(3):  # what stands before a zero moves after it has
        optimizer.zero_grad()
        (fum(x, earlier) - wanted).square().mean().backward()
        optimizer.step()
    still = [name for name, p in fum.named_parameters() if torch.equal(p, before[name])]
    assert all(p.isfinite().all() for p in fum.parameters())
    assert still == [] or parts == ("context",)


def test_settings_rebuild_the_module():
    fum, (x, earlier) = fum_of(*PARTS, width=3, dilations=(1, 2)).eval(), inputs()
    again = PyramidFUM(**json.loads(json.dumps(fum.settings()))).eval()
    again.load_state_dict(fum.state_dict())
    assert torch.equal(again(x, earlier), fum(x, earlier))
    assert again.settings() == fum.settings()


def test_refused():
    with pytest.raises(InputError, match="stage_channels=0; give a whole number from 1 up"):
        PyramidFUM(4, stage="1", stage_channels=0)
    with pytest.raises(InputError, match=r"features \[2, 3, 2, 3\]; this FUM takes \[N,6,h,w\]"):
        fum_of("context")(torch.zeros(2, 3, 2, 3), torch.zeros(2, 4, 4, 6))
    with pytest.raises(InputError, match=r"features of the stage \[2, 6, 4, 6\]; this FUM takes \[N,4,h,w\]"):
        fum_of("context")(torch.zeros(2, 6, 2, 3), torch.zeros(2, 6, 4, 6))
    with pytest.raises(InputError, match="features of 4 x 6 are 24 positions, more than most_positions=9"):
        fum_of("context", most_positions=9)(*inputs())


def body_of(*strides):
    """A network with one convolution and an in-place ReLU for each stride."""
    layers = [nn.Sequential(nn.Conv2d(3, 3, 3, stride, 1), nn.ReLU(inplace=True)) for stride in strides]
    model = nn.Sequential(*layers).eval()
    model.pretrained_cfg = {"input_size": (3, 32, 32)}
    return Body(model, find_cut(model))


@pytest.mark.parametrize(
    "strides, stage, layer",
    [
        ((2, 1, 2), "auto", "model.1"),
        ((2, 2, 2), "2", "model.0"),
        ((2, 4), "auto", "model"),
        ((2, 2), "0.0", "model.0.0"),
    ],
)
def test_the_stage_of_a_neck(strides, stage, layer):
    """Half the stride of the last map, a stride, none of half the stride, a name."""
    assert find_neck_stage(body_of(*strides), stage) == (layer, 3)


@torch.no_grad()
def test_the_map_of_a_stage_is_that_of_the_layer_before_an_in_place_one():
    body, x = body_of(2, 2), torch.randn(1, 3, 8, 8)
    last, earlier = run_with_stage(body, x, "model.0.0")
    torch.testing.assert_close(earlier, body.model[0][0](x))
    torch.testing.assert_close(last, body(x))
    assert not body.model[0][0]._forward_hooks
