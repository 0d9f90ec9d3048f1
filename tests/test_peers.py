"""The comparison table of the README, run: what camplug and its peers do in situations that users meet.

Needs the extra `bench`, whose versions are pinned: a peer that mends something makes a row here fail, and then the
table is to be corrected.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from pathlib import Path

import awkward
import pytest
import torch
import torch.nn.functional as F
import torchvision
from documented import ROOT, blocks
from reference import reference_map
from torch import nn
from torchvision.models import vgg

import camplug

pytest.importorskip("pytorch_grad_cam", reason="the peers come with the extra bench")
pytest.importorskip("torchcam", reason="the peers come with the extra bench")
pytest.importorskip("captum", reason="the peers come with the extra bench")

CLASS = 3
README = Path(__file__).parent.parent / "README.md"


def by_camplug(model, layer, x):
    return camplug.GradCAM(model, layer).maps(x, CLASS)


def by_gradcam(model, layer, x):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model, [layer]) as cam:
        return torch.from_numpy(cam(x, [ClassifierOutputTarget(CLASS)] * len(x)))


def by_torchcam(model, layer, x):
    from torchcam.methods import GradCAM

    with GradCAM(model, layer) as cam:
        return cam(CLASS, model(x))[0]


def by_captum(model, layer, x):
    from captum.attr import LayerGradCam

    return LayerGradCam(model, layer).attribute(x, target=CLASS, relu_attributions=True)[:, 0].detach()


LIBRARIES = {"camplug": by_camplug, "grad-cam": by_gradcam, "torchcam": by_torchcam, "captum": by_captum}

# rows of the README's table, in its words
EXPECTED = {
    "an ordinary model": ("right", "right", "right", "right"),
    "all parameters frozen": ("right", "error", "error", "right"),
    "inside `torch.no_grad()`": ("right", "error", "error", "right"),
    "inside `torch.inference_mode()`": ("right", "error", "error", "error"),
    "the model returns a dict": ("right", "error", "error", "error"),
    "bfloat16 model": ("right", "error", "right", "right"),
    "`+=` right after the layer": ("right", "wrong", "wrong", "right"),
    "`ReLU(inplace=True)` right after the layer": ("right", "wrong", "wrong", "right"),
    "model left in training mode": ("right", "right", "wrong", "wrong"),
    "a layer that runs twice": ("right", "wrong", "wrong", "wrong"),
}


def normal(maps, size):
    if tuple(maps.shape[-2:]) != size:
        maps = F.interpolate(maps[:, None].double(), size, mode="bilinear", align_corners=False)[:, 0]
    maps = maps.double() - maps.double().amin((1, 2), keepdim=True)
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-30)


def resnet():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model


def build(row):
    """The model, its layer, and the plain model and layer name that the reference takes."""
    model = resnet()
    layer, name = model.layer4, "layer4"
    plain = copy.deepcopy(model)
    if row == "all parameters frozen":
        model.requires_grad_(False)
    elif row == "the model returns a dict":
        model = awkward.Wrapped(model, lambda y: {"logits": y})
    elif row == "bfloat16 model":
        model.bfloat16()
    elif row.startswith("`+=`"):
        layer, name = model.layer4[1].bn2, "layer4.1.bn2"
    elif row.startswith("`ReLU"):
        torch.manual_seed(0)
        features = vgg.make_layers(vgg.cfgs["A"], batch_norm=False)  # without VGG's 120 million weights of the head
        parts = {
            "features": features,
            "pool": nn.AdaptiveAvgPool2d(7),
            "flat": nn.Flatten(),
            "head": nn.Linear(25088, 5),
        }
        model = nn.Sequential(OrderedDict(parts)).eval()
        plain, layer, name = copy.deepcopy(model), model.features[18], "features.18"
    elif row == "model left in training mode":
        model.train()
    elif row == "a layer that runs twice":
        torch.manual_seed(3)
        model = awkward.Reused().eval()
        plain, layer, name = copy.deepcopy(model), model.conv3, "conv3"
    return model, layer, plain, name


def verdict(row, library):
    model, layer, plain, name = build(row)
    torch.manual_seed(1)
    x = torch.randn(2, 3, 96, 96)
    want = torch.stack([reference_map("gradcam", plain, [name], i[None], lambda y: y[:, CLASS]) for i in x])
    x = x.bfloat16() if row.startswith("bfloat16") else x
    under = {"inside `torch.no_grad()`": torch.no_grad, "inside `torch.inference_mode()`": torch.inference_mode}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        with under.get(row, torch.enable_grad)():
            maps = LIBRARIES[library](model, layer, x)
    except Exception:
        return "error"
    got, want = normal(maps.detach().clone(), (96, 96)), normal(want, (96, 96))
    right = all(torch.corrcoef(torch.stack([a.ravel(), b.ravel()]))[0, 1] > 0.99 for a, b in zip(got, want))
    unchanged = all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    return "right" if right and unchanged else "wrong"


@pytest.mark.slow
@pytest.mark.parametrize("row", EXPECTED)
@pytest.mark.filterwarnings("ignore")
def test_the_table_of_the_readme(row):
    assert tuple(verdict(row, library) for library in LIBRARIES) == EXPECTED[row]


def test_the_readme_shows_this_table():
    rows = {}
    for line in README.read_text(encoding="utf-8").splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if len(cells) == 5 and cells[0] in EXPECTED:
            rows[cells[0]] = tuple(re.sub(r"\*", "", c) for c in cells[1:])
    assert rows == EXPECTED


def test_torchcams_grad_cam_pp_is_not_the_papers_and_ours_is():
    from torchcam.methods import GradCAMpp

    model = resnet()
    torch.manual_seed(1)
    x = torch.randn(1, 3, 96, 96)
    want = normal(reference_map("gradcam++", model, ["layer4"], x, lambda y: y[:, CLASS])[None], (96, 96))
    ours = normal(camplug.GradCAMPlusPlus(model, "layer4").maps(x, CLASS), (96, 96))
    with GradCAMpp(model, model.layer4) as cam:
        theirs = normal(cam(CLASS, model(x))[0], (96, 96))
    assert (ours - want).abs().max() < 1e-4
    assert (theirs - want).abs().max() > 0.01


def test_forward_passes_for_twenty_classes_of_one_image():
    from captum.attr import LayerGradCam
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = torchvision.models.resnet18(), 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x)

    model, x = Counted().eval(), torch.randn(1, 3, 64, 64)
    layer = model.inner.layer4
    counts = []
    camplug.GradCAM(model, layer).maps(x, [list(range(20))])
    counts.append(model.calls)
    model.calls = 0
    with GradCAM(model, [layer]) as cam:
        for c in range(20):
            cam(x, [ClassifierOutputTarget(c)])
    counts.append(model.calls)
    model.calls = 0
    for c in range(20):
        LayerGradCam(model, layer).attribute(x, target=c)
    counts.append(model.calls)
    assert counts[0] == 1
    assert min(counts[1:]) >= 20


def test_what_grad_cam_leaves_behind_and_we_do_not():
    x = torch.randn(1, 3, 64, 64)
    model = torchvision.models.resnet18()
    by_camplug(model, model.layer4, x)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    by_gradcam(model, model.layer4, x)
    assert not model.training
    assert any(p.grad is not None for p in model.parameters())


def test_ported_code_gives_equal_maps():
    first, *pairs = [b for b in blocks(ROOT / "docs" / "coming_from.md") if b.language == "python"]
    namespace = {}
    torch.manual_seed(0)
    exec(first.text, namespace)
    assert len(pairs) == 8
    for theirs, ours in zip(pairs[::2], pairs[1::2], strict=True):
        assert theirs.not_run
        assert ours.not_run is None
        exec(theirs.text, namespace)
        exec(ours.text, namespace)
        want = torch.as_tensor(namespace["theirs"]).detach()
        scale = float(want.abs().max())
        assert (namespace["ours"] - want).abs().max() < 1e-3 * scale, theirs.text  # grad-cam divides by max + 1e-7


# ---- methods of transformers and of activations


def test_legrad_and_kpca_cam_equal_the_peers():
    from pytorch_grad_cam import KPCA_CAM
    from torchcam.methods import LeGrad

    torch.manual_seed(0)
    vit = torchvision.models.vision_transformer.VisionTransformer(64, 16, 3, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(vit.heads[-1].weight)
    x = torch.randn(1, 3, 64, 64)
    with LeGrad(vit, list(vit.encoder.layers)) as cam:
        theirs = cam(CLASS, vit(x))[0]
    ours = camplug.LeGrad(vit, normalize="minmax").maps(x, CLASS, size=(4, 4))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    model = awkward.FeatureModule().eval()
    x = torch.randn(1, 3, 12, 16)
    theirs = torch.from_numpy(KPCA_CAM(model, [model.act])(x, targets=[lambda y: y[CLASS]]))
    ours = camplug.KPCACAM(model, "act", normalize="minmax").maps(x, CLASS)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
