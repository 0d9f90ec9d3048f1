"""The neck and its non-local block against the whole matrix of all pairs of positions."""

from __future__ import annotations

import pytest
import torch
from moved import everywhere, on

from camplug.errors import InputError
from camplug.wsss.rpnet import NonLocal, RegionNeck, nonlocal_mean

_on_the_device = everywhere("nonlocal_mean")


def slow_mean(theta, phi, g):
    """Through the [N,hw,hw] matrix of dot products."""
    positions = theta[0, 0].numel()
    matrix = theta.flatten(2).transpose(1, 2) @ phi.flatten(2)
    return (matrix / positions @ g.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(g.shape)


def slow_block(block, x):
    """In training: BN's own mean and variance, by hand."""
    y = block.out(slow_mean(block.theta(x), block.phi(x), block.g(x)))
    mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
    weight, bias = (p.view(1, -1, 1, 1) for p in (block.norm.weight, block.norm.bias))
    return x + weight * (y - mean) / (variance + block.norm.eps).sqrt() + bias


def trained(block):
    for p in block.parameters():
        torch.nn.init.normal_(p)
    return block.double()


def test_mean_golden():
    """theta = phi = g = (1, 2): y_1 = (1*1*1 + 1*2*2) / 2 = 2.5, y_2 = 2 y_1."""
    row = torch.tensor([[[[1.0, 2.0]]]])
    assert nonlocal_mean(row, row, row).flatten().tolist() == [2.5, 5.0]


def test_block_equals_the_whole_matrix_in_value_and_gradient(device):
    block = trained(NonLocal(6, 4)).train()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64, requires_grad=True)
    fast, slow = on(device, block)(x), slow_block(block, x)
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(slow)
    wanted = [x, *block.parameters()]
    found = torch.autograd.grad((fast * weights).sum(), wanted)
    expected = torch.autograd.grad((slow * weights).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("train", [True, False])
def test_block_begins_as_the_identity_and_can_learn(train):
    block = NonLocal(8).train(train)
    x = torch.randn(2, 8, 3, 3)
    assert block.theta.out_channels == 4
    assert torch.equal(block(x), x)
    (block(x) * torch.randn_like(x)).sum().backward()
    assert block.norm.weight.grad.abs().min() > 0


def test_a_grid_whose_matrix_would_not_fit():
    """256 x 256 positions: the matrix of all pairs would take 16 GiB."""
    part = torch.ones(1, 1, 256, 256)
    assert nonlocal_mean(part, part, part).unique().tolist() == [1.0]


def test_half_precision_does_not_overflow_in_between(device):
    part = torch.full((1, 1, 10, 10), 300.0).half()
    with torch.autocast(device.type, torch.bfloat16):
        found = nonlocal_mean(part, part, part)
    assert found.unique().tolist() == [300.0**3]
    with torch.autocast(device.type, torch.bfloat16):
        assert on(device, NonLocal(4))(torch.randn(2, 4, 3, 3)).isfinite().all()


def test_neck_is_reduction_then_context(device):
    neck = RegionNeck(5, 4)
    x = torch.randn(2, 5, 3, 3)
    slow = torch.einsum("oc,ncyx->noyx", neck.reduce.weight[:, :, 0, 0], x)
    torch.testing.assert_close(neck.reduce_channels(x), slow)
    assert neck.reduce_channels(x).min() < 0
    torch.testing.assert_close(on(device, neck)(x), slow)  # the context is the identity yet
    trained(neck).eval()
    y = neck.reduce_channels(x.double())
    torch.testing.assert_close(neck(x.double()), neck.context(y))
    assert not torch.allclose(neck.context(y), y)


def test_neck_is_built_again_from_its_settings():
    neck = trained(RegionNeck(6, 3)).eval()
    again = RegionNeck(**neck.settings()).double().eval()
    again.load_state_dict(neck.state_dict())
    x = torch.randn(1, 6, 2, 2, dtype=torch.float64)
    assert torch.equal(again(x), neck(x))
    assert RegionNeck(6).settings() == {"channels": 6, "width": 512, "enhanced_block": "own"}


@pytest.mark.parametrize("width", [4, 6, 9])
def test_a_trained_head_gives_the_same_maps_behind_the_neck(width):
    """Also where the neck has as many channels as the body, or more."""
    weight, x = torch.randn(3, 6), torch.randn(2, 6, 3, 3)
    neck = RegionNeck(6, width).eval()
    moved = neck.take_head(weight)
    wanted = torch.einsum("ck,nkyx->ncyx", weight, x)
    torch.testing.assert_close(torch.einsum("ck,nkyx->ncyx", moved, neck(x)), wanted, atol=1e-5, rtol=1e-5)
    rows = neck.reduce.weight[: min(width, 6), :, 0, 0]
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_the_enhanced_branch_has_its_own_block():
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    own, shared = (trained(RegionNeck(6, 4, kind)).train() for kind in ("own", "shared"))
    torch.testing.assert_close(own.enhance(x), slow_block(own.enhanced_context, x))
    torch.testing.assert_close(shared.enhance(x), slow_block(shared.context, x))
    assert not torch.allclose(own.enhance(x), own.context(x))
    assert RegionNeck(**shared.settings()).state_dict().keys() == shared.state_dict().keys()


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: NonLocal(0), "channels=0, width=1; give 1 or more"),
        (lambda: NonLocal(4, 0), "channels=4, width=0; give 1 or more"),
        (lambda: RegionNeck(0), "channels=0, width=512; give 1 or more"),
        (lambda: RegionNeck(8, -2), "channels=8, width=-2; give 1 or more"),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
