"""Training DeepLab: groups and rates, what is frozen, stops, files, crops with saliency, and what is refused."""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import replace
from functools import partial

import labelled
import numpy as np
import pytest
import torch
import trainable
from lightning.pytorch import Callback
from PIL import Image
from torch import nn

import camplug
from camplug.errors import InputError, ModelError
from camplug.wsss.classifier import build_classifier
from camplug.wsss.deeplab import (
    DeepLabNetworkSettings,
    DeepLabSettings,
    DeepLabTraining,
    activation_aware_loss,
    build_deeplab,
    load_deeplab,
    multiscale_loss,
    save_deeplab,
    shrink_labels,
)
from camplug.wsss.deeplab.crops import SegmentationCrop, SegmentationCrops, make_normalizer
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.train import LabelCrops, ScheduleSettings
from camplug.wsss.train import fit as fitting
from camplug.wsss.train.crops import load_label_picture

pytestmark = pytest.mark.filterwarnings("ignore:.*(self.log|does not say).*")


class Trainer:
    estimated_stepping_batches, world_size, global_rank, current_epoch, global_step = 4, 1, 0, 0, 0


def module(settings, seed=0):
    torch.manual_seed(seed)
    found = DeepLabTraining(build_deeplab(trainable.net(), "abc", settings), settings, ids=labelled.scenes().ids)
    found._trainer = Trainer()
    found.log = found.log_dict = lambda *args, **kwargs: None
    return found.train()


def batch(n=2, side=48):
    rng = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (n, side, side), generator=rng, dtype=torch.uint8)
    labels[:, :, :8] = 255
    saliency = torch.rand(n, side, side, generator=rng)
    return SegmentationCrop(torch.randn(n, 3, side, side, generator=rng), labels, saliency, torch.arange(n))


def test_the_groups_have_the_rates_of_the_second_deeplab():
    found = module(DeepLabNetworkSettings(output_stride=None))
    made = found.configure_optimizers()
    groups = made["optimizer"].param_groups
    assert [g["lr"] for g in groups] == pytest.approx([2.5e-4, 2.5e-3, 5e-3])
    assert [g["weight_decay"] for g in groups] == [5e-4, 5e-4, 0.0]
    assert [g["momentum"] for g in groups] == [0.9] * 3
    biases = {id(branch.bias) for branch in found.network.head.branches}
    assert {id(p) for p in groups[2]["params"]} == biases
    assert {id(p) for p in groups[1]["params"]} == {id(branch.weight) for branch in found.network.head.branches}
    convs = [m.weight for m in found.network.body.modules() if isinstance(m, nn.Conv2d)]
    assert {id(p) for p in convs} <= {id(p) for p in groups[0]["params"]}
    rates = []
    for _ in range(4):
        rates.append(groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx([2.5e-4 * (1 - step / 4) ** 0.9 for step in range(4)])


def test_fixed_batch_norm_neither_learns_nor_counts_but_a_head_s_own_does():
    settings = DeepLabNetworkSettings("v3+", output_stride=None, width=8)
    found = module(settings)
    before = {k: v.clone() for k, v in found.network.state_dict().items()}
    made = found.configure_optimizers()
    found.training_step(batch(), 0).backward()
    made["optimizer"].step()
    after = found.network.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert not any(k.startswith("body") and ".1." in k for k in changed)  # the batch norms of `Net`
    assert any(k.startswith("body") and k.endswith("0.weight") for k in changed)
    assert {"head.project.1.running_mean", "head.project.1.weight", "head.pooled.1.running_var"} <= changed
    assert not found.network.body.model.one[1].training
    assert found.network.head.project[1].training
    trained = module(replace(settings, batch_norm="train"))
    assert trained.network.body.model.one[1].training
    trained.training_step(batch(), 0).backward()
    assert trained.network.body.model.one[1].weight.grad is not None


def test_what_lies_before_the_cut_gets_no_gradient():
    found = module(DeepLabNetworkSettings(output_stride=None, cut=4))
    found.training_step(batch(), 0).backward()
    body = found.network.body.model
    assert all(p.grad is None and not p.requires_grad for part in (body.one, body.two) for p in part.parameters())
    assert body.three[0].weight.grad is not None
    optimised = {id(p) for g in found.configure_optimizers()["optimizer"].param_groups for p in g["params"]}
    assert optimised.isdisjoint({id(p) for p in [*body.one.parameters(), *body.two.parameters()]})


def test_a_step_is_the_multiscale_loss_of_resized_images():
    found = module(DeepLabNetworkSettings(output_stride=None, loss_scales=(1, 0.75, 0.5), loss="balanced"))
    given = batch()
    sizes = [tuple(m.shape[2:]) for m in found.logits(given.image)]
    assert sizes == [(6, 6), (5, 5), (3, 3)]  # of 48, 36 and 24 pixels at stride 8
    views = [nn.functional.interpolate(given.image, (s, s), mode="bilinear") for s in (48, 36, 24)]
    wanted = multiscale_loss([found.network(v) for v in views], given.labels, balanced=True)
    assert torch.allclose(found.training_step(given, 0), wanted)


def test_the_refinement_term_comes_to_the_loss_at_the_fused_logits():
    settings = DeepLabNetworkSettings(output_stride=None, refinement=0.08, saliency_threshold=0.4)
    found, given = module(settings), batch()
    logits = found.network(given.image)
    plain = multiscale_loss([logits], given.labels)
    saliency = nn.functional.interpolate(given.saliency[:, None], (6, 6), mode="bilinear", antialias=True)[:, 0]
    labels = shrink_labels(given.labels, (6, 6))
    term = activation_aware_loss(logits, labels, saliency, alpha=0.08, threshold=0.4)
    assert term.loss > 0
    assert torch.allclose(found.training_step(given, 0), plain + term.loss)


def test_a_loss_that_is_no_number_names_the_images():
    found = module(DeepLabNetworkSettings(output_stride=None))
    found.network.head.branches[0].weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="the loss at step 0 is nan on the images scene0_000000, scene0_000001"):
        found.training_step(batch(), 0)


