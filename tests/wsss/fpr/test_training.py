"""Training with FPR: its losses, what they cost and reach, and that it goes on where it was stopped."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from heads import tiny
from trainable import LEARNING, SPAN, net, same, scenes, trained

import camplug
from camplug.errors import InputError, ModelError
from camplug.wsss.classifier import ClassifierCrop, ClassifierCrops, Method, load_classifier, train_classifier
from camplug.wsss.data import VOC_CLASSES, Scenes
from camplug.wsss.fpr import (
    FPR,
    Collector,
    FPRTraining,
    PrototypePass,
    pixel_rectification_loss,
    region_contrast_loss,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:pixel rectification",
    "ignore:the model does not say",
    "ignore:You are trying to",
    "ignore:no positive evidence",
)
STRONG = FPR(clusters=2, negatives=3, region_contrast=0.5, pixel_rectification=0.1)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A classifier that has learned a little, with a bias."""
    torch.manual_seed(0)
    network = trained(tmp_path_factory.mktemp("start")).network
    network.head.bias = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))
    return network


def pictures(data=None):
    return ClassifierCrops(scenes() if data is None else data, crop=48, sides=(48, 48))


def training(start, fpr=STRONG, learning=LEARNING, data=None):
    """Apart from Lightning's Trainer, with prototypes gathered."""
    torch.manual_seed(0)
    network = load(start)
    module = fpr.make_module(network, learning, pictures(data))
    if module.gather is not None:
        module.prototypes = module.gather(module.network, module.normalize)
    return module.train()


def load(start):
    from camplug.wsss.classifier import build_classifier

    return build_classifier(start, start.classes, keep_head=True)


def batch_of(module_or_pictures, count=8):
    items = [module_or_pictures[0, i] for i in range(count)]
    return ClassifierCrop(*(torch.stack(x) for x in zip(*items, strict=True)))


def by_hand(module, batch):
    """Every loss, its weight included, image by image and pixel by pixel."""
    fpr, prototypes = module.fpr, module.prototypes
    x = module.normalize(batch.pixels)
    weight, bias = module.network.head.weight[:, :, 0, 0], module.network.head.bias
    features = module.network.features(x)
    maps = torch.einsum("cd,ndhw->nchw", weight, features)
    logits = maps.mean((2, 3)) + bias
    total = F.multilabel_soft_margin_loss(logits, batch.present)
    contrast, pairs, logit, pixels = 0, 0, 0, 0
    for n, c in batch.present.nonzero().tolist():
        share = maps[n, c].detach().clamp(min=0)
        inside = share / (share.max() + 1e-4) > fpr.theta
        positive, negative = prototypes.positive[c], prototypes.negative[c]
        if not inside.any() or not len(positive):
            continue
        pairs += 1
        f = features[n][:, inside].mean(1)
        gap = ((f - positive.mean(0)).square().mean() + 1e-4).sqrt() / fpr.temperature + fpr.offset
        contrast = contrast + gap
        if len(negative):
            gaps = [((f - p).square().mean() + 1e-4).sqrt() / fpr.temperature + fpr.offset for p in negative]
            contrast = contrast - (1 - torch.exp(-torch.stack(gaps).min())).log()
        for y, z in inside.nonzero().tolist():
            to = [(features[n, :, y, z] - p).square().sum() for p in (*positive, *negative[prototypes.usable[c]])]
            if len(to) > len(positive) and min(to[len(positive) :]) < min(to[: len(positive)]):
                logit, pixels = logit + maps[n, c, y, z], pixels + 1
    assert pairs > 3
    assert pixels > 3
    total = total + fpr.region_contrast * contrast / pairs + fpr.pixel_rectification * logit / pixels
    return total, pairs, pixels


def test_a_step_equals_a_loop(start):
    module = training(start)
    batch = batch_of(module.gather.crops)
    wanted, pairs, pixels = by_hand(module, batch)
    grads = torch.autograd.grad(wanted, list(module.network.parameters()))
    parts = module.compute_losses(module.normalize(batch.pixels), batch, 0)
    assert list(parts) == ["classification", "region_contrast", "pairs", "pixel_rectification", "false_positives"]
    assert [weight for weight, _ in parts.values()] == [1, 0.5, 0, 0.1, 0]
    assert (float(parts["pairs"][1]), float(parts["false_positives"][1])) == (pairs, pixels)
    found = module.training_step(batch, 0)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    found.backward()
    for parameter, grad in zip(module.network.parameters(), grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad, atol=1e-5, rtol=1e-3)


