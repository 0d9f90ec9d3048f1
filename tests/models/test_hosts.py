"""Models of Hugging Face and open_clip: by folder and name, with their own preprocessing and class names."""

from __future__ import annotations

import json
import sys

import hosts
import numpy as np
import pytest
import torch
from PIL import Image

import camplug
from camplug.errors import InputError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.models.class_names import find_class_names
from camplug.models.image_processors import read_processor
from camplug.models.preprocess import find_preprocess

CLIP_MEAN, CLIP_STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
NAMES = {0: "cat", 1: "dog", 2: "owl", 3: "fox", 4: "hen"}


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def save_resnet(transformers, folder, **processor):
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], id2label=NAMES
    )
    model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(folder)
    hosts.save_processor(
        folder, size={"shortest_edge": 64}, resample=3, image_mean=CLIP_MEAN, image_std=CLIP_STD, **processor
    )
    return model


def test_a_folder_of_hugging_face(transformers, tmp_path):
    own = save_resnet(transformers, tmp_path)
    model = camplug.load_model(f"hf:{tmp_path}")
    x = torch.randn(2, 3, 64, 64)
    assert not model.training
    torch.testing.assert_close(model(x).logits, own(x).logits)
    assert find_preprocess(model) == Preprocess((64, 64), tuple(CLIP_MEAN), tuple(CLIP_STD), "bicubic", True)
    assert find_class_names(model, 5) == list(NAMES.values())
    found = camplug.GradCAM(model).explain(Image.fromarray(np.full((48, 80, 3), 90, np.uint8)), "dog")
    assert found.names == ["dog"]
    assert found.maps.shape == (1, 48, 80)
    changed = camplug.load_model(f"hf:{tmp_path}", num_classes=3)
    assert changed(x).logits.shape == (2, 3)
    torch.testing.assert_close(changed.resnet(x).pooler_output, own.resnet(x).pooler_output)  # the trained body
    assert changed.camplug_made_with == {"model": f"hf:{tmp_path}", "num_classes": 3}


def test_refused_folders_of_hugging_face(transformers, tmp_path):
    with pytest.raises(ModelError, match=r"there is no folder '.*none' with a Hugging Face model"):
        camplug.load_model(f"hf:{tmp_path}/none")
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    with pytest.raises(ModelError, match="is a BertForMaskedLM, which is no classifier of images"):
        camplug.load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    with pytest.raises(ModelError, match="is a ViTModel without a head for classes; give the number of classes"):
        camplug.load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"cannot be loaded \(.*\); give the name of a model on the hub"):
        camplug.load_model(f"hf:{tmp_path}")


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for spec in ("hf:a/b", "open_clip:RN50/openai"):
        with pytest.raises(ModelError, match=r'needs the package .*pip install "camplug\[hosts\]"'):
            camplug.load_model(spec)


def apply_slowly(config, pixels):
    """What the image processors of Hugging Face compute, step by step."""
    x = pixels.double()
    if config.get("do_rescale", True):
        x = x * config.get("rescale_factor", 1 / 255) - (1 if config.get("rescale_offset") else 0)
    for _ in range(2 if config.get("include_top") else 1):
        mean = 0 if config.get("include_top") and _ else torch.tensor(config["image_mean"])[:, None, None]
        x = (x - mean) / torch.tensor(config["image_std"])[:, None, None] if config.get("do_normalize", True) else x
    return x


@pytest.mark.parametrize(
    "more",
    [{}, {"rescale_offset": True, "rescale_factor": 1 / 127.5}, {"do_rescale": False}, {"do_normalize": False},
     {"include_top": True}],
    ids=["plain", "offset", "raw", "unnormalised", "twice"],
)  # fmt: skip
def test_values_of_image_processors(more):
    config = {"size": 8, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, **more}
    pixels = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = read_processor(config).normalize(pixels)
    torch.testing.assert_close(found.double(), apply_slowly(config, pixels), rtol=1e-5, atol=2e-4)


def test_sizes_of_image_processors():
    mean = {"image_mean": [0.5], "image_std": [0.5]}
    assert read_processor({"size": {"shortest_edge": 256}, "crop_size": {"height": 32, "width": 48}, **mean}).size == (
        32,
        48,
    )
    assert read_processor({"size": {"shortest_edge": 256}, "crop_size": 32, "do_center_crop": False, **mean}).size == (
        256,
        256,
    )
    with pytest.raises(InputError, match="puts colours in the order blue, green, red"):
        read_processor({"size": 8, "do_flip_channel_order": True, **mean})
    with pytest.raises(InputError, match="has no size"):
        read_processor(mean)


