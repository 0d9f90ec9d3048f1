"""Training by attention transfer: a step by hand, what is switched off, stops, and files."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d

import camplug
from camplug.errors import ModelError
from camplug.wsss.atm import (
    ATM,
    FUM,
    ATMTraining,
    GreyChange,
    PyramidFUM,
    adjust_grey,
    background_similarity_loss,
    merge_maps,
    similarity_loss,
)
from camplug.wsss.atm import (
    lightning_module as module,
)
from camplug.wsss.classifier import (
    ClassifierCrop,
    LearningSettings,
    SpanSettings,
    build_classifier,
    load_classifier,
    normalize_maps,
    train_classifier,
)
from camplug.wsss.data import Scenes
from camplug.wsss.train import ScheduleSettings

SCENES = Scenes(16, size=(48, 48), classes=4)
READS = camplug.Preprocess((48, 48), (0.4, 0.5, 0.6), (0.25, 0.2, 0.3))
FIXED = LearningSettings(cut=None)
TRAINED = LearningSettings(ScheduleSettings("adamw", 1e-3), head_lr=1, cut=None, batch_norm="train")
SPAN = SpanSettings(epochs=2, batch=8, crop=48, sides=(48, 48))
NO_FUM = {"fum": False}
NO_BATCH_NORM = {"atrous": False}

pytestmark = pytest.mark.filterwarnings("ignore:.*(self.log|val_dataloader|no positive evidence).*")


def convs(seed=3):
    """Puts out maps of stride 8."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        layers += [nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
        model = nn.Sequential(*layers).eval()
        model.pretrained_cfg = {"input_size": (3, 48, 48), "mean": READS.mean, "std": READS.std}
        return model


def training(method, learning=FIXED, bias=None):
    torch.manual_seed(1)
    network = build_classifier(convs(), SCENES.classes, neck=method.get_neck_settings())
    if bias is not None:
        network.head.bias = nn.Parameter(torch.tensor(bias))
    return ATMTraining(network, learning, method, ids=SCENES.ids).double().train()


def batch_of(n, present=None):
    rng = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (n, 3, 48, 48), dtype=torch.uint8, generator=rng)
    present = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]])[:n] if present is None else present
    return ClassifierCrop(pixels, present.double(), torch.arange(n))


def losses(module, batch, step=0):
    return module.compute_losses(module.normalize(batch.pixels), batch, step)


def by_hand(module, batch, method):
    """One view after another: the losses with their weights, and the merged maps."""
    network, mean, std = module.network, *((255 * torch.tensor(v))[:, None, None] for v in (READS.mean, READS.std))
    changes = {"enhanced": method.enhanced, "decreased": method.decreased}
    kept = {"enhanced": method.enhance, "decreased": method.decrease}
    views = {"original": batch.pixels.double()}
    views |= {k: adjust_grey(batch.pixels, GreyChange(*v)).double() for k, v in changes.items() if kept[k]}
    bces, maps = [], {}
    for name, pixels in views.items():
        features = network.features((pixels - mean) / std)
        bces.append(binary_cross_entropy_with_logits(network.head(features).mean((2, 3)), batch.present))
        maps[name] = normalize_maps(conv2d(features, network.head.weight), batch.present)
    expected = {"classification": (1.0, sum(bces) / len(bces))}
    if len(views) == 1:
        return expected, None
    enhanced, decreased = maps.get("enhanced"), maps.get("decreased")
    one, other = enhanced if kept["enhanced"] else decreased, decreased if kept["decreased"] else enhanced
    merged = merge_maps(one, other, batch.present, background=method.background, sure=method.sure)
    if method.similarity:
        value = similarity_loss(maps["original"], enhanced, decreased, batch.present, average=method.average)
        expected["similarity"] = (method.similarity, value)
    if method.background_similarity:
        foreground = method.planes == "all"
        value = background_similarity_loss(
            maps["original"], merged, batch.present, foreground=foreground, average=method.average
        )
        expected["background_similarity"] = (method.background_similarity, value)
    return expected, merged


