"""Explanations make the host wait for the device no more often for more classes, images or layers."""

from __future__ import annotations

import awkward
import pytest
import simulated
import torch

import camplug

MANY = [[0, 3, 4], [1], [], [2, 0]]
LIMITS = {
    **dict.fromkeys(["gradcam", "gradcam++", "xgradcam", "layercam", "hirescam", "eigencam", "fully"], 2),
    "cam": 3,  # it checks that the head pools the map
    "MultiView(FullyCAM, (1.0, 1.5))": 4,  # 2 views
    "Dense(FullyCAM, 1)": 2,
    "Compete(FullyCAM, judge=GradCAM)": 4,  # 2 explainers
    "IterativeErasing(FullyCAM, max_iter=3)": 9,  # 3 passes
    "SplitUnite(FullyCAM, smallest=4, zoom=1.0)": 15,  # the whole image, its centres, and one batch per size of part
}


def waits(line, device, n, classes):
    torch.manual_seed(0)
    model = awkward.FeatureModule().eval().to(device)
    x = torch.randn(n, 3, 16, 16).to(device)
    explainer = camplug.create(line, model)
    explainer.maps(x, classes)  # what is found out about a model once
    with simulated.count_waits() as counter:
        explainer.maps(x, classes)
    return counter


@pytest.mark.parametrize("line", LIMITS)
def test_waits_are_few(line, device):
    if device.type != simulated.NAME:
        pytest.skip("waits are counted on the simulated device: pytest --device simulated")
    alone, many = waits(line, device, 1, [[3]]), waits(line, device, 4, MANY)
    print(line, dict(alone), dict(many))
    assert many.total() <= LIMITS[line]
    if line in camplug.list_methods():
        assert many.total() <= alone.total()
