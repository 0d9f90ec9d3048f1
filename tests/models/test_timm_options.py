"""Arguments of timm's architectures behind a model's name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from camplug import create, load_model
from camplug.errors import InputError, ModelError
from camplug.models.preprocess import find_preprocess
from camplug.wsss.deeplab import DeepLabNetworkSettings, Segmenter, build_deeplab


def test_options_of_a_timm_architecture():
    """An image size other than the architecture's own, from the model's name; explained at that size."""
    spec = "timm:test_vit?img_size=64&class_token=true"
    model = load_model(spec, pretrained=False, num_classes=3)
    assert model.patch_embed.img_size == (64, 64)
    assert model.camplug_made_with == {"model": spec, "num_classes": 3}
    assert model.pos_embed.shape == (1, 17, model.embed_dim)


@pytest.mark.parametrize(
    "spec, error, says",
    [
        ("timm:test_resnet?img_size=64", ModelError, "has no option 'img_size'; leave it out"),
        ("timm:test_resnet?img_size", InputError, "'img_size' is no option; write for instance timm:vit_small"),
    ],
)
def test_options_that_an_architecture_lacks(spec, error, says):
    with pytest.raises(error, match=says):
        load_model(spec, pretrained=False)


DYNAMIC = "timm:test_vit?dynamic_img_size=true"  # patches of 16 pixels


def test_images_of_a_transformer_for_any_size_have_whole_patches():
    model = load_model(DYNAMIC, pretrained=False)
    found = find_preprocess(model)
    assert found.keep_aspect
    assert found.multiple == 16
    x, box = replace(found, long_side=200)(Image.new("RGB", (100, 70)))
    assert x.shape == (3, 144, 192)  # 140 and 200 rounded to patches
    assert box == (0, 0, 100, 70)
    assert find_preprocess(load_model(DYNAMIC + "&dynamic_img_pad=true", pretrained=False)).multiple == 1
    fixed = find_preprocess(load_model("timm:test_vit?dynamic_img_size=false", pretrained=False))
    assert (fixed.multiple, fixed.keep_aspect) == (1, False)


@pytest.mark.parametrize(
    "line",
    ["MultiView(GradCAM, scales=(1, 1.3))", "Propagate(GradCAM, strides=(16,))", "SplitUnite(GradCAM, zoom=1.3)"],
)
def test_wrappers_give_it_whole_patches(line):
    """Each image that the model sees has sides of whole patches, near the size that the wrapper wants."""
    torch.manual_seed(0)
    model, seen = load_model(DYNAMIC, pretrained=False, num_classes=3), set()
    model.patch_embed.register_forward_pre_hook(lambda _, args: seen.add(tuple(args[0].shape[2:])))
    maps = create(line, model).maps(torch.rand(1, 3, 192, 128), 1)
    assert maps.shape == (1, 192, 128)
    assert maps.isfinite().all()
    assert {side % 16 for size in seen for side in size} == {0}
    assert len(seen) > 1
    if "(1, 1.3)" in line:
        assert seen == {(192, 128), (256, 160)}  # 249.6 and 166.4


def test_deeplab_on_it_has_the_patch_as_stride():
    network = build_deeplab(load_model(DYNAMIC, pretrained=False), "ab", DeepLabNetworkSettings(output_stride=None))
    assert network.stride == 16
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert Segmenter(network, scales=(1, 1.3)).scores(photo).shape == (3, 50, 70)