def test_options_reach_the_losses(start):
    groups = {"g": ["a"], "h": ["b", "c"]}
    fpr = replace(STRONG, distance="l2", offset=0.0, temperature=40.0, theta=0.3, groups=groups, pass_scales=(1.0, 0.5))
    start = load(start)
    start.classes = ["a", "b", "c"]
    data = scenes()
    data.classes = ("a", "b", "c")
    module = training(start, fpr, data=data)
    assert (module.gather.groups, module.gather.scales, module.gather.flip) == ([0, 1, 1], (1.0, 0.5), True)
    collector = Collector(3, clusters=2, negatives=3, theta=0.3)
    assert module.gather.collector().settings == collector.settings
    batch = batch_of(module.gather.crops)
    x = module.normalize(batch.pixels)
    features = module.network.features(x)
    maps = module.network.class_maps(features)
    parts = module.compute_losses(x, batch, 0)
    options = {"theta": 0.3, "temperature": 40.0, "offset": 0.0, "distance": "l2"}
    contrast = region_contrast_loss(features, maps, batch.present, module.prototypes, **options)
    pixels = pixel_rectification_loss(features, maps, batch.present, module.prototypes, theta=0.3)
    torch.testing.assert_close(parts["region_contrast"][1], contrast.loss)
    torch.testing.assert_close(parts["pixel_rectification"][1], pixels.loss)
    focal = training(start, replace(fpr, region_contrast=0), replace(LEARNING, focal=2.0), data=data)
    parts = focal.compute_losses(x, batch, 0)
    assert "region_contrast" not in parts
    wanted = focal.compute_classification_loss(maps.mean((2, 3)) + module.network.head.bias, batch.present)
    torch.testing.assert_close(parts["classification"][1], wanted)


@pytest.mark.parametrize("part, head", [("region_contrast", False), ("pixel_rectification", True)])
def test_what_a_loss_reaches(start, part, head):
    """Region contrast teaches the body alone; both leave the bias, what is frozen, and prototypes as they are."""
    module = training(start, learning=replace(LEARNING, cut="one"))
    batch = batch_of(module.gather.crops)
    module.compute_losses(module.normalize(batch.pixels), batch, 0)[part][1].backward()
    body = module.network.body.model
    assert all(float(p.grad.abs().sum()) > 0 for p in [*body.two.parameters(), *body.three.parameters()])
    assert all(p.grad is None for p in body.one.parameters())
    weight = module.network.head.weight.grad
    assert (weight is not None and float(weight.abs().sum()) > 0) == head
    assert module.network.head.bias.grad is None
    assert not any(x.requires_grad for x in (*module.prototypes.positive, *module.prototypes.negative))


class Counted:
    """How many images went through a network, of trained modules, too."""

    def __init__(self, monkeypatch):
        from camplug.wsss.classifier import Classifier

        self.images = 0
        features = Classifier.features

        def counting(network, x):
            self.images += len(x)
            return features(network, x)

        monkeypatch.setattr(Classifier, "features", counting)


@pytest.mark.parametrize("weights, extra", [((0.0, 0.0), 0), ((0.1, 0.0), 2 * 16), ((0.0, 0.1), 2 * 16)])
def test_what_is_switched_off_costs_nothing(start, tmp_path, monkeypatch, weights, extra):
    counted, modules = Counted(monkeypatch), []
    fpr = replace(STRONG, region_contrast=weights[0], pixel_rectification=weights[1], pass_flip=False)
    setup = FPRTraining.setup
    monkeypatch.setattr(FPRTraining, "setup", lambda self, stage: (modules.append(self), setup(self, stage)))
    network = trained(tmp_path / "fpr", model=start, method=fpr).network
    assert counted.images == 2 * 16 + extra
    assert modules[0].passes == (2 if extra else 0)
    if not extra:
        assert modules[0].prototypes is None
        assert same(network, trained(tmp_path / "plain", model=start, method=Method(), keep_head=True).network)