def test_an_ignored_batch_has_a_loss_of_0_that_reaches_every_weight():
    found, given = module(DeepLabNetworkSettings(output_stride=None, loss_scales=(1, 0.5))), batch()
    loss = found.training_step(given._replace(labels=torch.full_like(given.labels, 255)), 0)
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is not None for p in found.parameters() if p.requires_grad)


# ---- whole trainings


def test_training_learns_writes_a_file_and_reads_no_mask(tmp_path):
    span = replace(labelled.SPAN, epochs=12)
    done = labelled.trained(tmp_path, settings=DeepLabSettings(labelled.NETWORK, span))
    assert (done.images, done.broken, done.file) == (10, [], tmp_path / "out" / "deeplab.pt")
    assert done.losses["loss"] < 1.0 < np.log(4)
    read = load_deeplab(done.file, trainable.net(seed=5))
    assert trainable.same(read, done.network)
    assert (read.classes, read.preprocess, read.stride) == (done.network.classes, done.network.preprocess, 8)
    assert not read.training
    x = torch.randn(1, 3, 40, 56)
    assert torch.allclose(read(x), done.network(x), atol=1e-5)
    again = labelled.trained(tmp_path, settings=DeepLabSettings(labelled.NETWORK, span))  # it was there
    assert (again.images, again.losses) == (0, {})
    assert trainable.same(again.network, done.network)