def test_open_clip_by_name(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    with pytest.raises(ModelError, match="open_clip has no model 'RN5'; did you mean RN50"):
        camplug.load_model("open_clip:RN5/openai")
    with pytest.raises(ModelError, match="does not say which weights; write open_clip:RN50/TAG with one of openai"):
        camplug.load_model("open_clip:RN50")
    with pytest.raises(ModelError, match="takes its classes from texts; leave the number of classes out"):
        camplug.load_model("open_clip:RN50/openai", num_classes=3)
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    values = {"mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic"}
    own = open_clip.model.CLIP(16, vision, text).eval()
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": values}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.save(own.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    model = camplug.load_model(f"open_clip:{tmp_path}")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.encode_image(x), own.encode_image(x))
    found = camplug.Prompts(model, ["a cat", "a dog"])  # with the tokenizer of the folder
    assert found.preprocess == Preprocess((32, 32), tuple(CLIP_MEAN), tuple(CLIP_STD), "bicubic", keep_aspect=False)
    texts = open_clip.get_tokenizer("RN50", context_length=16)(["a cat", "a dog"])
    torch.testing.assert_close(found.text_features, own.encode_text(texts, normalize=True).detach())


SAMPLED = [
    "timm test_convnext", "hf ResNetForImageClassification", "hf SwinForImageClassification",
    "hf Dinov2WithRegistersForImageClassification", "hf SiglipModel", "hf CLIPModel", "open_clip ViT",
]  # fmt: skip


@pytest.mark.parametrize("title", SAMPLED)
def test_maps_of_the_zoo_equal_the_slow_reference(title):
    pytest.importorskip({"hf": "transformers", "open_clip": "open_clip"}.get(title.split()[0], "torch"))
    zoo = hosts.load_benchmark("zoo")
    host = zoo.find_host(title)
    model = host.make()
    for method in ("gradcam", "layercam", "fully"):
        cell = zoo.measure(host, method, model)
        assert cell.sentence == ""
        assert cell.error < 1e-10, method
        towers = [name for name in cell.layers if "text" in name or "transformer.resblocks" in name]
        assert [name for name in towers if "visual" not in name] == []  # of the image alone


@pytest.mark.parametrize("title", ["timm test_vit", "hf ViTForImageClassification"])
def test_legrad_of_the_zoo_equals_the_slow_reference(title):
    pytest.importorskip("transformers")
    zoo = hosts.load_benchmark("zoo")
    # transformers computes softmax in float32 where it shows its attention
    assert zoo.measure(zoo.find_host(title), "legrad").error < (1e-6 if title.startswith("hf") else 1e-10)


def test_packed_sequences_are_refused():
    pytest.importorskip("transformers")
    model = hosts.make_host("hf Siglip2Model")
    with pytest.raises(InputError, match="this Siglip2Model reads packed sequences of patches instead of images"):
        camplug.GradCAM(model).maps(torch.zeros(1, 3, 64, 64), 0)


class _TwoTowers(torch.nn.Module):
    """As CLIPModel of Hugging Face: the first argument are the texts."""

    def __init__(self):
        super().__init__()
        self.config = object()
        self.vision_model, self.text_model = torch.nn.Conv2d(3, 4, 3), torch.nn.Embedding(9, 4)

    def forward(self, input_ids, pixel_values=None):
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        return self.vision_model(pixel_values).mean((2, 3)) @ self.text_model(input_ids).sum(1).T


def test_a_model_of_images_and_texts_says_that_it_needs_texts():
    model, x = _TwoTowers().eval(), torch.rand(1, 3, 8, 8)
    with pytest.raises(
        InputError, match=r"this _TwoTowers compares images with texts, and got images alone; give texts"
    ):
        camplug.GradCAM(model, "vision_model").maps(x, 0)
    inputs = camplug.Inputs(camplug.Shared(torch.ones(2, 3, dtype=torch.long)), pixel_values=camplug.IMAGE)
    assert camplug.GradCAM(model, "vision_model").maps(x, 0, inputs=inputs).shape == (1, 8, 8)
