"""Saliency networks from files: values by hand, the options, the files of a training, and what is refused."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import labelled
import numpy as np
import pytest
import torch
import trainable
from PIL import Image
from torch import nn

import camplug
from camplug.errors import InputError
from camplug.wsss.deeplab import DeepLabSettings, Segmenter, build_deeplab, save_deeplab
from camplug.wsss.saliency import read_saliency
from camplug.wsss.saliency_network import SaliencyFolder, load_network, parse_network, write_saliency
from camplug.wsss.store.jobs import Mismatch

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")

RAW = "mean=0,0,0&std=1,1,1"  # pixels as they are, 0 to 1


class Red(nn.Module):
    """Its map is the red channel, plus a shift; the second output is another map."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x):
        return x[:, :1] + self.shift, x[:, 1:2]


def torchscript(path, module=None):
    torch.jit.script(Red() if module is None else module).save(str(path))
    return path


def random_photo(side=32):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels), pixels[..., 0].astype(np.float32) / 255


def load(text):
    return load_network(parse_network(str(text)))


# ---- values


def test_torchscript(tmp_path):
    photo, red = random_photo()
    file = torchscript(tmp_path / "red.pt")
    np.testing.assert_allclose(load(f"{file}?side=32&{RAW}")(photo), red, atol=1e-6)
    half = load(f"{file}?side=32&mean=0.5,0.5,0.5&std=2,2,2&output=logits")(photo)
    np.testing.assert_allclose(half, 1 / (1 + np.exp(-(red - 0.5) / 2)), atol=1e-6)


def test_torch_export(tmp_path):
    photo, red = random_photo()
    torch.export.save(torch.export.export(Red(), (torch.rand(1, 3, 32, 32),)), tmp_path / "red.pt2")
    np.testing.assert_allclose(load(f"{tmp_path / 'red.pt2'}?{RAW}")(photo), red, atol=1e-6)  # its own side


def test_onnx(tmp_path, monkeypatch):
    """onnxruntime is no dependency: a session with its interface stands in for it."""

    class Session:
        def __init__(self, path, providers):
            assert providers == ["CPUExecutionProvider"]

        def get_inputs(self):
            return [types.SimpleNamespace(name="image", shape=["batch", 3, 32, 32])]

        def run(self, names, given):
            return [given["image"][:, :1]]

    (tmp_path / "red.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    photo, red = random_photo()
    np.testing.assert_allclose(load(f"{tmp_path / 'red.onnx'}?{RAW}")(photo), red, atol=1e-6)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"red.onnx' needs the package onnxruntime; install it with: pip install"):
        load(tmp_path / "red.onnx")


def test_deeplab_is_salient_where_it_is_not_background(tmp_path):
    base = camplug.load_model("timm:test_resnet", pretrained=False)
    network = build_deeplab(base, ["a", "b"], labelled.NETWORK)
    save_deeplab(tmp_path / "deeplab.pt", network, {"model": "timm:test_resnet", "num_classes": None})
    photo = random_photo(48)[0]
    background = Segmenter(network).scores(np.asarray(photo))[0]
    np.testing.assert_allclose(load(tmp_path / "deeplab.pt")(photo), 1 - background, atol=1e-5)


# ---- training


def test_training_writes_the_maps_once_and_learns_from_them(tmp_path):
    file = torchscript(tmp_path / "red.pt")
    settings = DeepLabSettings(replace(labelled.NETWORK, refinement=0.08), replace(labelled.SPAN, epochs=1))
    text = f"{file}?side=48&{RAW}"
    done = labelled.trained(tmp_path, "a", settings, saliency=text)
    data, folder = labelled.scenes(), tmp_path / "a" / "saliency"
    for i, name in enumerate(data.ids):
        red = np.asarray(data.photo(i))[..., 0] / 255
        np.testing.assert_allclose(read_saliency(folder, name, (48, 48)), red, atol=1e-6)
    by_folder = labelled.trained(tmp_path, "b", settings, saliency=folder)
    assert trainable.same(done.network, by_folder.network)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    labelled.trained(tmp_path, "a", settings, saliency=text)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.png")} == stamps
    with pytest.raises(InputError, match=r"holds saliency maps of other settings: mean, std differ"):
        labelled.trained(tmp_path, "a", settings, saliency=f"{file}?side=48")


# ---- what is refused


def write(text, tmp_path):
    source, folder = parse_network(str(text)), SaliencyFolder(tmp_path / "maps")
    folder.prepare(source.describe())
    return write_saliency(source, labelled.scenes(2), folder)


def test_outputs_that_are_no_map_of_probabilities(tmp_path):
    file = torchscript(tmp_path / "red.pt", Red(1.5))
    with pytest.raises(Mismatch, match=r"gives values from 1\.\d+ to 2\.\d+, which are no prob.*red.pt\?output=logits"):
        write(f"{file}?side=48&{RAW}", tmp_path)
    many = torchscript(tmp_path / "many.pt", nn.Conv2d(3, 2, 1))
    with pytest.raises(Mismatch, match=r"gives \[1, 2, 48, 48\]; its first output has to be one map \[1,1,h,w\]"):
        write(f"{many}?side=48", tmp_path)
    fixed = torchscript(tmp_path / "fixed.pt", nn.Linear(48, 1))
    with pytest.raises(Mismatch, match=r"cannot take images \[1, 3, 224, 224\] \(.*\); give its size: \?side=320"):
        write(fixed, tmp_path)
    assert not list((tmp_path / "maps").glob("*.png"))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ("?size=3", "there is no option 'size'; the options are side, mean, std, output"),
        ("?side=big", "invalid literal.*; give numbers such as"),
        ("?side=0", "side=0; give a number of pixels of at least 1"),
        ("?std=0,1,1", r"std=\(0.0, 1.0, 1.0\); give numbers above 0"),
        ("?output=raw", "output='raw'; allowed are probabilities, logits"),
        ("?logits", "'logits' is no option; write for instance"),
    ],
)
def test_options_refused(tmp_path, options, sentence):
    file = tmp_path / "red.pt"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=sentence):
        parse_network(f"{file}{options}")


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".onnx"])
def test_files_that_are_no_network(tmp_path, suffix, monkeypatch):
    def damaged(*args, **options):
        raise RuntimeError("damaged")

    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=damaged))
    file = tmp_path / f"net{suffix}"
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(InputError, match="is no saliency network; give TorchScript" if suffix == ".pt" else "be read"):
        load(file)
    with pytest.raises(InputError, match="there is no saliency network 'nowhere"):
        parse_network(f"nowhere{suffix}")


def test_other_sources_are_no_networks(tmp_path):
    (tmp_path / "maps.pt").mkdir()
    assert [parse_network(str(text)) for text in ("contrast", tmp_path, tmp_path / "maps.pt")] == [None] * 3
