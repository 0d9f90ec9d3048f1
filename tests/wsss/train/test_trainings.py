"""One short training of every kind on a device, with half precision where there is some: it learns, and goes on."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import labelled
import numpy as np
import pytest
import stepped
import torch
import trainable
from noting import Killed, Noted

import camplug
from camplug.errors import InputError
from camplug.wsss.classifier import load_classifier
from camplug.wsss.deeplab import DeepLabSettings, Segmenter, load_deeplab
from camplug.wsss.train import fit as fitting

EPOCHS = 6
SPAN = replace(trainable.SPAN, epochs=EPOCHS)
pytestmark = pytest.mark.filterwarnings("ignore:.*(no positive evidence|leaves out|hardly any class map).*")
KINDS = ["classifier", "atm", "rpnet", "fpr", *stepped.HEADS]


def training(kind, root, device, dtype):
    """Two functions: one that trains into a folder, and one that reads its file on the CPU."""
    if kind in stepped.HEADS:
        network = replace(labelled.NETWORK, head=kind, width=8, loss_scales=(1, 0.5), loss="balanced", refinement=0.08)
        settings = DeepLabSettings(network, replace(labelled.SPAN, epochs=EPOCHS, batch=2), accumulate=2)

        def train(out):
            model = trainable.net().to(device)
            return labelled.trained(root, out, settings, model=model, saliency="contrast", dtype=dtype)

        return train, lambda file: load_deeplab(file, trainable.net())
    start = trainable.net().to(device)
    method = stepped.METHODS[kind]
    if kind == "fpr":
        start = trainable.trained(root / "start", model=start, dtype=dtype).network

    def train(out):
        return trainable.trained(root / out, model=start, method=method, span=SPAN, dtype=dtype)

    return train, lambda file: load_classifier(file, trainable.net())


def logged(folder: Path, run="*"):
    """The losses in the log of a training, or of its n-th run, by step."""
    rows = {}
    for file in sorted((folder / "checkpoints" / "losses").glob(f"version_{run}/metrics.csv")):
        with file.open() as opened:
            rows |= {int(row["step"]): float(row["loss"]) for row in csv.DictReader(opened) if row.get("loss")}
    return rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_goes_on_where_it_was(kind, dtype, trained_on, tmp_path, monkeypatch):
    place = "camplug.wsss.train.task.fit"
    train, read = training(kind, tmp_path, trained_on, dtype)
    noted = Noted()
    with monkeypatch.context() as patched:
        patched.setattr(place, partial(fitting, callbacks=(noted,)))
        whole = train("whole")
    losses = torch.stack(noted.losses).tolist()
    assert np.isfinite(losses).all()
    per_epoch = len(losses) // EPOCHS
    assert np.mean(losses[-per_epoch:]) < np.mean(losses[:per_epoch])
    assert noted.precision == ("32-true" if dtype == "float32" else "bf16-mixed")
    assert all(np.isfinite(value) for value in logged(tmp_path / "whole").values())
    assert {p.device.type for p in whole.network.parameters()} == {trained_on.type}
    assert all(bool(p.isfinite().all()) for p in whole.network.state_dict().values())

    with monkeypatch.context() as patched:
        patched.setattr(place, partial(fitting, callbacks=(Killed(),)))
        with pytest.raises(GeneratorExit):
            train("stopped")
    resumed = train("stopped")
    assert resumed.network.training is False
    if trained_on.type == "cpu":
        assert trainable.same(resumed.network, whole.network)
        assert resumed.losses == whole.losses
    else:  # sums of a GPU come in any order
        assert resumed.losses["loss"] == pytest.approx(whole.losses["loss"], rel=0.1)
    steps = logged(tmp_path / "whole")
    assert logged(tmp_path / "stopped").keys() == steps.keys()
    assert min(logged(tmp_path / "stopped", run=1)) >= 4  # of 2 in an epoch: it did not begin again

    back = read(whole.file)
    assert {p.device.type for p in back.parameters()} == {"cpu"}
    photo = trainable.scenes().photo(0)
    if kind in stepped.HEADS:
        one, other = (Segmenter(n, (1, 1.5), flip=True).scores(np.asarray(photo)) for n in (back, whole.network))
    else:
        one, other = (camplug.CAM(n).explain(photo, [0, 2]).maps.numpy() for n in (back, whole.network))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_training_of_another_dtype_is_not_taken_over(tmp_path):
    trainable.trained(tmp_path, dtype="float32")
    trainable.trained(tmp_path, dtype="auto")  # the same on a CPU
    with pytest.raises(InputError, match="dtype"):
        trainable.trained(tmp_path, dtype="bfloat16")
