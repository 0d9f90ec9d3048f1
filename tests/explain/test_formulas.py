"""Golden numbers, worked by hand on a 2x2 map of two channels."""

from __future__ import annotations

import pytest
import torch

from camplug.explain.cam import cam
from camplug.explain.eigencam import eigen_cam
from camplug.explain.fully import fully_cam_layer
from camplug.explain.fuse import Fusion, normalize_map, resize_maps
from camplug.explain.gradcam import grad_cam
from camplug.explain.gradcam_pp import grad_cam_pp
from camplug.explain.hirescam import hires_cam
from camplug.explain.layercam import layer_cam
from camplug.explain.xgradcam import xgrad_cam

A = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[2.0, 1.0], [3.0, -1.0]]]])
G = torch.tensor([[[[1.0, 0.0], [2.0, 1.0]], [[-1.0, 2.0], [0.0, 4.0]]]])

# Grad-CAM++: alpha = 1 / (2 + g sum A); sums 4 and 5; w = 1/6 + 2/10 + 1/6 and 2/12 + 4/22
W1, W2 = 8 / 15, 23 / 66

GOLDEN = {
    # weights 4/4 and 5/4
    grad_cam: [[3.5, 3.25], [3.75, 0.0]],
    grad_cam_pp: [[W1 + 2 * W2, 2 * W1 + W2], [3 * W2, W1 - W2]],
    # weights 2/4 and -4/5
    xgrad_cam: [[0.0, 0.2], [0.0, 1.3]],
    layer_cam: [[1.0, 2.0], [0.0, 0.0]],
    hires_cam: [[0.0, 2.0], [0.0, 0.0]],
    # m = [[1,0],[0,1]] / 1 and [[0,2],[0,0]] / 2
    fully_cam_layer: [[1.0, 1.0], [0.0, 1.0]],
}


@pytest.mark.parametrize("formula", GOLDEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_golden(formula, layout, device):
    a, g = (t.to(device, memory_format=layout) for t in (A, G))
    kept = a.clone(), g.clone()
    torch.testing.assert_close(formula(a, g)[0].cpu(), torch.tensor(GOLDEN[formula]))
    assert torch.equal(a, kept[0]), "the activation was changed"
    assert torch.equal(g, kept[1]), "the gradient was changed"


@pytest.mark.parametrize("formula", GOLDEN, ids=lambda f: f.__name__)
def test_images_of_a_batch_do_not_touch_each_other(formula, device):
    a, g = (torch.randn(2, 5, 3, 4).to(device) for _ in range(2))
    together = formula(a, g)
    for i in range(2):
        torch.testing.assert_close(formula(a[i : i + 1], g[i : i + 1])[0], together[i])


@pytest.mark.parametrize("formula", GOLDEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_formats_are_computed_in_float32(formula, dtype, device):
    got = formula(A.to(device, dtype), G.to(device, dtype))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0].cpu(), torch.tensor(GOLDEN[formula]))  # these numbers are exact in both formats


def test_fully_cam_without_channel_norm(device):
    assert fully_cam_layer(A.to(device), G.to(device), channel_norm=False)[0].tolist() == [[1.0, 2.0], [0.0, 1.0]]


def test_fully_cam_dead_channels_add_nothing_and_live_ones_reach_one(device):
    a = torch.cat([A, -torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 1e-30)], 1)
    g = torch.cat([G, torch.ones(1, 2, 2, 2)], 1)
    # the third channel is dead; the fourth is tiny and reaches 1 everywhere all the same
    got = fully_cam_layer(a.to(device), g.to(device))[0]
    torch.testing.assert_close(got.cpu(), torch.tensor([[2.0, 2.0], [1.0, 2.0]]))


def test_fully_cam_does_not_depend_on_the_scale_of_the_score(device):
    a, g = A.to(device), G.to(device)
    torch.testing.assert_close(fully_cam_layer(a, 1e-12 * g), fully_cam_layer(a, g))


def test_grad_cam_pp_is_not_the_undivided_sum():
    undivided = torch.einsum("nkhw,nk->nhw", A, (G**2 * G.relu()).sum((2, 3))).relu()
    assert (normalize_map(undivided) - normalize_map(grad_cam_pp(A, G))).abs().max() > 0.05


def test_cam_golden(device):
    assert cam(A.to(device), torch.tensor([[1.0, -0.5]]).to(device))[0].tolist() == [[0.0, 1.5], [0.0, 1.5]]


def test_eigen_cam_golden(device):
    a = torch.zeros(1, 2, 2, 2)
    a[0, :, 0, 1] = torch.tensor([3.0, 4.0])  # one position: the direction is (.6, .8), the projection 5
    torch.testing.assert_close(eigen_cam(a.to(device))[0].cpu(), torch.tensor([[0.0, 5.0], [0.0, 0.0]]))


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (2, 40, 3, 4)])
def test_eigen_cam_equals_the_singular_vectors_on_both_sides(shape, device):
    a = torch.randn(shape).double() + 0.5
    for one, got in zip(a, eigen_cam(a.to(device)).cpu(), strict=True):
        o = one.flatten(1).T
        projection = o @ torch.linalg.svd(o, full_matrices=False).Vh[0]
        want = (projection * projection.sum().sign()).relu().view(shape[2:])
        torch.testing.assert_close(got, want)


def test_normalize_golden(device):
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    maps = maps.to(device)
    torch.testing.assert_close(normalize_map(maps, "max")[0].cpu(), torch.tensor([[0.2, 0.6], [0.4, 1.0]]))
    assert normalize_map(maps, "minmax")[0].tolist() == [[0.0, 0.5], [0.25, 1.0]]
    assert normalize_map(maps, "max")[1].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert torch.equal(normalize_map(maps, None), maps)
    assert normalize_map(1e-20 * maps, "max")[0].amax() == 1


def test_resized_golden(device):
    one = torch.tensor([[[0.0, 4.0]]]).to(device)
    assert resize_maps(one, (2, 4)).tolist() == [[[0.0, 1.0, 3.0, 4.0]] * 2]
    assert resize_maps(one, (1, 2)) is one
    none = resize_maps(torch.zeros(0, 3, 3).to(device, torch.float64), (5, 6))
    assert none.shape == (0, 5, 6)
    assert none.dtype == torch.float64


def test_fusion_adds_before_it_resizes(device):
    fusion = Fusion()
    fusion.add(torch.tensor([[[1.0, 2.0]]]).to(device), 4)
    fusion.add(torch.tensor([[[3.0, 0.0]]]).to(device), 2)
    fusion.add(torch.tensor([[[8.0]]]).to(device), 2)
    assert fusion.result((1, 2)).tolist() == [[[12.0, 10.0]]]
    assert len(fusion.sums) == 2


@pytest.mark.parametrize(("norm", "want"), [("max", [[0.5, 1.0]]), ("mean", [[0.25, 0.5]])])
def test_fusion_weighs_layers(norm, want, device):
    fusion = Fusion(norm)
    fusion.add(torch.tensor([[[1.0, 2.0]]]).to(device), 4)
    assert fusion.result((1, 2))[0].tolist() == want


def test_fusion_equals_resizing_every_layer(device):
    fusion = Fusion()
    maps = [torch.rand(2, h, w).double() for h, w in ((3, 5), (3, 5), (6, 9), (12, 18), (24, 30))]
    for one in maps:
        fusion.add(one.to(device, copy=True), 1)
    each = [torch.nn.functional.interpolate(m[:, None], (12, 18), mode="bilinear")[:, 0] for m in maps]
    torch.testing.assert_close(fusion.result((12, 18)).cpu(), sum(each))