def gradients(module, parts):
    module.zero_grad()
    torch.stack([weight * value for weight, value in parts.values()]).sum().backward()
    return {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enhance": False},
        {"decrease": False, "enhanced": (1.2, -20)},
        {"enhance": False, "decrease": False},
        {"fum": False, "similarity": 0.1, "background_similarity": 2, "planes": "background"},
        {"similarity": 0, "background": 0.6, "sure": 0.7},
        {"background_similarity": 0, "level": "last", "residual": True, "average": "present"},
        {"average": "present", "planes": "background"},
        {"similarity": 0, "background_similarity": 0},
    ],
    ids=str,
)
def test_a_step_equals_the_views_one_after_another(options):
    method = ATM(**{**NO_BATCH_NORM, **options})
    atm, batch = training(method), batch_of(3)
    logged = {}
    atm.log = lambda name, value, **_: logged.update({name: value})
    found = losses(atm, batch)
    expected, merged = by_hand(atm, batch, method)
    assert found.keys() == expected.keys()
    for name, (weight, value) in expected.items():
        assert found[name][0] == weight
        torch.testing.assert_close(found[name][1], value, rtol=1e-10, atol=1e-12)
    grads = gradients(atm, found)
    for name, wanted in gradients(atm, expected).items():
        torch.testing.assert_close(grads[name], wanted, rtol=1e-7, atol=1e-10)
    if "background_similarity" in expected:
        n, _, h, w = merged.shape
        share = sum(bool((m[:, y, x] > 0).any()) for m in merged for y in range(h) for x in range(w)) / (n * h * w)
        assert logged["merged"] == pytest.approx(share)
        assert 0 < share < 1
    else:
        assert not logged


def test_batch_normalisation_that_is_trained_sees_all_views_together():
    method = ATM()
    atm, batch = training(method, TRAINED), batch_of(2)
    first, seen = atm.network.body.model[1], []
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    losses(atm, batch)
    pixels = [batch.pixels, *(adjust_grey(batch.pixels, change) for change in method.changes)]
    x = torch.cat([atm.normalize(p) for p in pixels])
    (values,) = seen
    torch.testing.assert_close(values, conv2d(x, atm.network.body.model[0].weight, stride=2, padding=1))
    torch.testing.assert_close(first.running_mean, 0.1 * values.mean((0, 2, 3)))
    fixed = training(method)  # of the body, not of the neck
    losses(fixed, batch)
    assert fixed.network.body.model[1].running_mean.count_nonzero() == 0
    assert fixed.network.neck.atrous[1].running_mean.count_nonzero() > 0


@pytest.mark.parametrize("enhance, decrease", [(True, True), (True, False), (False, True), (False, False)])
def test_there_is_one_forward_pass_of_the_views_that_are_on(enhance, decrease):
    atm, sizes = training(ATM(enhance=enhance, decrease=decrease)), []
    atm.network.body.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    losses(atm, batch_of(3))
    assert sizes == [3 * (1 + enhance + decrease)]


def test_what_is_switched_off_is_not_computed(monkeypatch):
    def never(*_, **__):
        raise AssertionError

    off = {"similarity": 0, "background_similarity": 0}
    for name in ("merge_maps", "background_similarity_loss", "similarity_loss"):
        monkeypatch.setattr(module, name, never)
    assert losses(training(ATM(**off)), batch_of(2)).keys() == {"classification"}
    monkeypatch.setattr(module, "adjust_grey", never)
    both_off = ATM(enhance=False, decrease=False)
    assert losses(training(both_off), batch_of(2)).keys() == {"classification"}
    assert isinstance(training(both_off).network.neck, PyramidFUM)


def test_gradients_reach_what_they_should():
    """Eq. 5 draws all views; eq. 6 the original alone. Neither touches the maps of absent classes."""
    atm, batch, maps = training(ATM(level="last")), batch_of(2), []
    atm.network.head.register_forward_hook(lambda module, inputs, output: maps.append(output))
    parts = losses(atm, batch)
    shown = batch.present.bool().repeat(3, 1)
    for name, reached in (("similarity", [1, 1, 1]), ("background_similarity", [1, 0, 0])):
        (gradient,) = torch.autograd.grad(parts[name][1], maps, retain_graph=True)
        assert gradient[~shown].count_nonzero() == 0
        assert [int(bool(g.count_nonzero())) for g in gradient.chunk(3)] == reached
    learn = gradients(atm, parts)
    assert all(g is not None and g.isfinite().all() and g.count_nonzero() for g in learn.values())


def test_layers_up_to_the_cut_stay():
    atm = training(ATM(), LearningSettings(cut=4))
    grads = gradients(atm, losses(atm, batch_of(2)))
    assert {name for name, g in grads.items() if g is None} == {
        f"network.body.model.{part}" for part in ("0.weight", "1.weight", "1.bias", "3.weight", "3.bias")
    }


def test_a_bias_of_the_head_is_no_part_of_the_maps():
    method, batch = ATM(**NO_FUM), batch_of(3)
    plain, biased = training(method), training(method, bias=[3.0, -2.0, 1.0, 0.5])
    for name in ("similarity", "background_similarity"):
        torch.testing.assert_close(losses(plain, batch)[name], losses(biased, batch)[name])
    assert losses(plain, batch)["classification"][1] != losses(biased, batch)["classification"][1]