class Killed(Callback):
    """Ends without a word after the first epoch."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            raise GeneratorExit


class CtrlC(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if (trainer.current_epoch, index) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stop, error", [(Killed, GeneratorExit), (CtrlC, KeyboardInterrupt)])
def test_stopped_and_going_on_is_the_same_as_not_stopped(tmp_path, monkeypatch, stop, error):
    network = replace(labelled.NETWORK, head="large-fov", width=8)  # it has dropout
    settings = DeepLabSettings(network, replace(labelled.SPAN, epochs=3, batch=2), accumulate=2)
    whole = labelled.trained(tmp_path, "whole", settings)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr("camplug.wsss.deeplab.train.fit", partial(fitting, callbacks=(stop(),)))
            with pytest.raises(error):
                labelled.trained(tmp_path, "stopped", settings)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "stopped" / "deeplab.pt").exists()
    resumed = labelled.trained(tmp_path, "stopped", settings)
    assert trainable.same(resumed.network, whole.network)
    assert resumed.losses == whole.losses


def test_accumulated_batches_step_like_one(tmp_path):
    network = replace(labelled.NETWORK, batch_norm="fixed")
    data = labelled.scenes(9)  # with 4 images per step one is left out, not a step of fewer
    labelled.labels(tmp_path / "labels", 9)
    one = DeepLabSettings(network, replace(labelled.SPAN, epochs=1, batch=4, scales=(1, 1)))
    two = DeepLabSettings(network, replace(labelled.SPAN, epochs=1, batch=2, scales=(1, 1)), accumulate=2)
    a, b = (labelled.trained(tmp_path, out, s, data=data).network for out, s in (("a", one), ("b", two)))
    start = build_deeplab(trainable.net(), data.classes, network)
    for name, before in start.body.state_dict().items():
        mine, theirs = a.body.state_dict()[name], b.body.state_dict()[name]
        if name.endswith("0.weight"):  # scenes are labelled throughout, so that both halves weigh the same
            assert (mine - before).norm() > 100 * (mine - theirs).norm()


def test_images_without_labels_are_left_out_and_told(tmp_path):
    labelled.labels(tmp_path / "labels")
    (tmp_path / "labels" / "scene0_000003.png").unlink()
    done = labelled.trained(tmp_path)
    assert done.images == 9
    ((name, error),) = done.broken
    assert name == "scene0_000003"
    assert error == f"there are no labels {str(tmp_path / 'labels' / 'scene0_000003.png')!r}."


def test_a_label_picture_of_another_size_is_left_out_and_told(tmp_path):
    labelled.labels(tmp_path / "labels")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "labels" / "scene0_000003.png")
    with pytest.warns(UserWarning, match="scene0_000003: the labels of 'scene0_000003' are 4x4"):
        done = labelled.trained(tmp_path, allow_missing=True)
    says = "the labels of 'scene0_000003' are 4x4, its photograph is 48x48; make the labels anew for these photographs."
    assert done.broken == [("scene0_000003", says)]
    with (
        pytest.warns(UserWarning, match="are 4x4"),
        pytest.raises(InputError, match="1 of 10 images cannot be read, more than 5%: the la"),
    ):
        labelled.trained(tmp_path, "other")


@pytest.mark.parametrize("head, scales", [("v3+", (1.0,)), ("aspp", (1.0, 0.75, 0.5))])
def test_files_rebuild_any_network(tmp_path, head, scales):
    network = replace(labelled.NETWORK, head=head, width=8, dilations=(2, 3), loss_scales=scales, output_stride=4)
    done = labelled.trained(tmp_path, settings=DeepLabSettings(network, replace(labelled.SPAN, epochs=1)))
    read = load_deeplab(done.file, trainable.net(seed=1))
    x = torch.randn(1, 3, 48, 48)
    assert torch.allclose(read(x), done.network(x), atol=1e-5)
    assert (read.stride, read.dilations, read.kind) == (4, (2, 3), head)


def test_files_of_built_models_and_of_classifiers(tmp_path):
    model = camplug.load_model("timm:resnet10t", pretrained=False, num_classes=3)
    one = build_deeplab(build_classifier(model, "ab"), "xyz", DeepLabNetworkSettings(head="v3+", width=8))
    save_deeplab(tmp_path / "net.pt", one, {"model": "timm:resnet10t", "num_classes": 3})
    read = load_deeplab(tmp_path / "net.pt")
    assert trainable.same(read, one)
    assert read.output_stride == 16
    assert trainable.same(load_deeplab(tmp_path / "net.pt", build_classifier(model, "ab")), one)
    with pytest.raises(ModelError, match="does not fit timm:resnet10t: "):
        load_deeplab(tmp_path / "net.pt", trainable.net())


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"there is no file '.*none.pt'; `camplug train deeplab` makes it."):
        load_deeplab(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"format": "camplug classifier 1"}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(InputError, match=r"is no DeepLab network that camplug has trained; see `camplug train dee"):
            load_deeplab(tmp_path / name)
    save_deeplab(tmp_path / "own.pt", build_deeplab(trainable.net(), "ab", labelled.NETWORK), {})
    with pytest.raises(ModelError, match=r"was trained on a module of one's own; give it: load_deeplab\(path, model\)"):
        load_deeplab(tmp_path / "own.pt")


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder of labels"):
        labelled.train_deeplab(trainable.net(), labelled.scenes(), tmp_path / "no", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of the 10 images has labels to train on; the first one: there are no"):
        labelled.train_deeplab(
            trainable.net(), labelled.scenes(), tmp_path / "empty", tmp_path / "out", labelled.SETTINGS
        )
    assert not (tmp_path / "out" / "settings.json").exists()
    too_many = DeepLabSettings(labelled.NETWORK, replace(labelled.SPAN, batch=6), accumulate=2)
    with pytest.raises(InputError, match=r"10 images do not fill a batch of 12; give a smaller batch."):
        labelled.trained(tmp_path, settings=too_many)
    with pytest.raises(InputError, match=r"accumulate=0; give at least 1."):
        DeepLabSettings(accumulate=0)
    refined = DeepLabSettings(replace(labelled.NETWORK, refinement=0.08), labelled.SPAN)
    with pytest.raises(InputError, match="refinement without saliency: the activation-aware term needs both"):
        labelled.trained(tmp_path, settings=refined)
    with pytest.raises(InputError, match="saliency without refinement: the activation-aware term needs both"):
        labelled.trained(tmp_path, saliency="contrast")
    with pytest.raises(InputError, match="saliency 'nowhere': give contrast or spectral, or a folder"):
        labelled.trained(tmp_path, settings=refined, saliency="nowhere")
    labelled.trained(tmp_path)
    other = DeepLabSettings(replace(labelled.NETWORK, loss="balanced"), labelled.SPAN)
    with pytest.raises(InputError, match=r"holds a training of other settings: learning.loss differs"):
        labelled.trained(tmp_path, settings=other)
    with pytest.raises(InputError, match=r"the weights of --model differ"):
        labelled.trained(tmp_path, model=trainable.net(seed=1))


# ---- labels


def test_labels_that_ignore_everything_are_refused(tmp_path):
    folder = LabelFolder(tmp_path / "labels")
    folder.prepare({})
    for name in labelled.scenes().ids:
        folder.save(name, np.full((48, 48), 255, np.uint8))
    with pytest.raises(InputError, match=r"all pixels of all 10 label pictures are ignored \(255\)"):
        labelled.trained(tmp_path)
    assert not (tmp_path / "out" / "checkpoints").exists()


# ---- files


def test_checkpoints_and_files_need_no_model_where_it_is_known(tmp_path):
    model = camplug.load_model("timm:test_resnet", pretrained=False)
    done = labelled.trained(tmp_path, model=model, settings=labelled.SETTINGS)
    for file in (done.file, tmp_path / "out" / "checkpoints" / "last.ckpt"):
        found = load_deeplab(file)
        assert trainable.same(found, done.network)
        assert found.classes == done.network.classes


# ---- crops


def test_saliency_is_cut_out_like_the_photograph(tmp_path):
    data = labelled.scenes(4)
    grey = replace(camplug.Preprocess(), mean=(0.0,) * 3, std=(1.0,) * 3)
    crops = LabelCrops(
        data,
        partial(load_label_picture, LabelFolder(labelled.labels(tmp_path)).renumber(data.classes), data),
        make_normalizer(grey),
        crop=64,
        scales=(0.6, 1.6),
        stride=1,
    )

    def red(_, i):
        return np.asarray(data.photo(i), np.float32)[..., 0] / 255

    items = SegmentationCrops(crops, red)
    assert len(items) == 4
    for epoch in range(3):
        for number in range(4):
            item = items[epoch, number]
            assert torch.equal(item.image, crops[epoch, number].image)
            assert torch.equal(item.labels, crops[epoch, number].labels)
            assert int(item.number) == number
            inside = item.labels != 255
            assert item.saliency[~inside].eq(0).all()
            apart = (item.saliency - item.image[0])[inside].abs()  # bicubic there, bilinear here
            assert apart.mean() < 0.03
            assert inside.any()
    assert SegmentationCrops(crops)[0, 0].saliency.shape == (0, 0)


def test_another_image_takes_the_place_of_one_without_saliency(tmp_path):
    data = labelled.scenes(2)
    labels = LabelFolder(labelled.labels(tmp_path)).renumber(data.classes)
    crops = LabelCrops(data, partial(load_label_picture, labels, data), lambda p: p.float(), crop=32)

    def only_one(data, i):
        if i == 0:
            raise InputError("it is gone.")
        return np.full((48, 48), 0.25)

    crops.stride = 1
    items = SegmentationCrops(crops, only_one)
    with pytest.warns(UserWarning, match="scene0_000000: it is gone"):
        item = items[0, 0]
    assert int(item.number) == 1
    assert set(item.saliency.unique().tolist()) <= {0.0, 0.25}
    assert (item.saliency[item.labels != 255] == 0.25).all()
    assert items.substitutes.list_broken() == [("scene0_000000", "it is gone.")]


def test_pixels_are_normalised():
    reads = camplug.Preprocess(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    wanted = torch.tensor([[[-1.0, 1.0]], [[-1.0, 3.0]], [[0.0, 1.0]]])
    assert torch.allclose(make_normalizer(reads)(pixels), wanted)


@pytest.mark.parametrize("source", ["contrast", "folder"])
def test_training_with_the_refinement_term(tmp_path, source):
    given = source
    if source == "folder":
        given = tmp_path / "salient"
        given.mkdir()
        for i, name in enumerate(labelled.scenes().ids):
            mask = labelled.Scenes(10, (48, 48), classes=3).mask(i)
            Image.fromarray(np.uint8(255 * (mask > 0))).save(given / f"{name}.png")
    settings = DeepLabSettings(replace(labelled.NETWORK, refinement=0.08), replace(labelled.SPAN, epochs=1))
    done = labelled.trained(tmp_path, settings=settings, saliency=given)
    assert done.losses["loss"] == pytest.approx(done.losses["cross_entropy"] + done.losses["refinement"])
    assert 0 < done.losses["tau"] <= 1
    if source == "folder":
        assert done.losses["tau"] > 0.8
        assert done.losses["conflicts"] < 0.1


def test_schedules_of_adamw(tmp_path):
    schedule = ScheduleSettings("adamw", 1e-3, weight_decay=0.01, warmup=0.3, shape="one-cycle")
    settings = DeepLabSettings(replace(labelled.NETWORK, schedule=schedule, loss="balanced"), labelled.SPAN)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert labelled.trained(tmp_path, settings=settings).images == 10
