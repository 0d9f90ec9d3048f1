"""The focused-unfocused module and its parts, against loops over positions and channels."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from moved import everywhere, on
from torch import nn

from camplug.errors import InputError
from camplug.wsss.atm import FUM, Atrous, ChannelAttention, SpatialAttention, context_relation

_on_the_device = everywhere("context_relation")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def features_of(*size):
    return torch.randn(*size, dtype=torch.float64, requires_grad=True)


def relation_by_loop(features, eps=1e-5):
    n, _, h, w = features.shape
    rows = []
    for i in range(n):
        v = [features[i, :, y, x] for y in range(h) for x in range(w)]
        length = [torch.sqrt((u * u).sum()) + eps for u in v]
        for a in range(h * w):
            row = [torch.relu((v[a] * v[b]).sum() / (length[a] * length[b])) for b in range(h * w)]
            total = sum(row) + eps
            rows += [value / total for value in row]
    return torch.stack(rows).view(n, h * w, h * w)


def conv_by_loop(x, weight, dilation):
    """A convolution of the same size over one image [C,h,w], positions off the grid counting as 0."""
    out, _, k, _ = weight.shape
    _, h, w = x.shape
    result = torch.zeros(out, h, w, dtype=x.dtype)
    for o in range(out):
        for y in range(h):
            for c in range(w):
                for i in range(k):
                    for j in range(k):
                        v, u = y + (i - k // 2) * dilation, c + (j - k // 2) * dilation
                        if 0 <= v < h and 0 <= u < w:
                            result[o, y, c] += (weight[o, :, i, j] * x[:, v, u]).sum()
    return result


def test_relation_golden_numbers():
    """Vectors (1,0), (1,1), (-1,0): cosines 1, .7071, -1 -> 0; rows divided by 1.7071, 1.7071 and 1."""
    features = torch.tensor([[[[1.0, 1.0, -1.0]], [[0.0, 1.0, 0.0]]]])
    s = math.sqrt(0.5)
    expected = torch.tensor([[[1 / (1 + s), s / (1 + s), 0], [s / (1 + s), 1 / (1 + s), 0], [0, 0, 1]]])
    torch.testing.assert_close(context_relation(features), expected, atol=1e-4, rtol=0)


def test_relation_equals_a_loop():
    features = features_of(2, 3, 2, 4)
    found, expected = context_relation(features), relation_by_loop(features)
    torch.testing.assert_close(found, expected)
    weights = torch.rand_like(found)
    gradients = [torch.autograd.grad((r * weights).sum(), features)[0] for r in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(found.sum(2), torch.ones(2, 8, dtype=torch.float64), atol=1e-4, rtol=0)


def centred_by_loop(features):
    n, _, h, w = features.shape
    means = [sum(features[i, :, y, x] for y in range(h) for x in range(w)) / (h * w) for i in range(n)]
    return torch.stack([features[i] - means[i][:, None, None] for i in range(n)])


def test_centred_relation_golden_numbers():
    """Vectors (3,1), (1,3), (2,1), (2,3) about their mean (2,2): (1,-1), (-1,1), (0,-1), (0,1); 1 and s = .7071."""
    features = torch.tensor([[[[3.0, 1.0], [2.0, 2.0]], [[1.0, 3.0], [1.0, 3.0]]]])
    s = math.sqrt(0.5)
    expected = torch.tensor([[[1, 0, s, 0], [0, 1, 0, s], [s, 0, 1, 0], [0, s, 0, 1]]]) / (1 + s)
    torch.testing.assert_close(context_relation(features, centred=True), expected, atol=1e-4, rtol=0)
    plain = context_relation(features)
    assert plain.min() > 0.15  # all related nearly alike
    assert plain.max() < 0.35


def test_centred_relation_equals_a_loop():
    features = features_of(2, 3, 2, 4)
    found, expected = context_relation(features, centred=True), relation_by_loop(centred_by_loop(features))
    torch.testing.assert_close(found, expected)
    weights = torch.rand_like(found)
    torch.testing.assert_close(*(torch.autograd.grad((r * weights).sum(), features)[0] for r in (found, expected)))
    torch.testing.assert_close(context_relation(features + 7, centred=True), found)


def test_relation_does_not_depend_on_the_scale_of_the_features():
    features = features_of(1, 3, 3, 3)
    torch.testing.assert_close(context_relation(features), context_relation(features * 50), atol=1e-4, rtol=0)


def test_relation_of_features_of_0_is_0_and_learnable():
    features = torch.zeros(1, 3, 2, 2, requires_grad=True)
    relation = context_relation(features)
    relation.square().sum().backward()
    assert relation.count_nonzero() == 0
    assert features.grad.isfinite().all()


def test_channel_attention_equals_a_loop(device):
    attention, x = ChannelAttention(8, reduction=4).double(), features_of(2, 8, 3, 2)
    first, _, second, _ = attention.gate
    assert first.weight.shape == (2, 8)
    found = on(device, attention)(x)
    for i in range(2):
        squeezed = torch.stack([x[i, c].sum() / 6 for c in range(8)])
        middle = torch.relu(first.weight @ squeezed + first.bias)
        gate = 1 / (1 + torch.exp(-(second.weight @ middle + second.bias)))
        for c in range(8):
            torch.testing.assert_close(found[i, c], x[i, c] * gate[c])


def test_channel_attention_keeps_one_middle_channel():
    assert ChannelAttention(8).gate[0].out_features == 1


def test_spatial_attention_equals_a_loop(device):
    attention, x = SpatialAttention().double(), features_of(2, 3, 4, 5)
    found = on(device, attention)(x)
    for i in range(2):
        summary = torch.zeros(2, 4, 5, dtype=torch.float64)
        for y in range(4):
            for u in range(5):
                summary[:, y, u] = torch.stack([x[i, :, y, u].sum() / 3, max(x[i, :, y, u])])
        gate = 1 / (1 + torch.exp(-conv_by_loop(summary, attention.conv.weight, 1)[0]))
        torch.testing.assert_close(found[i], x[i] * gate)


def test_atrous_equals_a_loop(device):
    """Dilation 1 is an ordinary convolution, dilation 2 has one zero between its weights."""
    atrous, x = Atrous(2, 3, (1, 2)).double().eval(), features_of(1, 2, 6, 5)
    with torch.no_grad():
        for norm in (atrous[1], atrous[4]):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
    y = x[0]
    for conv, norm, dilation in ((atrous[0], atrous[1], 1), (atrous[3], atrous[4], 2)):
        y = conv_by_loop(y, conv.weight, dilation)
        mean, deviation = (v.view(3, 1, 1) for v in (norm.running_mean, (norm.running_var + norm.eps).sqrt()))
        y = torch.relu((y - mean) / deviation)
    torch.testing.assert_close(on(device, atrous)(x)[0], y)


def test_atrous_sees_21_by_21_positions(device):
    atrous = Atrous(1, 1).double().eval()
    for m in atrous:
        if isinstance(m, nn.Conv2d):
            nn.init.ones_(m.weight)
    x = torch.ones(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(on(device, atrous)(x)[0, 0, 15, 15], x)
    seen = gradient[0, 0].nonzero()
    assert (seen.amin(0).tolist(), seen.amax(0).tolist(), len(seen)) == ([5, 5], [25, 25], 21 * 21)


def test_fum_golden_numbers(device):
    """Context alone: vectors (1,0), (1,1), (0,2) with cosines 1 s 0 / s 1 s / 0 s 1, where s = .7071."""
    x = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 1.0, 2.0]]]])
    fum = FUM(2, channel_attention=False, spatial_attention=False, atrous=False)
    s = math.sqrt(0.5)
    first = [(1 + s) / (1 + s), (s + 1) / (1 + 2 * s), s / (1 + s)]
    second = [s / (1 + s), (1 + 2 * s) / (1 + 2 * s), (s + 2) / (1 + s)]
    torch.testing.assert_close(on(device, fum)(x), torch.tensor([[[first], [second]]]), atol=1e-4, rtol=0)
    assert not list(fum.parameters())


@pytest.mark.parametrize("atrous", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_fum_is_the_relation_applied_to_the_attended_input(atrous, residual, centred, device):
    fum = FUM(8, reduction=2, atrous=atrous, residual=residual, centred=centred).double().eval()
    x = features_of(2, 8, 3, 4)
    attended = fum.spatial_attention(fum.channel_attention(x))
    features = fum.atrous(attended) if atrous else attended
    relation = relation_by_loop(centred_by_loop(features) if centred else features)
    expected = attended.clone() if residual else torch.zeros_like(attended)
    for i in range(2):
        for m in range(12):
            mixed = sum(relation[i, m, k] * attended[i, :, k // 4, k % 4] for k in range(12))
            expected[i, :, m // 4, m % 4] += mixed
    found = on(device, fum)(x)
    torch.testing.assert_close(found, expected)
    variables = [x, *fum.parameters()]
    weights = torch.rand_like(found)
    for one, other in zip(
        *(torch.autograd.grad((o * weights).sum(), variables) for o in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-6)


def test_fum_without_parts_is_the_identity():
    fum = FUM(4, channel_attention=False, spatial_attention=False, atrous=False, context=False)
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(fum(x), x)
    assert not list(fum.parameters())
    assert not list(fum.buffers())


def test_atrous_alone_begins_as_the_identity_and_learns():
    fum = FUM(8, channel_attention=False, spatial_attention=False, context=False)
    x, wanted = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 6, 6)
    assert torch.equal(fum(x), x)
    optimizer = torch.optim.SGD(fum.parameters(), 0.5)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (fum(x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert fum.atrous[0].weight.grad.abs().sum() > 0


def test_every_parameter_of_the_whole_module_gets_a_gradient(device):
    fum = FUM(16)
    on(device, fum)(torch.randn(2, 16, 5, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fum.parameters())
    assert fum.atrous[0].weight.grad.abs().sum() > 0


@torch.no_grad()
def test_attention_alone_and_its_scale():
    """Two fresh gates leave about a quarter, which the relation keeps."""
    x = torch.rand(2, 64, 9, 9)
    fum = FUM(64, atrous=False, context=False)
    attended = fum.spatial_attention(fum.channel_attention(x))
    assert torch.equal(fum(x), attended)
    assert 0.15 < float(attended.mean() / x.mean()) < 0.35
    whole = FUM(64, channel_attention=fum.channel_attention, spatial_attention=fum.spatial_attention).eval()
    assert float(whole(x).mean()) == pytest.approx(float(attended.mean()), rel=0.1)


def test_evaluation_is_deterministic_for_any_size():
    fum = FUM(8).eval()
    for size in ((1, 1), (2, 7), (13, 9)):
        x = torch.randn(1, 8, *size)
        assert torch.equal(fum(x), fum(x))
        assert fum(x).isfinite().all()
    two = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(fum(two)[:1], fum(two[:1]))


def test_one_position_stays_itself():
    fum = FUM(3, channel_attention=False, spatial_attention=False, atrous=False)
    x = torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(fum(x), x, atol=1e-3, rtol=1e-3)


def test_bfloat16_autocast_is_close(device):
    fum, x = FUM(16).eval(), torch.randn(1, 16, 6, 6)
    with torch.autocast(device.type, torch.bfloat16):
        found = on(device, fum)(x)
    torch.testing.assert_close(found.float(), fum(x), atol=0.05, rtol=0.05)


def test_positions_are_bounded_before_anything_is_computed():
    fum = FUM(2, most_positions=16, channel_attention=nn.Conv2d(2, 2, 99))  # would fail itself
    with pytest.raises(InputError, match=r"features of 4 x 5 are 20 positions, more than most_positions=16"):
        fum(torch.zeros(1, 2, 4, 5))
    with pytest.raises(InputError, match=r"take 625 MiB; give smaller images, or a larger most_positions"):
        FUM(2)(torch.zeros(4, 2, 80, 80))  # 4 images x 6400^2 numbers x 4 bytes
    assert FUM(2, most_positions=20)(torch.zeros(1, 2, 4, 5)).shape == (1, 2, 4, 5)
    assert FUM(2, context=False, most_positions=1)(torch.zeros(1, 2, 4, 5)).shape == (1, 2, 4, 5)


def test_attention_can_be_injected():
    class Half(nn.Module):
        def forward(self, x):
            return x / 2

    fum = FUM(4, channel_attention=Half(), spatial_attention=Half(), atrous=False, context=False)
    x = torch.randn(1, 4, 2, 2)
    assert torch.equal(fum(x), x / 4)
    assert [type(m) for m in fum.children()] == [Half, Half]
    with pytest.raises(InputError, match=r"an injected module \(channel_attention, spatial_attention\) cannot be"):
        fum.settings()
    with pytest.raises(
        InputError, match=r"turns features \[1, 4, 2, 2\] into \[1, 1, 2, 2\]; inject modules that keep"
    ):
        FUM(4, spatial_attention=nn.Conv2d(4, 1, 1))(x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"width": 3, "dilations": (1, 1, 2, 3), "reduction": 4, "residual": True, "most_positions": 99},
        {"channel_attention": False, "context": False},
        {"spatial_attention": False, "atrous": False},
    ],
)
def test_settings_rebuild_the_module(options):
    fum = FUM(8, **options).eval()
    settings = json.loads(json.dumps(fum.settings()))
    again = FUM(**settings).eval()
    again.load_state_dict(fum.state_dict())
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(again(x), fum(x))
    assert again.settings() == fum.settings()
    assert torch.equal(copy.deepcopy(fum)(x), fum(x))


def test_refused():
    with pytest.raises(InputError, match=r"dilations=\(0, 1, 2, 3\); .* which is \(1, 2, 3, 4\) here"):
        FUM(4, dilations=(0, 1, 2, 3))
    with pytest.raises(InputError, match=r"dilations=\(\); give whole numbers"):
        FUM(4, dilations=())
    with pytest.raises(InputError, match="channels=0, most_positions=4096"):
        FUM(0)
    with pytest.raises(InputError, match="channels=4, width=0"):
        FUM(4, width=0)
    with pytest.raises(InputError, match="channels=4, reduction=0"):
        FUM(4, reduction=0)
    with pytest.raises(InputError, match="residual=True adds to the context relation"):
        FUM(4, context=False, residual=True)
    with pytest.raises(InputError, match=r"features \[1, 3, 5, 5\]; this FUM takes \[N,4,h,w\]"):
        FUM(4)(torch.zeros(1, 3, 5, 5))
    with pytest.raises(InputError, match=r"features \[3, 5\]; give \[N,K,h,w\]"):
        context_relation(torch.zeros(3, 5))
    with pytest.raises(InputError, match="kernel=4; give an odd number"):
        SpatialAttention(4)


def test_centred_needs_the_relation():
    with pytest.raises(InputError, match="centred=True is of the context relation"):
        FUM(8, context=False, centred=True)
