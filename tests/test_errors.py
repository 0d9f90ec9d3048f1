"""Out of memory is told as that, and not as a size that a model does not take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import camplug
from camplug.errors import ModelError, is_out_of_memory, make_size_error
from camplug.wsss.train import Backbone


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_memory(error):
    assert is_out_of_memory(error)
    says = str(make_size_error(error, (4000, 6016)))
    assert says.startswith("out of memory on images of 4000x6016 pixels (")
    assert says.endswith("; give a smaller long side or crop, or a smaller batch.")


def test_sizes():
    error = AssertionError("Input height (40) doesn't match model (48).\nmore")
    assert not is_out_of_memory(error)
    assert str(make_size_error(error, (40, 48), "one of two")) == (
        "the model does not take images of 40x48 pixels (Input height (40) doesn't match model (48).), which is one of "
        "two."
    )
    assert "(AssertionError)" in str(make_size_error(AssertionError(), (1, 1)))


class Full(nn.Module):
    """Has memory for images of up to 128 pixels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        if x.shape[-1] > 128:
            raise torch.OutOfMemoryError("CUDA out of memory.\nMuch text")
        return self.fc(self.conv(x).relu().mean((2, 3)))


def test_who_runs_a_model_on_other_sizes_says_so():
    model = Full().eval()
    with pytest.raises(ModelError, match=r"^out of memory on images of 160x160 pixels \(CUDA out of memory\)"):
        camplug.MultiView(camplug.GradCAM(model, "conv"), scales=(1, 2)).maps(torch.rand(1, 3, 80, 80), 0)
    backbone = Backbone(model, ["conv"], camplug.Preprocess((32, 32)))
    with pytest.raises(ModelError, match=r"^out of memory on images of 160x160 pixels .* smaller long side or crop"):
        backbone(torch.rand(1, 3, 160, 160))
