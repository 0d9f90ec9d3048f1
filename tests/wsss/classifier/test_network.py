"""Classifiers over any network: cut where its head pools, with the logits that it had."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from narrow_vgg import build_vgg
from torch import nn
from trainable import Net

import camplug
from camplug.errors import InputError, ModelError
from camplug.wsss.classifier import Classifier, build_classifier, normalize_maps

NAMES = ["a", "b", "c"]


def resnet(classes=3):
    return torchvision.models.resnet18(num_classes=classes).eval()


def images(side=64):
    return torch.rand(2, 3, side, side)


POOLING = {
    "torchvision resnet": resnet,
    "torchvision densenet": lambda: torchvision.models.densenet121(num_classes=3).eval(),  # a ReLU without a layer
    "torchvision efficientnet": lambda: torchvision.models.efficientnet_b0(num_classes=3).eval(),
    "torchvision googlenet": lambda: torchvision.models.googlenet(num_classes=3, init_weights=False).eval(),
    "timm resnet": lambda: timm.create_model("resnet10t", num_classes=3).eval(),
    "timm mobilenet": lambda: timm.create_model("mobilenetv2_050", num_classes=3).eval(),
    "timm efficientnet": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=3).eval(),
}
OTHERS = {  # what their head reads is no plain mean, or has layers behind
    "torchvision vgg": lambda: build_vgg("vgg11", 3).eval(),
    "torchvision squeezenet": lambda: torchvision.models.squeezenet1_1(num_classes=3).eval(),
    "timm convnext": lambda: timm.create_model("convnext_atto", num_classes=3).eval(),
    "own": lambda: Net().eval(),
}


def alive(model):
    """Weights as after a training: with fresh ones some networks put out next to nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


@pytest.mark.parametrize("name", POOLING)
def test_a_head_that_pools_is_kept_with_its_logits(name, device):
    model = alive(POOLING[name]())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    network = build_classifier(model.to(device), NAMES)  # built where the model is
    assert network.head.weight.device.type == device.type
    x = images(96).to(device)
    with torch.no_grad():
        wanted, found = model(x), network(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()) + 1e-7)
    assert all(torch.equal(before[k], v.cpu()) for k, v in model.state_dict().items())  # left as it is
    # CAM of both is the same map
    ours = camplug.CAM(network, normalize=None).maps(x, [0, 2])
    theirs = camplug.CAM(model, normalize=None).maps(x, [0, 2])
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()) + 1e-7)


@pytest.mark.parametrize("name", [*POOLING, *OTHERS])
def test_any_network_takes_a_new_head(name, device):
    model = alive({**POOLING, **OTHERS}[name]())
    network = build_classifier(model, [*NAMES, "d"]).to(device)
    x = images(96).to(device)
    maps = network.head(network.features(x))
    torch.testing.assert_close(network(x), maps.mean((2, 3)))
    assert maps.shape[:2] == (2, 4)
    assert maps.shape[2] > 1
    # nothing that is never used is trained or stored
    network.zero_grad()
    network.train()(x).sum().backward()
    unused = [n for n, p in network.named_parameters() if p.grad is None]
    assert not unused
    own = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in network.body.parameters()) <= own


def test_a_transformers_patch_tokens_are_its_map():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=2, img_size=64)
    network = build_classifier(model, NAMES)
    x = images(64)
    assert network.features(x).shape == (2, 192, 4, 4)
    assert camplug.GradCAM(network).maps(x, [0, 1]).shape == (2, 64, 64)


def test_output_stride(device):
    coarse = build_classifier(alive(resnet()), NAMES).to(device)
    fine = build_classifier(alive(resnet()), NAMES, output_stride=8).to(device)
    fine.load_state_dict(coarse.state_dict())
    x = images(64).to(device)
    assert coarse.features(x).shape[-1] == 2
    assert fine.features(x).shape[-1] == 8
    torch.testing.assert_close(fine.features(x)[..., ::4, ::4], coarse.features(x))
    fine.train()(x).sum().backward()  # trains, too
    assert fine.body.model.layer4[0].conv1.weight.grad.abs().sum() > 0
    assert camplug.CAM(fine).maps(x, [0, 1]).isfinite().all()
    assert camplug.FullyCAM(fine).maps(x, [0, 1]).isfinite().all()


def test_a_classifier_as_the_start_of_the_next():
    first = build_classifier(resnet(), NAMES)
    x = images()
    again = build_classifier(first, NAMES[::-1])
    torch.testing.assert_close(again(x), first(x).flip(1))
    assert (again.classes, first.classes) == (NAMES[::-1], NAMES)
    with pytest.warns(UserWarning, match="the head is trained anew: the trained model, whose other classes are 'a'"):
        assert not torch.equal(build_classifier(first, ["x", "y", "z"]).head.weight, first.head.weight)
    wider = build_classifier(first, [*NAMES, "d"])
    assert wider(x).shape == (2, 4)
    torch.testing.assert_close(wider.features(x), first.features(x))
    with_neck = build_classifier(first, NAMES, neck={"kind": "fum"})
    assert type(with_neck.neck).__name__ == "FUM"
    kept = build_classifier(with_neck, NAMES, neck={"kind": "fum"})
    torch.testing.assert_close(kept(x), with_neck(x))
    with pytest.warns(UserWarning, match=r"trained neck is replaced .* \(kind='regions' instead of 'fum', width=64 "):
        build_classifier(with_neck, NAMES, neck={"kind": "regions", "width": 64})


