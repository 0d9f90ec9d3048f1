"""Preprocessing that a model declares."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import timm
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms as T

from camplug.errors import InputError
from camplug.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Custom, Preprocess
from camplug.models import preprocess as module
from camplug.models.preprocess import find_channels, find_preprocess


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_timm_configuration():
    model = timm.create_model("test_resnet", pretrained=False)
    cfg = model.pretrained_cfg
    got = find_preprocess(model)
    assert got == Preprocess(
        tuple(cfg["input_size"][1:]), tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"], keep_aspect=True
    )
    assert got.size == (160, 160)


def test_transformers_of_one_input_size_are_squeezed():
    model = timm.create_model("test_vit", pretrained=False, dynamic_img_size=False)
    got = find_preprocess(model)
    assert got.keep_aspect is False
    x, _ = got(Image.new("RGB", (300, 100)))
    assert tuple(x.shape[1:]) == tuple(model.pretrained_cfg["input_size"][1:])


def test_fixed_input_size_in_the_configuration_of_a_convolutional_model():
    model = Net()
    model.pretrained_cfg = {"input_size": (3, 30, 50), "fixed_input_size": True, "mean": (0, 0, 0), "std": (1, 1, 1)}
    assert find_preprocess(model) == Preprocess((30, 50), (0, 0, 0), (1, 1, 1), "bilinear", keep_aspect=False)


def test_torchvision_weights_on_the_model_or_as_transform():
    weights = torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1  # bicubic, unlike the default
    expected = Preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, "bicubic", keep_aspect=True)
    model = Net()
    assert find_preprocess(model, weights.transforms()) == expected
    model.weights = weights
    assert find_preprocess(model) == expected
    del model.weights
    model.transforms = weights.transforms()
    assert find_preprocess(model) == expected


def test_a_preset_for_a_transformer_is_squeezed():
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
    model.weights = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1
    assert find_preprocess(model) == Preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, "bilinear", keep_aspect=False)


def test_a_given_transform_comes_first():
    model = timm.create_model("test_resnet", pretrained=False)
    own = Preprocess((31, 33))
    assert find_preprocess(model, own) is own
    transform = T.ToTensor()
    assert find_preprocess(model, transform) == Custom(transform)
    with pytest.raises(InputError, match="preprocess= must be callable on a PIL image; got int"):
        find_preprocess(model, 3)


def test_defaults_are_told_of_once(monkeypatch):
    monkeypatch.setattr(module, "_warned", False)
    with pytest.warns(
        UserWarning, match=r"ImageNet's mean and standard deviation and 224 pixels are assumed.*preprocess="
    ):
        got = find_preprocess(Net())
    assert got == Preprocess((224, 224), IMAGENET_MEAN, IMAGENET_STD, "bilinear", keep_aspect=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_preprocess(Net()) == got


def test_nothing_is_told_where_the_model_knows(monkeypatch):
    monkeypatch.setattr(module, "_warned", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_preprocess(timm.create_model("test_resnet", pretrained=False))
        find_preprocess(Net(), T.ToTensor())
    assert module._warned is False


@pytest.mark.filterwarnings("ignore:the model does not say")
def test_image_size_of_the_model():
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
    assert find_preprocess(model) == Preprocess((32, 32), keep_aspect=False)


@pytest.mark.filterwarnings("ignore:the model does not say")
def test_image_size_in_the_configuration():
    model = Net()
    model.config = SimpleNamespace(image_size=96)
    assert find_preprocess(model).size == (96, 96)
    model.config = SimpleNamespace(image_size=[64, 96])
    assert find_preprocess(model).size == (64, 96)
    own = timm.create_model("test_vit", pretrained=False, img_size=96)  # its configuration says 160
    assert find_preprocess(own).size == (96, 96)


@pytest.mark.filterwarnings("ignore:the model does not say")
def test_how_many_channels_a_model_reads():
    grey = nn.Sequential(nn.Conv2d(1, 4, 3))
    assert (find_channels(grey), find_channels(Net()), find_channels(nn.Linear(3, 2))) == (1, 3, None)
    later = nn.Sequential(nn.Conv2d(8, 4, 3), nn.Conv2d(3, 8, 3))
    assert find_channels(later) == 3
    assert find_preprocess(grey).channels == 1
    assert find_preprocess(grey, Preprocess((40, 40))) == Preprocess((40, 40), channels=1)
    timms = timm.create_model("test_resnet", pretrained=False, in_chans=1)
    assert find_preprocess(timms).channels == 1
    assert tuple(find_preprocess(timms)(Image.new("RGB", (50, 40)))[0].shape[:1]) == (1,)
    told = nn.Linear(3, 2)
    told.config = SimpleNamespace(num_channels=4)
    assert find_channels(told) == 4
