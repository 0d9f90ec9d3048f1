"""Exports: the file's logits are those of the segmenter; command line and refusals."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import trainable
from commands import good, refused

from camplug.errors import InputError
from camplug.wsss.deeplab import DeepLabNetworkSettings, Segmenter, build_deeplab, save_deeplab
from camplug.wsss.deeplab.export import export_network

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    found = build_deeplab(trainable.net(0), ["cat", "dog"], DeepLabNetworkSettings(dilations=(1, 2)))
    for branch in found.head.branches:
        torch.nn.init.normal_(branch.weight, std=0.3)
    return found


PHOTO = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
PIXELS = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].contiguous()


def test_torch_export_gives_what_the_segmenter_gives(network, tmp_path):
    report = export_network(network, tmp_path / "a.pt2", "torch")
    assert (report.size, report.agreement) == (None, 1.0)
    assert report.difference <= 1e-5 * report.largest
    names = {"classes.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=names)
    assert json.loads(names["classes.json"]) == ["cat", "dog"]
    with torch.no_grad():
        found = program.module()(PIXELS).softmax(1)[0].numpy()
    assert np.abs(found - Segmenter(network).scores(PHOTO)).max() < 1e-5  # another size than those of the check


def test_onnx_gives_what_the_segmenter_gives(network, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    save_deeplab(tmp_path / "network.pt", network, {"model": "import:trainable:net", "num_classes": None})
    (said,) = json.loads(good("export", tmp_path / "network.pt", "--onnx", tmp_path / "a.onnx", "--json").stdout)
    assert said["difference"] <= 1e-3 * said["largest"]
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["cat", "dog"]
    found = torch.from_numpy(session.run(None, {"pixels": PIXELS.numpy()})[0]).softmax(1)[0].numpy()
    assert np.abs(found - Segmenter(network).scores(PHOTO)).max() < 1e-4
    assert "give a file to write" in refused("export", tmp_path / "network.pt")
    itself = refused("export", tmp_path / "network.pt", "--torch-export", tmp_path / "network.pt")
    assert "is the network itself" in itself
    size = refused("export", tmp_path / "network.pt", "--onnx", tmp_path / "b.onnx", "--size", "12")
    assert "write HEIGHT,WIDTH" in size
    idle = refused("export", tmp_path / "network.pt", "--onnx", tmp_path / "b.onnx", "--mean", "0.5")
    assert "--mean has no effect on" in idle
    assert "'no/network.pt'; `camplug wsss run` makes it." in refused("export", "no/network.pt", "--onnx", "a.onnx")


def test_a_missing_package_is_named(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install \"camplug\[export\]\""):
        export_network(network, tmp_path / "a.onnx", "onnx")
    assert not list(tmp_path.iterdir())
