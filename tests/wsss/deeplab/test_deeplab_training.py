"""Training DeepLab: stops, files, labels, saliency, and what is refused."""

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

import camplug
from camplug.errors import InputError, ModelError
from camplug.wsss.classifier import build_classifier
from camplug.wsss.deeplab import (
    DeepLabNetworkSettings,
    DeepLabSettings,
    build_deeplab,
    load_deeplab,
    save_deeplab,
)
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.train import ScheduleSettings
from camplug.wsss.train import fit as fitting

pytestmark = pytest.mark.filterwarnings("ignore:.*(self.log|does not say).*")


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
            patched.setattr("camplug.wsss.train.task.fit", partial(fitting, callbacks=(stop(),)))
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
    with pytest.raises(InputError, match="saliency 'nowhere': give contrast or spectral, a folder"):
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