def test_a_neck_that_learns_nothing_keeps_the_head():
    alone = {"kind": "fum", "channel_attention": False, "spatial_attention": False, "atrous": False}
    x = images()
    for start in (resnet(), build_classifier(resnet(), NAMES)):
        plain, network = build_classifier(start, NAMES), build_classifier(start, NAMES, neck=alone, keep_head=True)
        assert torch.equal(network.head.weight, plain.head.weight)
        torch.testing.assert_close(network(x), network.pooled(network.head(network.neck(plain.features(x)))))
        assert not torch.allclose(network(x), plain(x))


def test_a_trained_head_moves_behind_a_neck_that_takes_it():
    """RPNet's neck can give the maps of the model at first, unless there are more classes than its channels."""
    x = images()
    for start in (resnet(), build_classifier(resnet(), NAMES)):
        plain = build_classifier(start, NAMES)
        moved = build_classifier(start, NAMES, neck={"kind": "regions", "width": 64})
        assert moved.head.weight.shape[1] == 64
        torch.testing.assert_close(moved(x), plain(x), atol=1e-5, rtol=1e-4)
        narrow = {"kind": "regions", "width": 2}
        assert not torch.allclose(build_classifier(start, NAMES, neck=narrow)(x), plain(x))
        with pytest.raises(ModelError, match="behind a new neck"):
            build_classifier(start, NAMES, neck=narrow, keep_head=True)
    chosen = build_classifier(start, ["c", "a"], neck={"kind": "regions", "width": 64})  # rows by name
    torch.testing.assert_close(chosen(x), plain(x)[:, [2, 0]], atol=1e-5, rtol=1e-4)


def test_explainers_know_its_classes_and_its_photographs():
    model = resnet()
    model.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    network = build_classifier(model, NAMES)
    from PIL import Image

    found = camplug.CAM(network).explain(Image.new("RGB", (96, 64), "red"), "b")
    assert found.names == ["b"]
    assert network.preprocess.mean == (0.5,) * 3
    assert network.preprocess.size == (48, 48)


class Losing(nn.Module):
    """Its forward is more than its parts one after another."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out((self.conv(x) * 2).relu().amax((2, 3)))


def test_what_cannot_be_cut_is_told():
    class Behind(Losing):
        def forward(self, x):
            return self.out(self.conv(x + 1).amax((2, 3)))

    with pytest.raises(ModelError, match="cannot be run up to its layer 'conv' alone; give a module that puts out"):
        build_classifier(Behind(), NAMES)
    with pytest.raises(ModelError, match="no head that averages a map and weighs it, and the data set 3 classes"):
        build_classifier(Losing(), NAMES, keep_head=True)
    with pytest.raises(ModelError, match="the model has a head of 5 classes, and the data set 3 classes"):
        build_classifier(resnet(5), NAMES, keep_head=True)
    with pytest.raises(ModelError, match="behind a new neck"):
        build_classifier(resnet(), NAMES, neck={"kind": "fum"}, keep_head=True)
    with pytest.raises(InputError, match="neck='nothing'; allowed are fum, pyramid_fum, regions"):
        build_classifier(resnet(), NAMES, neck={"kind": "nothing"})
    with pytest.raises(InputError, match="no class to tell apart"):
        build_classifier(resnet(), [])


def test_deep_copies_stand_alone():
    import copy

    network = build_classifier(resnet(), NAMES, output_stride=16)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.weight.zero_()
    x = images()
    assert network(x).abs().sum() > other(x).abs().sum()
    assert isinstance(other, Classifier)


def test_class_maps_have_no_bias_and_logits_have(device):
    network = build_classifier(Net(), NAMES)
    network.head.bias = nn.Parameter(torch.tensor([5.0, -2.0, 0.5]))
    network.to(device)
    features = torch.randn(2, network.head.in_channels, 3, 3).to(device)
    maps = network.class_maps(features)
    torch.testing.assert_close(maps + network.head.bias[:, None, None], network.head(features))
    torch.testing.assert_close(network.logits(maps), network.head(features).mean((2, 3)))


def test_class_maps_of_half_precision_can_be_divided_by_a_small_number(device):
    """1 / eps overflows in half precision, and 0 times infinity is no number."""
    network = build_classifier(Net(), NAMES).to(device)
    features = torch.zeros(1, network.head.in_channels, 3, 3, device=device, requires_grad=True)
    with torch.autocast(device.type, torch.float16):
        maps = network.class_maps(features)
    assert maps.dtype == torch.float32
    normalize_maps(maps, torch.ones(1, 3, device=device)).sum().backward()
    assert not features.grad.isnan().any()
