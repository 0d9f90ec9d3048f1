"""Exports of classifiers: the file's logits are those of the model on the preprocessed photograph."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import trainable
from commands import good, refused
from PIL import Image
from torch import nn

from camplug.errors import InputError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.models.export import PixelClassifier, export_classifier
from camplug.wsss.classifier import build_classifier
from camplug.wsss.classifier.checkpoint import save_classifier

pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = (45, 70)
PHOTO = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
PIXELS = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].contiguous()
READS = Preprocess(size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def make_network(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def test_torch_export_gives_the_logits_of_the_photograph(tmp_path):
    model = make_network().eval()
    model.classes = ["cat", "dog", "cow"]
    report = export_classifier(model, tmp_path / "a.pt2", "torch", preprocess=READS)
    assert (report.size, report.agreement) == (SIZE, 1.0)
    names = {"classes.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=names)
    assert json.loads(names["classes.json"]) == ["cat", "dog", "cow"]
    x, _ = READS(Image.fromarray(PHOTO))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(PIXELS), model(x[None]))


def test_grey_is_that_of_pillow():
    class Sums(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    grey = Preprocess(size=SIZE, mean=(0.0,), std=(1 / 255,), channels=1)
    found = PixelClassifier(Sums(), grey)(PIXELS)
    wanted = np.asarray(Image.fromarray(PHOTO).convert("L"), np.float32).reshape(1, -1)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


def test_onnx_of_a_trained_classifier(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = build_classifier(trainable.net(0), ["cat", "dog"], preprocess=READS)
    file = tmp_path / "classifier.pt"
    save_classifier(file, network, {"model": "import:trainable:net", "num_classes": None})
    command = ("export", file, "--onnx", tmp_path / "a.onnx", "--size", "45,70")
    (said,) = json.loads(good(*command, "--json").stdout)
    assert (said["size"], said["agreement"]) == ([45, 70], 1.0)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["cat", "dog"]
    with torch.no_grad():
        wanted = network(READS.normalize(PIXELS))
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"pixels": PIXELS.numpy()})[0]), wanted, rtol=1e-4, atol=1e-5
    )


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(InputError, match=r"by a camplug\.Preprocess with 1 or 3 channels"):
        export_classifier(
            make_network(5), tmp_path / "a.pt2", "torch", preprocess=Preprocess(channels=5, mean=(0.5,) * 5)
        )
    with pytest.raises(ModelError, match=r"cannot be exported \(the model has no logits \[N,K\]"):
        export_classifier(nn.Conv2d(3, 2, 3), tmp_path / "a.pt2", "torch", preprocess=READS)
    assert "there is no file 'none.pt'" in refused("export", "none.pt", "--onnx", "a.onnx")
    assert "names no model; allowed are demo" in refused("export", "resnet50", "--onnx", "a.onnx")
    assert not list(tmp_path.iterdir())
