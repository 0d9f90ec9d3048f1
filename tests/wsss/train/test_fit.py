"""A training that is stopped and goes on ends like one that was not; and what it refuses."""

from __future__ import annotations

import io
import os
import pickle
import re
import signal
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from heads import tiny
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from camplug.errors import InputError, ModelError
from camplug.images.preprocess import Preprocess
from camplug.wsss.data import Scenes
from camplug.wsss.irn import IRN, IRNHeadSettings
from camplug.wsss.train import Backbone, LabelCrops, ScheduleSettings, fit
from camplug.wsss.train.progress import ProgressCallback
from camplug.wsss.train.progress_bar import TrainingProgressBar

SCENES = Scenes(6, (48, 48))
SETTINGS = IRNHeadSettings(radius=3, width=16, schedule=ScheduleSettings(lr=0.02, momentum=0.9))


def parts(settings=SETTINGS, indices=None):
    backbone = Backbone(tiny())
    crops = LabelCrops(SCENES, SCENES.mask, backbone.normalize, crop=32, indices=indices)
    torch.manual_seed(0)
    return IRN(backbone, settings), crops


def trained(out, callbacks=(), epochs=3, **options):
    irn, crops = parts(**options)
    losses = fit(irn, crops, out, epochs=epochs, batch=2, device="cpu", progress=False, callbacks=callbacks)
    return irn, losses


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class CtrlC(Callback):
    """In the middle of the second epoch."""

    def on_train_batch_start(self, trainer, module, batch, index):
        if (trainer.current_epoch, index) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)


class Killed(Callback):
    """Ends without a word after the first epoch."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            raise GeneratorExit


@pytest.fixture
def hears_ctrl_c():
    """A process that a shell started in the background is deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_stopped_and_going_on_is_the_same_as_not_stopped(tmp_path):
    whole, losses = trained(tmp_path / "whole")
    assert losses.keys() == {"affinity", "displacement", "displacement_bg"}
    fresh, _ = parts()
    assert not same(whole, fresh)
    hears = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", (CtrlC(),))
    assert signal.getsignal(signal.SIGINT) is hears  # the next Ctrl-C is heard again
    resumed, again = trained(tmp_path / "stopped")
    assert same(resumed, whole)
    assert again == losses
    with pytest.raises(GeneratorExit):
        trained(tmp_path / "killed", (Killed(),))
    assert same(trained(tmp_path / "killed")[0], whole)
    finished, none = trained(tmp_path / "whole")  # nothing is left to do
    assert same(finished, whole)
    assert none == {}


def test_the_losses_of_all_epochs_are_kept(tmp_path):
    with pytest.raises(GeneratorExit):
        trained(tmp_path, (Killed(),))
    trained(tmp_path)
    for run, wanted in enumerate((["0"], ["1", "2"])):
        rows = (tmp_path / "losses" / f"version_{run}" / "metrics.csv").read_text().splitlines()
        columns = rows[0].split(",")
        assert {"affinity", "displacement", "displacement_bg", "step"} <= set(columns)
        assert sorted({row.split(",")[columns.index("epoch")] for row in rows[1:]}) == wanted


def test_nothing_is_printed(tmp_path, capfd, recwarn):
    trained(tmp_path, epochs=1)
    trained(tmp_path, epochs=2)
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn] == []


def test_one_step_is_that_of_sgd(tmp_path):
    """The boundary head's bias after one step of one batch: its value minus rate times gradient."""
    irn, crops = parts(IRNHeadSettings(radius=3, width=0, schedule=ScheduleSettings(lr=0.5, weight_decay=0.0)), [0, 3])
    before = irn.boundary.out.bias.detach().clone()
    batch = [torch.stack(parts) for parts in zip(*(crops[0, i] for i in range(2)), strict=True)]
    loss = irn_loss(irn, *batch)
    (gradient,) = torch.autograd.grad(loss, irn.boundary.out.bias)
    fit(irn, crops, tmp_path, epochs=1, batch=2, device="cpu", progress=False)
    assert torch.allclose(irn.boundary.out.bias, before - 0.5 * gradient, atol=1e-6)
    assert not torch.equal(irn.boundary.out.bias, before)