def test_a_pass_before_every_epoch_with_the_weights_of_then(start, tmp_path, monkeypatch):
    seen, gather = [], PrototypePass.__call__

    def watched(self, network, normalized, *, workers=0):
        found = gather(self, network, normalized, workers=workers)
        seen.append((self.passes, network.head.weight.detach().clone(), found.state_dict()))
        return found

    monkeypatch.setattr(PrototypePass, "__call__", watched)
    trained(tmp_path, model=start, method=STRONG, span=replace(SPAN, epochs=3))
    assert [passes for passes, *_ in seen] == [1, 2, 3]
    assert torch.equal(seen[0][1], start.head.weight)
    assert not torch.equal(seen[1][1], seen[0][1])
    assert not torch.equal(seen[2][2]["positive"], seen[1][2]["positive"])


class Killed(Exception):
    pass


def test_resumed_is_uninterrupted(start, tmp_path, monkeypatch):
    """Killed after the first epoch, and in the middle of the pass before the third."""
    span = replace(SPAN, epochs=3)
    whole = trained(tmp_path / "whole", model=start, method=STRONG, span=span)
    begin, take = FPRTraining.on_train_batch_start, PrototypePass._collect

    def killed(self, *args):
        if self.current_epoch == 1:
            raise Killed

    def killed_in_pass(self, *args):
        if self.passes == 2:  # of the run that went on
            raise Killed
        take(self, *args)

    monkeypatch.setattr(FPRTraining, "on_train_batch_start", killed)
    with pytest.raises(Killed):
        trained(tmp_path / "stopped", model=start, method=STRONG, span=span)
    monkeypatch.setattr(FPRTraining, "on_train_batch_start", begin)
    monkeypatch.setattr(PrototypePass, "_collect", killed_in_pass)
    with pytest.raises(Killed):
        trained(tmp_path / "stopped", model=start, method=STRONG, span=span)
    monkeypatch.setattr(PrototypePass, "_collect", take)
    resumed = trained(tmp_path / "stopped", model=start, method=STRONG, span=span)
    assert same(resumed.network, whole.network)
    assert resumed.losses == whole.losses
    assert not same(whole.network, start)
    again = trained(tmp_path / "again", model=start, method=STRONG, span=span)
    assert same(again.network, whole.network)
    other = trained(tmp_path / "other", model=start, method=Method(), keep_head=True, span=span)
    assert not same(other.network, whole.network)


def test_the_file_is_an_ordinary_classifier(start, tmp_path):
    done = trained(tmp_path, model=start, method=STRONG)
    back = load_classifier(done.file, net(1))
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(back(x), done.network.to(memory_format=torch.contiguous_format)(x))
    photo = scenes().photo(0)
    for explainer in (camplug.CAM(back), camplug.FullyCAM(back)):
        maps = explainer.explain(photo, [0, 2]).maps
        assert maps.shape == (2, 48, 48)
        assert maps.max() <= 1
    settings = json.loads((tmp_path / "settings.json").read_text())["method"]
    assert settings["name"] == "fpr"
    assert (settings["groups"], settings["pass_scales"]) == ("auto", [1.0])
    names = {"loss", "classification", "region_contrast", "pixel_rectification", "pairs", "false_positives"}
    assert done.losses.keys() == names
    with next((tmp_path / "checkpoints" / "losses").rglob("metrics.csv")).open() as file:
        assert names <= set(next(csv.reader(file)))


def test_groups_of_ones_own_are_kept_as_json(start, tmp_path):
    data = scenes()
    own = {"all": data.classes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(tmp_path, model=start, method=replace(STRONG, groups=own))
    assert json.loads((tmp_path / "settings.json").read_text())["method"]["groups"] == {"all": list(data.classes)}
    with pytest.raises(InputError, match=r"method\.groups"):
        trained(tmp_path, model=start, method=STRONG)


@pytest.mark.parametrize("present", [0.0, 1.0])
def test_awkward_batches(start, present):
    """Nothing shown, everything shown; one image; nothing lit."""
    module = training(start)
    for count in (1, 4):
        batch = batch_of(module.gather.crops, count)
        batch = batch._replace(present=torch.full_like(batch.present, present))
        for dark in (False, True):
            module.zero_grad()
            pixels = batch.pixels * 0 if dark else batch.pixels
            parts = module.compute_losses(module.normalize(pixels), batch, 0)
            sum(weight * value for weight, value in parts.values()).backward()
            assert all(bool(value.isfinite()) for _, value in parts.values())
            assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)
            if not present:
                assert [float(parts[n][1].detach()) for n in parts if n != "classification"] == [0.0] * 4