@pytest.mark.parametrize(
    "n, present", [(2, torch.zeros(2, 4)), (1, None), (1, torch.zeros(1, 4)), (2, torch.ones(2, 4))]
)
@pytest.mark.parametrize("learning", [FIXED, TRAINED], ids=["fixed", "trained"])
def test_awkward_batches(n, present, learning):
    atm, batch = training(ATM(), learning), batch_of(n, present)
    for pixels in (batch.pixels, torch.zeros_like(batch.pixels), torch.full_like(batch.pixels, 255)):
        parts = losses(atm, batch._replace(pixels=pixels), step=1)
        assert all(g is None or g.isfinite().all() for g in gradients(atm, parts).values())
        assert all(value.isfinite() for _, value in parts.values())
        if not batch.present.any():
            assert parts["similarity"][1] == parts["background_similarity"][1] * 0 == 0


def test_saturation_is_told_in_the_first_step_alone():
    atm, batch = training(ATM(enhanced=(1.5, 300))), batch_of(2)
    with pytest.warns(UserWarning, match=r"100% of the pixel values saturate under GreyChange\(alpha=1.5, beta=300\)"):
        losses(atm, batch)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        losses(atm, batch, step=1)
    assert not [w for w in told if "saturate" in str(w.message)]


def trained(out, method=ATM()):
    return train_classifier(convs(), SCENES, out, method=method, learning=TRAINED, span=SPAN)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_stopped_and_going_on_is_the_same_as_not_stopped(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole")
    assert whole.losses.keys() == {"loss", "classification", "similarity", "background_similarity", "merged"}
    assert same(trained(tmp_path / "again").network, whole.network)

    begin = ATMTraining.on_train_epoch_start

    def killed(self):
        if self.current_epoch == 1:
            raise GeneratorExit
        begin(self)

    monkeypatch.setattr(ATMTraining, "on_train_epoch_start", killed)
    with pytest.raises(GeneratorExit):
        trained(tmp_path / "stopped")
    monkeypatch.undo()
    resumed = trained(tmp_path / "stopped")
    assert same(resumed.network, whole.network)
    assert resumed.losses == whole.losses
    assert not same(trained(tmp_path / "other", ATM(similarity=5)).network, whole.network)


@pytest.mark.parametrize(
    "method, neck",
    [
        (ATM(dilations=(1, 2), width=5), PyramidFUM),
        (ATM(dilations=(1, 2), width=5, level="last"), FUM),
        (ATM(fum=False), nn.Identity),
    ],
    ids=["pyramid", "last", "no fum"],
)
def test_a_trained_classifier_is_read_and_explained(tmp_path, method, neck):
    done = trained(tmp_path, method)
    network = load_classifier(done.file, convs(seed=4))
    assert isinstance(network.neck, neck)
    photo = SCENES.photo(0)
    x = READS(photo)[0][None]
    torch.testing.assert_close(network(x), done.network(x))  # trained in another memory format
    for explainer in (camplug.CAM, camplug.FullyCAM):
        found, wanted = (explainer(n).explain(photo, [0, 1]) for n in (network, done.network))
        torch.testing.assert_close(torch.as_tensor(found.maps), torch.as_tensor(wanted.maps))
        assert torch.as_tensor(found.maps).isfinite().all()


@pytest.mark.parametrize("level", ["pyramid", "last"])
def test_a_trained_fum_goes_on(level):
    method = ATM(width=5, level=level)
    network = build_classifier(convs(), SCENES.classes, neck=method.get_neck_settings())
    nn.init.ones_(network.neck.atrous[0].weight)
    for again in (method, ATM(level=level)):  # leaves the width open
        assert same(build_classifier(network, SCENES.classes, neck=again.get_neck_settings()), network)
    other = ATM(level=level, context=False)
    assert not same(build_classifier(network, SCENES.classes, neck=other.get_neck_settings()), network)


def test_the_pyramid_keeps_a_trained_head_and_the_last_level_does_not():
    network = build_classifier(convs(), SCENES.classes)
    for level in ("pyramid", "last"):
        found = build_classifier(network, SCENES.classes, neck=ATM(level=level).get_neck_settings())
        assert torch.equal(found.head.weight, network.head.weight) == (level == "pyramid")
    with pytest.raises(ModelError, match=r"a head cannot be kept behind a new neck \(fum\)"):
        build_classifier(network, SCENES.classes, neck=ATM(level="last").get_neck_settings(), keep_head=True)
