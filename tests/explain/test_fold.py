"""The fused kernel of layer maps against the formulas, interpreted on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import importlib
import itertools
import sys
import warnings
from pathlib import Path

import pytest
import torch
from traffic import Traffic, counted_kernels

import camplug
from camplug.explain import fold as fold_module
from camplug.explain.fold import KINDS, can_fuse, fold, use_formulas
from camplug.explain.fully import fully_cam_layer
from camplug.explain.gradcam import grad_cam
from camplug.explain.hirescam import hires_cam
from camplug.explain.layercam import layer_cam
from camplug.explain.xgradcam import xgrad_cam

FORMULAS = {
    "fully": fully_cam_layer,
    "gradcam": grad_cam,
    "xgradcam": xgrad_cam,
    "positive": lambda a, g: fully_cam_layer(a, g, channel_norm=False),
    "layercam": layer_cam,
    "hirescam": hires_cam,
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.fixture(scope="module")
def kernels():
    """The module of the kernels, interpreted: Triton reads the variable once, when it is imported."""
    pytest.importorskip("triton", reason="Triton is not installed")
    name = "camplug.explain.fold_kernels"
    with pytest.MonkeyPatch.context() as patch:
        for loaded in [m for m in sys.modules if m.split(".")[0] == "triton" and not m.startswith("triton._C")]:
            patch.delitem(sys.modules, loaded)
        patch.delitem(sys.modules, name, raising=False)
        patch.setenv("TRITON_INTERPRET", "1")
        module = importlib.import_module(name)
        patch.setattr(camplug.explain, "fold_kernels", module, raising=False)
        yield module
        for loaded in [m for m in sys.modules if m.split(".")[0] == "triton" and not m.startswith("triton._C")]:
            del sys.modules[loaded]
        del sys.modules[name]


def tensors(shape, dtype=torch.float32, layout="contiguous"):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=LAYOUTS[layout]) for _ in "ag"]


def assert_agrees(got, kind, a, g):
    """Against the formula in float64 of the same tensors: what is left is float32's sum over channels and positions."""
    want = FORMULAS[kind](a.double(), g.double())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=2e-5, atol=2e-5 * float(want.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "layout, dtype",
    [("contiguous", torch.float32), ("contiguous", torch.bfloat16), ("channels_last", torch.float16)],
    ids=str,
)
def test_kernel_equals_the_formula(kernels, kind, layout, dtype):
    a, g = tensors((2, 19, 5, 7), dtype, layout)
    assert_agrees(kernels.fold_layer(a, g, KINDS.index(kind)), kind, a, g)


