"""ViT and Swin: token layers against the slow reference, square and not, with and without prefix tokens."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from reference import FORMULAS, record, reference_cam, reference_map, relative_error
from torch import nn

import camplug
from camplug.wsss.classifier.network import build_classifier


def vit(size=(32, 64), **options):
    torch.manual_seed(1)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=size, patch_size=16, embed_dim=24, depth=3, num_heads=2, num_classes=5, **options
    )
    nn.init.normal_(model.head.weight)
    return model.double().eval()


def swin(size=(64, 96)):
    torch.manual_seed(1)
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=size, patch_size=4, window_size=4, embed_dim=12, depths=(1, 2), num_heads=(2, 2), num_classes=5
    )
    nn.init.normal_(model.head.fc.weight)
    return model.double().eval()


def cut(prefix, h, w):
    return lambda t: t[:, prefix:].transpose(1, 2).reshape(t.shape[0], -1, h, w)


def channels_first(t):
    return t.permute(0, 3, 1, 2)


CASES = {
    "class token": (vit, {}, cut(1, 2, 4), "norm1"),
    "registers": (vit, {"reg_tokens": 4}, cut(5, 2, 4), "norm1"),
    "average pooling": (vit, {"class_token": False, "global_pool": "avg"}, cut(0, 2, 4), None),
    "tall": (vit, {"size": (96, 32)}, cut(1, 6, 2), "norm1"),
    "swin": (swin, {}, channels_first, None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", FORMULAS)
def test_equals_the_slow_reference(name, method, device):
    make, options, grid, norm = CASES[name]
    model = make(**options).to(device)
    blocks = [n for n, m in model.named_modules() if type(m).__name__ in ("Block", "SwinTransformerBlock")]
    layers = [f"{b}.{norm}" if norm else b for b in blocks]
    layers = layers if method == "fully" else layers[-1:]
    size = options.get("size", (64, 96) if make is swin else (32, 64))
    x = torch.randn(1, 3, *size).to(device, torch.float64)
    want = int(model(x).argmax())
    expected = reference_map(method, model, layers, x, lambda y: y[:, want], grid=grid)
    got = camplug.create(method, model).maps(x, want)[0]
    assert got.shape == size
    assert got.device == x.device
    assert expected.max() == 1
    assert relative_error(got, expected) <= 1e-5


def test_the_last_block_of_a_class_token_model_is_not_silently_empty(device):
    model, x = vit().to(device), torch.randn(2, 3, 32, 64).to(device, torch.float64)
    assert (camplug.GradCAM(model).maps(x).amax((1, 2)) == 1).all()


def test_cam_of_swin_and_of_a_class_token_model(device):
    model, x = swin().to(device), torch.randn(1, 3, 64, 96).to(device, torch.float64)
    (features, _), *_ = record(model, ["norm"], x, lambda y: y[:, 2])[0]
    expected = reference_cam(channels_first(features)[0], model.head.fc.weight[2], (64, 96))
    assert relative_error(camplug.CAM(model).maps(x, 2)[0], expected) <= 1e-5
    with pytest.raises(camplug.ModelError, match="VisionTransformer does not"):
        camplug.CAM(vit().to(device)).maps(torch.randn(1, 3, 32, 64).to(device, torch.float64), 2)


def test_torchvision_transformers(device):
    torch.manual_seed(0)
    model = torchvision.models.vision_transformer.VisionTransformer(64, 16, 2, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads[-1].weight)
    model, x = model.to(device), torch.randn(1, 3, 64, 64).to(device)
    layers = ["encoder.layers.encoder_layer_1.ln_1"]
    expected = reference_map("gradcam", model, layers, x, lambda y: y[:, 1], grid=cut(1, 4, 4))
    assert relative_error(camplug.GradCAM(model).maps(x, 1)[0], expected) <= 1e-4


def test_own_reshape(device):
    model, x = vit().to(device), torch.randn(1, 3, 32, 64).to(device, torch.float64)
    got = camplug.LayerCAM(model, "blocks.1", reshape=cut(1, 2, 4)).maps(x, 1)
    assert torch.equal(got, camplug.LayerCAM(model, "blocks.1").maps(x, 1))


def test_a_layer_that_is_no_grid_is_refused_by_name():
    model, x = vit(), torch.randn(1, 3, 32, 64).double()
    with pytest.raises(camplug.LayerError, match=r"'fc_norm'.*reshape=|'head'.*reshape="):
        camplug.GradCAM(model, "head").maps(x, 1)


@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_a_head_of_zeros_settles_nothing(method, device):
    """As torchvision's transformers begin: no map yet; weights that come later are explained as from the start."""
    model, x = vit().to(device), torch.randn(2, 3, 32, 64).to(device, torch.float64)
    trained = camplug.create(method, model).maps(x, 2)
    head = model.head.weight.detach().clone()
    late = vit().to(device)
    with torch.no_grad():
        late.head.weight.zero_()
        assert not camplug.create(method, late).maps(x, 2).any()
        late.head.weight.copy_(head)
    assert trained.any()
    torch.testing.assert_close(camplug.create(method, late).maps(x, 2), trained)


@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_a_head_of_1x1_convolutions_on_tokens_laid_out_as_a_map(method, device):
    """The layers are those of a transformer of its own: its blocks, or its last block."""
    body = vit((64, 64), class_token=False, global_pool="avg")
    model = build_classifier(body, list("abc"), keep_head=False).double().eval().to(device)
    x = torch.randn(1, 3, 64, 64).to(device, torch.float64)
    layers = [f"body.model.blocks.{i}" for i in range(3)]
    layers = layers if method == "fully" else layers[-1:]
    expected = reference_map(method, model, layers, x, lambda y: y[:, 1], grid=cut(0, 4, 4))
    assert relative_error(camplug.create(method, model).maps(x, 1)[0], expected) <= 1e-5
