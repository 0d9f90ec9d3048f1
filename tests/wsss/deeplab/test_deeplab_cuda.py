"""DeepLab on a GPU, in half precision. Skipped where there is none."""

from __future__ import annotations

from dataclasses import replace

import labelled
import numpy as np
import pytest
import torch
import trainable

from camplug.wsss.deeplab import DeepLabTraining, Segmenter, load_deeplab

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("head", ["large-fov", "aspp", "v3+"])
def test_training_and_predictions(tmp_path, head):
    network = replace(labelled.NETWORK, head=head, width=8, loss_scales=(1, 0.5), loss="balanced", refinement=0.08)
    settings = DeepLabTraining(network, labelled.SPAN, accumulate=2)
    done = labelled.trained(tmp_path, settings=settings, model=trainable.net().cuda(), saliency="contrast")
    assert next(done.network.parameters()).is_cuda
    assert 0 < done.losses["loss"] < 10
    photo = np.asarray(labelled.scenes().photo(0))
    here = Segmenter(load_deeplab(done.file, trainable.net()), (1, 1.5), flip=True).scores(photo)
    there = Segmenter(done.network, (1, 1.5), flip=True).scores(photo)
    assert np.allclose(here, there, atol=1e-2)
