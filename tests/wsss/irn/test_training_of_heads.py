"""A short training of IRNet and of AffinityNet on a device, from label pictures to files: they learn, and go on."""

from __future__ import annotations

import csv
from functools import partial

import labelled
import numpy as np
import pytest
import torch
import trainable
from heads import tiny
from noting import Killed, Noted

from camplug.wsss.affinitynet import (
    AffinityNet,
    AffinityNetHeadSettings,
    AffinityNetSettings,
    load_affinitynet,
    train_affinitynet,
)
from camplug.wsss.irn import IRNHeadSettings, IRNSettings, load_irn, train_irn
from camplug.wsss.pseudo import AffinityNetWalk, IRNWalk
from camplug.wsss.train import ScheduleSettings, TrainSettings
from camplug.wsss.train import fit as fitting

EPOCHS = 6
SPAN = TrainSettings(epochs=EPOCHS, batch=2, crop=48, scales=(0.8, 1.2))
IRNET = IRNSettings(
    network=IRNHeadSettings(radius=4, width=16, schedule=ScheduleSettings("adamw", 0.02)), training=SPAN
)
AFFINITY = AffinityNetSettings(
    network=AffinityNetHeadSettings(radius=3, width=56, schedule=ScheduleSettings("adamw", 0.01)), training=SPAN
)
TRAIN = {"irn": partial(train_irn, settings=IRNET), "affinitynet": partial(train_affinitynet, settings=AFFINITY)}
LOAD = {"irn": load_irn, "affinitynet": load_affinitynet}


def logged(folder):
    """The steps in the logs of a training's runs, one after the other."""
    files = sorted((folder / "checkpoints" / "losses").glob("version_*/metrics.csv"))
    return [[int(row["step"]) for row in csv.DictReader(file.open()) if row.get("affinity")] for file in files]


@pytest.mark.parametrize("dtype", ["float32", "auto"])
@pytest.mark.parametrize("kind", TRAIN)
def test_it_learns_and_goes_on_where_it_was(kind, dtype, trained_on, tmp_path, monkeypatch):
    if dtype == "auto" and trained_on.type != "cuda":
        pytest.skip("half precision is of CUDA alone")
    labels, data, noted = labelled.labels(tmp_path / "labels"), labelled.scenes(), Noted()

    def train(out, *callbacks):
        with monkeypatch.context() as patched:
            patched.setattr("camplug.wsss.train.task.fit", partial(fitting, callbacks=callbacks))
            return TRAIN[kind](tiny().to(trained_on), data, labels, tmp_path / out, dtype=dtype)

    whole = train("whole", noted)
    losses = torch.stack(noted.losses).tolist()
    assert np.isfinite(losses).all()
    per_epoch = len(losses) // EPOCHS
    assert len(losses) == EPOCHS * (len(data) // SPAN.batch)
    assert np.mean(losses[-per_epoch:]) < 0.98 * np.mean(losses[:per_epoch])
    assert noted.precision.startswith(("bf16", "16") if dtype == "auto" else "32")
    assert {p.device.type for p in whole.network.parameters()} == {trained_on.type}
    assert all(bool(p.isfinite().all()) for p in whole.network.state_dict().values())

    with pytest.raises(GeneratorExit):
        train("stopped", Killed())
    resumed = train("stopped")
    assert [len(run) for run in logged(tmp_path / "stopped")] == [
        2,
        EPOCHS - 2,
    ]  # a line for each epoch; it did not begin again
    if trained_on.type == "cpu":
        assert trainable.same(resumed.network, whole.network)
        assert resumed.losses == whole.losses
    else:  # sums of a GPU come in any order
        assert resumed.losses["affinity"] == pytest.approx(whole.losses["affinity"], rel=0.1)

    back, photo = LOAD[kind](whole.file, tiny()), np.asarray(data.photo(0))
    assert {p.device.type for p in back.parameters()} == {"cpu"}
    maps = np.random.default_rng(0).random((2, 48, 48)).astype(np.float32)
    walks = [AffinityNetWalk(n) if isinstance(n, AffinityNet) else IRNWalk(n) for n in (back, whole.network)]
    np.testing.assert_allclose(*(walk.maps(photo, maps) for walk in walks), atol=5e-3)
