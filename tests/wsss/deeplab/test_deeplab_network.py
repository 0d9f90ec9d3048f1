"""Heads against slow sums, fields of view, output strides, what is kept of the network under it."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
import trainable
from moved import on
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.plug import dense
from camplug.wsss.classifier import build_classifier
from camplug.wsss.deeplab import ASPP, DeepLabNetworkSettings, LargeFOV, V3Plus, build_deeplab, get_dilations


def slow_conv(x, conv):
    """A 3x3 convolution of a dilation, tap by tap."""
    rate, (n, _, h, w) = conv.dilation[0], x.shape
    y = torch.zeros(n, conv.out_channels, h, w, dtype=x.dtype)
    if conv.bias is not None:
        y += conv.bias.detach()[:, None, None]
    for i in range(h):
        for j in range(w):
            for a in range(3):
                for b in range(3):
                    p, q = i + (a - 1) * rate, j + (b - 1) * rate
                    if 0 <= p < h and 0 <= q < w:
                        y[:, :, i, j] += x[:, :, p, q] @ conv.weight[:, :, a, b].detach().T
    return y


def randomised(module):
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter)
    return module.double().eval()


def test_the_usual_rates():
    assert get_dilations("large-fov", 8) == (12,)
    assert get_dilations("large-fov", 16) == (6,)
    assert get_dilations("aspp", 8) == (6, 12, 18, 24)
    assert get_dilations("aspp", 16) == (3, 6, 9, 12)
    assert get_dilations("v3+", 16) == (6, 12, 18)
    assert get_dilations("v3+", 8) == (12, 24, 36)
    assert get_dilations("aspp", 32) == (2, 3, 4, 6)
    assert get_dilations("large-fov", 256) == (1,)


def test_aspp_is_the_sum_of_its_branches(device):
    head = randomised(ASPP(5, 3, (1, 2, 4)))
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    assert [b.dilation for b in head.branches] == [(1, 1), (2, 2), (4, 4)]
    wanted = sum(slow_conv(x, branch) for branch in head.branches)
    assert torch.allclose(on(device, head)(x), wanted)
    wanted = sum(branch(x) for branch in head.branches)
    ours = torch.autograd.grad(on(device, head)(x).square().sum(), [*head.parameters()])
    theirs = torch.autograd.grad(wanted.square().sum(), [*head.parameters()])
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_aspp_on_a_map_smaller_than_its_field(device):
    head = randomised(ASPP(2, 2, (6, 12)))
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64)
    assert torch.allclose(on(device, head)(x), sum(branch(x) for branch in head.branches))


def test_large_fov_by_hand(device):
    head = randomised(LargeFOV(4, 3, 6, (3,)))
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    hidden = slow_conv(x, head.wide).clamp(min=0)
    hidden = torch.einsum("nchw,dc->ndhw", hidden, head.deep.weight[:, :, 0, 0]) + head.deep.bias[:, None, None]
    wanted = torch.einsum("nchw,dc->ndhw", hidden.clamp(min=0), head.classifier.weight[:, :, 0, 0])
    assert torch.allclose(on(device, head)(x), wanted + head.classifier.bias[:, None, None])


@pytest.mark.parametrize("head, rate", [(LargeFOV(2, 2, 4, (12,)), 12), (ASPP(2, 2, (6, 24)), 24)])
def test_the_field_of_view_is_twice_the_rate_and_one(head, rate, device):
    x = torch.zeros(1, 2, 61, 61, dtype=torch.float64, requires_grad=True)
    for parameter in head.double().eval().parameters():
        nn.init.ones_(parameter)
    (seen,) = torch.autograd.grad(on(device, head)(x)[0, 0, 30, 30], x)
    rows = seen[0, 0].abs().sum(1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (30 - rate, 30 + rate)


def norm(x, conv, bn):
    y = slow_conv(x, conv) if conv.kernel_size == (3, 3) else torch.einsum("nchw,dc->ndhw", x, conv.weight[:, :, 0, 0])
    y = (y - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + bn.eps).sqrt()
    return (y * bn.weight[:, None, None] + bn.bias[:, None, None]).clamp(min=0)


def test_v3_plus_by_hand(device):
    head = randomised(V3Plus(3, 2, 3, 4, (1, 2)))
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
    x, low = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        parts = [norm(x, *branch[:2]) for branch in head.branches]
        mean = x.sum((2, 3), keepdim=True) / 16
        parts.append(norm(mean, *head.pooled[:2]).expand(-1, -1, 4, 4))
        y = F.interpolate(norm(torch.cat(parts, 1), *head.project[:2]), (8, 8), mode="bilinear", align_corners=False)
        assert head.low[0].out_channels == 48
        y = torch.cat([y, norm(low, *head.low[:2])], 1)
        for part in head.decoder:
            y = norm(y, *part[:2])
        wanted = torch.einsum("nchw,dc->ndhw", y, head.classifier.weight[:, :, 0, 0])
        assert torch.allclose(on(device, head)(x, low), wanted + head.classifier.bias[:, None, None])


def test_pooling_trains_on_a_single_image_too():
    head = V3Plus(3, 2, 2, 4, (1,)).train()
    logits = head(torch.randn(1, 3, 4, 4), torch.randn(1, 2, 8, 8))
    assert logits.shape == (1, 2, 8, 8)
    logits.sum().backward()
    assert head.pooled[0].weight.grad is not None
    assert head.pooled[1].running_mean.eq(0).all()  # one value has no statistics
    head(torch.randn(2, 3, 4, 4), torch.randn(2, 2, 8, 8))
    assert head.pooled[1].running_mean.ne(0).any()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=4).eval()


@pytest.mark.parametrize("stride, side", [(8, 8), (16, 4), (None, 2)])
def test_logits_have_the_output_stride(resnet, stride, side):
    network = build_deeplab(resnet, "ab", DeepLabNetworkSettings(output_stride=stride))
    x = torch.randn(2, 3, 64, 64)
    assert network(x).shape == (2, 3, side, side)
    assert (network.stride, network.output_stride) == (64 // side, stride)
    assert network.dilations == get_dilations("aspp", 64 // side)
    with dense(resnet, 64 // side):
        wanted = resnet.forward_features(x)
    assert torch.allclose(network.features(x)[0], wanted, atol=1e-5)


def test_v3_plus_reads_the_last_map_of_stride_4_with_its_gradient(resnet):
    network = build_deeplab(resnet, "abc", DeepLabNetworkSettings(head="v3+", width=8))
    x = torch.randn(1, 3, 64, 64)
    assert network(x).shape == (1, 4, 16, 16)
    features, low = network.features(x)
    assert features.shape[2:] == (4, 4)
    wanted = resnet.layer1(resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(x)))))
    assert torch.allclose(low, wanted, atol=1e-5)
    (gradient,) = torch.autograd.grad(low.sum(), network.body.model.conv1[0].weight)
    assert gradient.abs().sum() > 0


def test_the_model_is_left_and_the_start_does_not_depend_on_its_head(resnet):
    before = {k: v.clone() for k, v in resnet.state_dict().items()}
    torch.manual_seed(7)
    one = build_deeplab(resnet, "ab")
    classifier = build_classifier(resnet, "abcd")
    torch.manual_seed(7)
    other = build_deeplab(classifier, "ab")  # a classifier on it: neck and head are dropped
    assert trainable.same(one, other)
    assert all(torch.equal(v, before[k]) for k, v in resnet.state_dict().items())
    again = build_deeplab(one, "xyz")
    assert again.classes == ["x", "y", "z"]
    assert trainable.same(again.body, one.body)


def test_a_classifier_s_output_stride_is_kept_where_none_is_given(resnet):
    classifier = build_classifier(resnet, "ab", output_stride=16)
    assert build_deeplab(classifier, "ab", DeepLabNetworkSettings(output_stride=None)).stride == 16
    assert build_deeplab(classifier, "ab", DeepLabNetworkSettings(output_stride=8)).stride == 8


def test_torchvision_and_transformers():
    import torchvision

    network = build_deeplab(
        torchvision.models.mobilenet_v3_small(weights=None), "ab", DeepLabNetworkSettings(head="v3+")
    )
    assert network(torch.randn(1, 3, 64, 96)).shape == (1, 3, 16, 24)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=3)
    network = build_deeplab(vit, "ab", DeepLabNetworkSettings(output_stride=None))
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 3, 4, 4)
    with pytest.raises(ModelError, match=r"transformer.*; for its own output stride, give output_stride=None"):
        build_deeplab(vit, "ab")
    with pytest.raises(InputError, match="the decoder's stride '4': the network has no map of that stride"):
        build_deeplab(vit, "ab", DeepLabNetworkSettings(head="v3+", output_stride=None))


def test_what_cannot_be_built():
    with pytest.raises(InputError, match="no class to tell apart"):
        build_deeplab(trainable.net(), [])
    with pytest.raises(InputError, match="there are 255 classes; label pictures can name 1 to 254"):
        build_deeplab(trainable.net(), [str(i) for i in range(255)])


@pytest.mark.parametrize(
    "options, says",
    [
        ({"head": "fcn"}, "head='fcn'; allowed are large-fov, aspp, v3+."),
        ({"loss": "focal"}, "loss='focal'; allowed are ce, balanced."),
        ({"batch_norm": "trained"}, "batch_norm='trained'; allowed are fixed, train."),
        ({"output_stride": 12}, "output_stride=12; allowed are the powers of two: 1, 2, 4, 8, 16, 32."),
        ({"width": 0}, "width=0; give at least 1."),
        ({"dilations": ()}, r"dilations=\(\); give whole numbers from 1 on, or none for the usual ones."),
        ({"dilations": (0,)}, r"dilations=\(0,\); give whole numbers from 1 on"),
        ({"head": "large-fov", "dilations": (6, 12)}, r"dilations=\(6, 12\); the head large-fov has one."),
        ({"drop_large_losses": 1.0}, "drop_large_losses=1.0; give a share of the pixels from 0 to below 1"),
        ({"loss_scales": ()}, r"loss_scales=\(\); give factors above 0, up to 4"),
        ({"loss_scales": (1, 0)}, r"loss_scales=\(1, 0\); give factors above 0"),
        ({"head_lr": -1}, "head_lr=-1; give 0 or more."),
        ({"refinement": float("nan")}, "refinement=nan; give 0 or more."),
        ({"saliency_threshold": 0}, "saliency_threshold=0; give a value above 0, at most 1."),
        ({"cut": 0}, "cut=0; give a stride in pixels such as 8"),
    ],
)
def test_settings_out_of_their_range(options, says):
    with pytest.raises(InputError, match=says):
        DeepLabNetworkSettings(**options)