def irn_loss(irn, image, labels):
    """The affinity loss of a batch, pair by pair."""
    boundary = irn.boundary(irn.backbone(image)).sigmoid()
    terms = {"bg": [], "fg": [], "other": []}
    for b, marks in zip(boundary, labels, strict=True):
        h, w = marks.shape
        for y in range(h):
            for x in range(w):
                for dy, dx in (
                    (0, 1),
                    (0, 2),
                    (1, -2),
                    (1, -1),
                    (1, 0),
                    (1, 1),
                    (1, 2),
                    (2, -2),
                    (2, -1),
                    (2, 0),
                    (2, 1),
                    (2, 2),
                ):
                    v, u = y + dy, x + dx
                    if not (dy * dy + dx * dx < 9 and v < h and 0 <= u < w) or 255 in (marks[y, x], marks[v, u]):
                        continue
                    ys, xs = range(y, v + 1), range(min(x, u), max(x, u) + 1)
                    way = [b[p, q] for p in ys for q in xs if (dy * (q - x) - dx * (p - y)) ** 2 < dy * dy + dx * dx]
                    a = 1 - torch.stack(way).max()
                    kind = ("bg" if marks[y, x] == 0 else "fg") if marks[y, x] == marks[v, u] else "other"
                    terms[kind].append(-(1 + 1e-5 - a).log() if kind == "other" else -(a + 1e-5).log())
    means = {kind: torch.stack(values).mean() if values else 0 for kind, values in terms.items()}
    return means["bg"] / 4 + means["fg"] / 4 + means["other"] / 2


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="1 images do not fill a batch of 2; give a smaller batch"):
        trained(tmp_path, indices=[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the folder '.*file/a' cannot be made"):
        trained(tmp_path / "file" / "a")
    trained(tmp_path / "a", epochs=1)
    content = (tmp_path / "a" / "last.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"last\.ckpt' belongs to another training"):
        trained(tmp_path / "a", settings=IRNHeadSettings(radius=3, width=32))
    for file in (tmp_path / "a").glob("*.ckpt"):
        file.write_bytes(content[:999])
    with pytest.raises(InputError, match=r"last\.ckpt' is damaged; delete it and begin again"):
        trained(tmp_path / "a")
    with pytest.raises(ModelError, match=r"the loss at step . is nan; a lower learning rate"):
        trained(tmp_path / "b", settings=IRNHeadSettings(radius=3, width=16, schedule=ScheduleSettings(lr=1e30)))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    whole, _ = trained(tmp_path / "whole")
    with pytest.raises(GeneratorExit):
        trained(tmp_path / "cut", (Killed(),))
    last = tmp_path / "cut" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:999])
    with pytest.warns(UserWarning, match=r"last\.ckpt in '.*cut' is damaged; the training goes on from epoch=0\.ckpt"):
        resumed, losses = trained(tmp_path / "cut")
    assert same(resumed, whole)
    assert losses["affinity"] > 0
    assert (tmp_path / "cut" / "losses" / "version_1").exists()


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"])
def test_the_variables_of_slurm_are_left_alone(tmp_path, monkeypatch, name):
    for key, value in {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0", name: "4"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    _, losses = trained(tmp_path, epochs=1)
    assert losses["affinity"] > 0


def test_a_loss_of_exactly_0_ends_the_training(tmp_path):
    irn, crops = parts()
    crops.labels = lambda i: np.full((48, 48), 255, np.uint8)
    with pytest.raises(ModelError, match="the loss of every step is exactly 0, so there is nothing to learn"):
        fit(irn, crops, tmp_path, epochs=1, batch=2, device="cpu", progress=False)
    assert not (tmp_path / "last.ckpt").exists()


class Noted(Callback):
    """Return the options that Lightning was given."""

    def on_fit_start(self, trainer, module):
        self.precision = trainer.precision
        self.pinned = trainer.fit_loop._data_source.instance.pin_memory


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_precision_and_pinned_memory_are_of_a_gpu_alone(tmp_path, device, dtype):
    if device.type == "simulated":
        pytest.skip("Lightning does not know this device")
    on_cuda, noted = device.type == "cuda", Noted()
    irn, crops = parts()
    fit(irn, crops, tmp_path, epochs=1, batch=2, device=str(device), progress=False, callbacks=(noted,), dtype=dtype)
    half = "bf16-mixed" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    assert noted.precision == (half if dtype == "auto" and on_cuda else "32-true")
    assert noted.pinned is on_cuda


@pytest.mark.parametrize("device, number", [("cuda", ""), ("cuda:1", "1"), ("auto", ""), ("gpu", "")])
@pytest.mark.parametrize("bf16", [True, False])
def test_what_a_gpu_would_be_given(tmp_path, monkeypatch, device, number, bf16):
    """Lightning is asked for no device here; what it would be asked for is looked at."""
    given = {}

    class Asked(Exception):
        pass

    def trainer(**options):
        given.update(options)
        raise Asked

    monkeypatch.setattr("lightning.pytorch.Trainer", trainer)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda number: asked.append(number) or nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    irn, crops = parts()
    with pytest.raises(Asked):
        fit(irn, crops, tmp_path, epochs=1, batch=2, device=device, dtype="auto")
    assert given["precision"] == ("bf16-mixed" if bf16 else "16-mixed")
    assert asked == [1 if number else None]
    assert given["devices"] == ([1] if number else 1)
    (bar,) = [c for c in given["callbacks"] if isinstance(c, ProgressBar)]
    assert bar.refresh_rate == 10


def test_workers_are_given_no_model(tmp_path):
    """A crop is normalised by plain numbers: what is sent to a worker holds no weight, wherever the model lies."""
    data = SCENES
    crops = LabelCrops(data, data.mask, Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3).normalize, crop=32)
    assert len(pickle.dumps(crops.normalize)) < 500
    assert torch.equal(crops[0, 1].image, LabelCrops(data, data.mask, Backbone(tiny()).normalize, crop=32)[0, 1].image)


def test_the_last_images_are_left_out(tmp_path):
    irn, crops = parts(indices=[0, 1, 2, 3, 4])
    fit(irn, crops, tmp_path, epochs=2, batch=2, device="cpu", progress=False)
    assert irn.trainer.global_step == 4


@pytest.mark.parametrize("width", [80, 120])
def test_the_progress_bar_takes_one_line(tmp_path, monkeypatch, width):
    out = io.StringIO()
    console = {"file": out, "width": width, "force_terminal": True, "color_system": None}
    made = partial(TrainingProgressBar, console_kwargs=console)
    monkeypatch.setattr("camplug.wsss.train.progress_bar.TrainingProgressBar", made)
    irn, crops = parts()
    fit(irn, crops, tmp_path, epochs=1, batch=2, device="cpu")
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", out.getvalue()))
    shown = [line.rstrip() for line in lines if "Epoch 0/0" in line]
    assert len(shown) >= 2
    assert re.search(r"3/3 .* affinity: \d\.\d+$", shown[-1]), shown
    assert max(map(len, shown)) <= width


@pytest.mark.parametrize("dtype, says", [("float16", "on CUDA alone; give bfloat16"), ("half", "allowed are auto, ")])
def test_a_dtype_that_a_device_does_not_train_in(tmp_path, dtype, says):
    irn, crops = parts()
    with pytest.raises(InputError, match=says):
        fit(irn, crops, tmp_path, epochs=1, batch=2, device="cpu", progress=False, dtype=dtype)


def test_steps_are_reported_of_the_epochs_that_are_left(tmp_path):
    class Counted(ProgressCallback):
        def __init__(self):
            self.parts = []

        @contextmanager
        def steps(self, what, total):
            self.parts.append([what, total, 0])
            yield lambda: self.parts[-1].__setitem__(2, self.parts[-1][2] + 1)
            self.parts[-1].append("ended")

    watch = Counted()
    with pytest.raises(GeneratorExit):
        fit(*parts(), tmp_path, epochs=3, batch=2, device="cpu", progress=False, watch=watch, callbacks=(Killed(),))
    fit(*parts(), tmp_path, epochs=3, batch=2, device="cpu", progress=False, watch=watch)
    assert watch.parts[0][:3] == ["training", 9, 3]
    assert watch.parts[1] == ["training", 6, 6, "ended"]