def test_no_prototypes_at_all(start):
    """Maps that light up nothing give nothing to hold on to, and nothing to learn from but the labels."""
    module = training(start)
    with torch.no_grad():
        module.network.head.weight.copy_(-module.network.head.weight.abs())
    module.prototypes = module.gather(module.network, module.normalize)
    assert [len(x) for x in module.prototypes.positive] == [0, 0, 0]
    batch = batch_of(module.gather.crops)
    parts = module.compute_losses(module.normalize(batch.pixels), batch, 0)
    assert [float(value.detach()) for name, (_, value) in parts.items() if name != "classification"] == [0.0] * 4


class Few(Scenes):
    """Scenes whose classes are called like some of VOC."""

    def __init__(self, count=16):
        super().__init__(count, (48, 48), classes=3)
        self.classes = ("person", "cat", "dog")


def test_classes_without_usable_negatives_are_told_once(start, tmp_path):
    data, fpr = Few(), replace(STRONG, groups="voc")
    start = load(start)
    start.classes = list(data.classes)
    with pytest.warns(UserWarning, match="pixel rectification leaves out") as found:
        trained(tmp_path / "a", data, start, method=fpr)
    texts = [str(w.message) for w in found if "pixel rectification" in str(w.message)]
    assert len(texts) == 1
    assert texts[0].startswith("pixel rectification leaves out cat, dog, person (100 % of the labels): ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "(?!pixel).*")
        trained(tmp_path / "b", data, start, method=replace(fpr, pixel_rectification=0.0))


def test_a_class_that_no_image_shows(start, tmp_path):
    class Two(Scenes):
        def labels(self, i):
            return tuple(c for c in super().labels(i) if c != 2)

    data = Two(16, (48, 48), classes=3)
    with pytest.warns(UserWarning, match="no image shows"):
        done = trained(tmp_path, data, start, method=STRONG)
    assert done.losses["loss"] == done.losses["loss"]


def test_groups():
    voc = FPR().group_numbers(VOC_CLASSES)
    assert voc == FPR(groups="voc").group_numbers(VOC_CLASSES)
    assert [voc.count(g) for g in range(4)] == [1, 6, 7, 6]
    assert FPR(groups="none").group_numbers(VOC_CLASSES) == [-1] * 20
    assert FPR().group_numbers(["cat", "dog"]) == [-1, -1]
    from camplug.wsss.fpr import COCO_GROUPS

    coco = [name for names in COCO_GROUPS.values() for name in names]
    assert FPR().group_numbers(coco[::-1]) == FPR(groups="coco").group_numbers(coco[::-1])
    assert len(set(FPR().group_numbers(coco))) == 12
    assert FPR(groups={"one": "b", "two": ("a", "c")}).group_numbers(["a", "b"]) == [1, 0]


def test_needs_a_trained_classifier(tmp_path):
    with pytest.raises(ModelError, match=r"a head of 6 classes.*; give a classifier trained on these classes"):
        train_classifier(tiny(), scenes(), tmp_path, method=FPR(), learning=LEARNING, span=SPAN)
    assert FPR().get_neck_settings() is None
    assert FPR().group == 1


def test_groups_that_do_not_fit_are_told_before_anything_is_settled(start, tmp_path):
    with pytest.raises(InputError, match="is in no group"):
        trained(tmp_path, model=start, method=replace(STRONG, groups="coco"))
    assert not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"clusters": 0}, "clusters=0; give at least 1"),
        ({"negatives": -1}, "negatives=-1; give at least 0"),
        ({"theta": 1.0}, r"theta=1\.0; give a part of the maximum"),
        ({"temperature": 0.0}, r"temperature=0\.0; give a number above 0"),
        ({"offset": -0.1}, r"offset=-0\.1; give 0 or more"),
        ({"region_contrast": -1.0}, r"region_contrast=-1\.0; give 0 or more"),
        ({"pixel_rectification": float("nan")}, "pixel_rectification=nan; give 0 or more"),
        ({"distance": "l1"}, "distance='l1'; allowed are rms, l2, spread"),
        ({"pass_scales": ()}, r"pass_scales=\(\); give at least one number, each above 0"),
        ({"pass_scales": (1.0, 0.0)}, "each above 0"),
        ({"groups": "vco"}, r"groups='vco' \(did you mean 'voc'\?\); allowed are auto, voc, coco, none"),
    ],
)
def test_options_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        FPR(**options)
