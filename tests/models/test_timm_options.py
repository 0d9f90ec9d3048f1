"""Arguments of timm's architectures behind a model's name."""

from __future__ import annotations

import pytest

from camplug import load_model
from camplug.errors import InputError, ModelError


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