@pytest.mark.parametrize("kind", ["fully", "xgradcam", "layercam"])
@pytest.mark.parametrize(
    "shape, layout",
    [
        ((1, 1, 1, 1), "contiguous"),
        ((1, 17, 1, 1), "channels_last"),
        ((1, 1, 3, 5), "channels_last"),
        ((1, 3, 5, 7), "contiguous"),
        ((1, 3, 5, 7), "channels_last"),
    ],
    ids=str,
)
def test_kernel_takes_one_pixel_one_channel_and_several_tiles(kernels, kind, shape, layout, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", 32 if layout == "contiguous" else 256)  # the last shape is larger
    monkeypatch.setattr(kernels, "PROGRAMS", 2)
    a, g = tensors(shape, layout=layout)
    assert_agrees(kernels.fold_layer(a, g, KINDS.index(kind)), kind, a, g)


def test_kernel_weighs_channels_as_the_formula_does(kernels):
    a = torch.tensor([[[[2.0, 4.0]], [[-1.0, 1.0]], [[1e-30, 0.0]]]])
    g = torch.tensor([[[[1.0, 2.0]], [[3.0, -3.0]], [[1e-20, 0.0]]]])
    # products 2 and 8 over their maximum 8; no positive product; one below the smallest normal number
    assert kernels.fold_layer(a, g, KINDS.index("fully")).tolist() == [[[0.25, 1.0]]]
    # sum(a g) / sum(a) = 10/6; the second channel's activations sum to 0
    torch.testing.assert_close(
        kernels.fold_layer(a, g, KINDS.index("xgradcam")), torch.tensor([[[20 / 6, 40 / 6]]]), rtol=1e-6, atol=0
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("kind, value", [*((kind, float("nan")) for kind in KINDS), ("fully", float("inf"))])
def test_kernel_keeps_what_is_not_finite(kernels, kind, value):
    a, g = tensors((1, 2, 3, 3))
    a[0, 1, 1, 1], g[0, 1, 1, 1] = value, value
    assert not bool(kernels.fold_layer(a, g, KINDS.index(kind)).isfinite().all())


@pytest.fixture
def count_kernel(monkeypatch):
    """The count of the published table."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    path = list(sys.path)
    yield importlib.import_module("fold_traffic").count_kernel
    sys.path[:] = path
    for name in ("fold_traffic", "markdown_tables"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("layout, tile", [("contiguous", 2048), ("contiguous", 64), ("channels_last", 512)])
def test_published_traffic_is_what_the_kernel_loads_and_stores(kernels, count_kernel, layout, tile, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", tile)
    monkeypatch.setattr(kernels, "LEAST_SHARE", 2)
    a, g = tensors((1, 6, 7, 9), torch.float16, layout)
    with counted_kernels() as counted:
        kernels.fold_layer(a, g, KINDS.index("fully"))
    plan = kernels.plan_fold(1, 6, 63, layout != "contiguous", KINDS.index("fully"))
    added = 63 * 4 * (plan.shares + 1) if plan.shares > 1 else 0  # the sums are added by PyTorch
    assert counted["loaded"] + counted["stored"] + added == count_kernel("fully", a.shape, 2, layout != "contiguous")


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_reads_once(kernels, kind, monkeypatch):
    """Activation and gradient once; twice (Grad-CAM's gradient once) where a channel is larger than a tile."""
    a, g = tensors((1, 6, 4, 4), torch.float16)
    size = a.numel() * a.element_size()
    with counted_kernels() as counted:
        kernels.fold_layer(a, g, KINDS.index(kind))
    assert counted["loaded"] == 2 * size
    monkeypatch.setattr(kernels, "TILE", 8)
    with counted_kernels() as counted:
        kernels.fold_layer(a, g, KINDS.index(kind))
    weights = 6 * 4 * 8  # in each of the 8 tiles of positions
    twice = {"fully": 4 * size + weights, "gradcam": 2 * size + weights, "xgradcam": 3 * size + weights}
    assert counted["loaded"] == twice.get(kind, 2 * size)


def test_half_precision_is_averaged_without_a_wide_copy():
    a, g = tensors((1, 64, 16, 16), torch.bfloat16)
    with Traffic() as traffic:
        grad_cam(a, g)
    size = a.numel() * 2
    # the gradient, and the activation with its copy in float32, written and read
    assert traffic.bytes < 1.1 * (size + size + 2 * 2 * size)


# ---- dispatch


class Pretender(torch.Tensor):
    """A tensor on the CPU that calls itself one on a GPU."""

    is_cuda = True


def test_maps_of_gpu_tensors_come_from_the_kernel(kernels, monkeypatch):
    monkeypatch.setattr(fold_module, "_has_triton", lambda device: True)
    a, g = (t.as_subclass(Pretender) for t in tensors((1, 3, 4, 4)))
    seen = []
    monkeypatch.setattr(kernels, "fold_layer", lambda a, g, kind: seen.append(KINDS[kind]))
    methods = {"fully": camplug.FullyCAM, "gradcam": camplug.GradCAM, "xgradcam": camplug.XGradCAM}
    methods |= {"layercam": camplug.LayerCAM, "hirescam": camplug.HiResCAM}
    model = torch.nn.Conv2d(3, 2, 1)
    for method in methods.values():
        method(model, [""]).layer_map(a, g)
    camplug.FullyCAM(model, [""], channel_norm=False).layer_map(a, g)
    assert seen == [*methods, "positive"]


def test_formulas_compute_what_the_kernel_does_not(monkeypatch):
    monkeypatch.setattr(fold_module, "_has_triton", lambda device: True)
    a, g = (t.as_subclass(Pretender) for t in tensors((1, 3, 4, 4)))
    assert can_fuse(a, g)
    assert not can_fuse(a.double(), g.double())
    assert not can_fuse(a.half(), g)
    assert not can_fuse(a[:0], g[:0])
    assert not can_fuse(a[0], g[0])
    assert not can_fuse(*tensors((1, 3, 4, 4)))
    with use_formulas():
        assert not can_fuse(a, g)
    assert can_fuse(a, g)
    empty = torch.empty(0, 3, 4, 4)
    assert all(fold(kind, FORMULAS[kind], empty, empty).shape == (0, 4, 4) for kind in KINDS)


def test_a_kernel_that_does_not_run_is_replaced_and_said_once(kernels, monkeypatch):
    monkeypatch.setattr(fold_module, "_has_triton", lambda device: True)
    monkeypatch.setattr(fold_module, "_failure", None)

    def fail(*args):
        raise RuntimeError("Failed to find C compiler.\nand a long trace")

    monkeypatch.setattr(kernels, "fold_layer", fail)
    a, g = tensors((1, 3, 4, 4))
    pretenders = [t.as_subclass(Pretender) for t in (a, g)]
    with pytest.warns(UserWarning, match=r"\(RuntimeError: Failed to find C compiler\.\); maps are computed step"):
        got = fold("fully", fully_cam_layer, *pretenders)
    assert torch.equal(got.as_subclass(torch.Tensor), fully_cam_layer(a, g))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fold("fully", fully_cam_layer, *pretenders)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_device(kind, device):
    shapes = [(2, 19, 5, 7), (1, 3, 130, 131), (8, 64, 40, 40)] if device.type == "cuda" else [(1, 3, 5, 4)]
    for dtype, layout, shape in itertools.product((torch.float32, torch.float16, torch.bfloat16), LAYOUTS, shapes):
        a, g = (t.to(device) for t in tensors(shape, dtype, layout))
        assert_agrees(fold(kind, FORMULAS[kind], a, g).cpu(), kind, a.cpu(), g.cpu())
