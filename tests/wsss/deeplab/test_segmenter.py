"""Predictions: positions of the grid, views and their fusion, the CRF, a whole data set."""

from __future__ import annotations

import labelled
import numpy as np
import pytest
import simulated
import torch
import trainable
from moved import everywhere
from PIL import Image
from torch import nn

import camplug
from camplug.errors import InputError
from camplug.wsss.crf import PRESETS, DenseCRF, make_unary_from_scores, pixel_adaptive_refinement
from camplug.wsss.deeplab import DeepLabNetworkSettings, Segmenter, build_deeplab, make_predictions
from camplug.wsss.deeplab.segmenter import sample_grid
from camplug.wsss.pseudo import LabelFolder

_on_the_device = everywhere("sample_grid")


def network(stride=None, seed=0, classes="abc"):
    torch.manual_seed(seed)
    found = build_deeplab(trainable.net(seed), classes, DeepLabNetworkSettings(output_stride=stride, dilations=(1, 2)))
    for branch in found.head.branches:
        nn.init.normal_(branch.weight, std=0.3)
        nn.init.normal_(branch.bias)
    return found


def photo(height=37, width=50, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow_read(grid, shown, covered, size):
    """Bilinear values at the pixels' centres, one by one."""
    h, w = grid.shape[1:]
    found = np.zeros((len(grid), *size))
    for y in range(size[0]):
        for x in range(size[1]):
            gy = (y + 0.5) * shown[0] / size[0] * h / covered[0] - 0.5
            gx = (x + 0.5) * shown[1] / size[1] * w / covered[1] - 0.5
            gy, gx = min(max(gy, 0), h - 1), min(max(gx, 0), w - 1)
            a, b = min(int(gy), max(h - 2, 0)), min(int(gx), max(w - 2, 0))
            c, d = min(a + 1, h - 1), min(b + 1, w - 1)
            v, u = gy - a, gx - b
            top = grid[:, a, b] * (1 - u) + grid[:, a, d] * u
            found[:, y, x] = top * (1 - v) + (grid[:, c, b] * (1 - u) + grid[:, c, d] * u) * v
    return found


@pytest.mark.parametrize("size", [(5, 9), (1, 1), (30, 7)])
def test_the_grid_is_read_off_at_the_pixels_centres(size):
    grid = torch.randn(1, 2, 4, 3, dtype=torch.float64)
    found = sample_grid(grid, (27, 20), (32, 24), size)
    assert np.allclose(found[0].numpy(), slow_read(grid[0].numpy(), (27, 20), (32, 24), size))


def test_a_whole_view_is_read_off_as_torch_interpolates():
    grid = torch.randn(1, 2, 4, 3)
    wanted = nn.functional.interpolate(grid, (32, 24), mode="bilinear", align_corners=False)
    assert torch.allclose(sample_grid(grid, (32, 24), (32, 24), (32, 24)), wanted, atol=1e-6)


def by_hand(net, image, scale, mirrored=False, long_side=None):
    """The logits of one view, [K+1,H,W]."""
    height, width = image.shape[:2]
    if mirrored:
        image = image[:, ::-1]
    factor = scale if long_side is None else scale * long_side / max(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], Image.Resampling.BICUBIC))
    if factor == 1:
        resized = image
    x = (resized / 255 - np.array(net.preprocess.mean)) / np.array(net.preprocess.std)
    down, right = -size[0] % net.stride, -size[1] % net.stride
    x = np.pad(x, ((0, down), (0, right), (0, 0)), mode="edge")
    with torch.no_grad():
        logits = net(torch.from_numpy(x.transpose(2, 0, 1)).float()[None])[0].numpy()
    full = slow_read(logits, size, x.shape[:2], (height, width))
    return full[..., ::-1] if mirrored else full


def softmax(logits):
    e = np.exp(logits - logits.max(0))
    return e / e.sum(0)


@pytest.mark.parametrize("stride", [None, 4])
def test_one_view(stride, device):
    net, image = network(stride), photo()
    wanted = softmax(by_hand(net, image, 1))
    net.to(device)
    found = Segmenter(net).scores(image)
    assert (found.shape, found.dtype) == ((4, 37, 50), np.float32)
    assert np.allclose(found, wanted, atol=1e-5)
    labels = Segmenter(net)(image)
    assert (labels.dtype, labels.shape) == (np.uint8, (37, 50))
    assert np.array_equal(labels, found.argmax(0))
    assert len(np.unique(labels)) > 1


def test_views_are_fused_by_mean_or_maximum(device):
    net, image = network(), photo(30, 41)
    views = [by_hand(net, image, s, m) for s in (0.5, 1, 1.5) for m in (False, True)]
    net.to(device)
    mean = Segmenter(net, (0.5, 1, 1.5), flip=True).scores(image)
    assert np.allclose(mean, np.mean([softmax(v) for v in views], 0), atol=1e-5)
    largest = Segmenter(net, (0.5, 1, 1.5), flip=True, fuse="max").scores(image)
    assert np.allclose(largest, softmax(np.max(views, 0)), atol=1e-5)
    assert not np.allclose(mean, largest, atol=1e-2)


def test_a_mirrored_photograph_has_mirrored_labels():
    net, image = network(), photo(33, 43)
    segmenter = Segmenter(net, (0.75, 1), flip=True)
    assert np.allclose(segmenter.scores(image[:, ::-1].copy())[..., ::-1], segmenter.scores(image), atol=1e-5)


def test_a_long_side():
    net, image = network(), photo(40, 60)
    found = Segmenter(net, (1, 1.5), long_side=32).scores(image)
    wanted = np.mean([softmax(by_hand(net, image, s, long_side=32)) for s in (1, 1.5)], 0)
    assert np.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (9, 2), (48, 48)])
def test_photographs_of_any_size(size, device):
    scores = Segmenter(network().to(device), (0.5, 1), flip=True).scores(photo(*size))
    assert scores.shape == (4, *size)
    assert np.allclose(scores.sum(0), 1, atol=1e-5)


def test_the_crf_sees_the_photograph_as_it_is_and_all_likely_classes(device):
    net, image = network().to(device), photo(24, 30)
    image[:, 15:] = 250  # uint8 of a normalised photograph would have wrapped around
    probabilities = Segmenter(net).scores(image)
    likely = probabilities.max((1, 2)) >= 0.01
    wanted = np.zeros_like(probabilities)
    wanted[likely] = DenseCRF(image, "deeplab").refine(make_unary_from_scores(probabilities[likely]))
    assert np.array_equal(Segmenter(net, crf="deeplab").scores(image), wanted)
    assert np.array_equal(Segmenter(net, crf=PRESETS["deeplab"])(image), wanted.argmax(0))
    assert np.abs(wanted - probabilities).max() > 0.1


def test_unlikely_classes_are_left_out_of_the_crf_and_change_nothing():
    net, image = network(), photo(24, 30)
    before = Segmenter(net, crf="irn").scores(image)
    net.head.branches[0].bias.data[2] -= 100
    without = Segmenter(net, crf="irn").scores(image)
    assert without[2].max() == 0
    whole = DenseCRF(image, "irn").refine(make_unary_from_scores(Segmenter(net).scores(image)))
    assert np.abs(whole - without).max() < 0.01
    assert not np.array_equal(before, without)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"scales": ()}, r"scales=\(\); give factors above 0, up to 8"),
        ({"scales": (1, -1)}, r"scales=\(1, -1\); give factors"),
        ({"fuse": "sum"}, "fuse='sum'; allowed are mean, max."),
        ({"long_side": 0}, "long_side=0; give at least 1."),
        ({"crf": "fast"}, "there is no CRF 'fast'"),
    ],
)
def test_options_out_of_their_range(options, says):
    with pytest.raises(InputError, match=says):
        Segmenter(network(), **options)


def test_given_classes_share_all_of_it(device):
    """The conditional probabilities, given that no other class is there; the CRF starts from them."""
    net, image = network(), photo()
    net.to(device)
    whole = Segmenter(net, (0.75, 1), flip=True).scores(image)
    found = Segmenter(net, (0.75, 1), flip=True).scores(image, (2,))
    assert np.allclose(found[3], whole[3] / (whole[0] + whole[3]), atol=1e-6)
    assert np.allclose(found[0] + found[3], 1, atol=1e-6)
    assert not found[1:3].any()
    assert np.array_equal(Segmenter(net, (0.75, 1), flip=True)(image, (2,)), 3 * (whole[3] > whole[0]))
    assert not Segmenter(net)(image, ()).any()
    refined = Segmenter(net, crf="irn").scores(image, (2,))
    conditional = make_unary_from_scores(Segmenter(net).scores(image, (2,))[[0, 3]])
    assert np.allclose(refined[[0, 3]], DenseCRF(image, PRESETS["irn"]).refine(conditional), atol=1e-5)
    refined = Segmenter(net, crf="par").scores(image, (2,))
    averaged = pixel_adaptive_refinement(image, Segmenter(net).scores(image, (2,))[[0, 3]])
    assert np.allclose(refined[[0, 3]], averaged, atol=1e-5)
    with pytest.raises(InputError, match=r"classes=\[1, 3\]; the network has 3, counted from 0."):
        Segmenter(net).scores(image, (1, 3))


def test_labels_alone_leave_the_device(device):
    """One wait per photograph, for its labels, however many views and classes there are."""
    if device.type != simulated.NAME:
        pytest.skip("waits are counted on the simulated device: pytest --device simulated")
    segmenter, image = Segmenter(network().to(device), (0.5, 1, 1.5), flip=True), photo()
    segmenter(image, (0, 2))  # constants are made once
    with simulated.count_waits() as waits:
        segmenter(image, (0, 2))
    assert waits.total() == 1


def test_what_is_no_photograph():
    segmenter = Segmenter(network())
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match=r"the photograph is .*; give RGB uint8 \[H,W,3\]."):
            segmenter.scores(wrong)


# ---- a whole data set, and the commands


def test_predictions_go_on_and_pass_broken_images(tmp_path):
    data = labelled.scenes(4)
    segmenter = Segmenter(network(classes=data.classes))
    folder = LabelFolder(tmp_path / "predictions")
    folder.prepare({"classes": list(data.classes)})
    photos = data.photo

    def broken(i):
        if i == 2:
            raise InputError("it is damaged.")
        return photos(i)

    data.photo = broken
    seen = []
    report = make_predictions(segmenter, data, folder, shard=(0, 2), step=lambda r: seen.append(r.made))
    assert (report.made, report.found, report.broken) == (1, 0, [("scene0_000002", "it is damaged.")])
    assert seen == [1, 1]
    data.photo = photos
    report = make_predictions(segmenter, data, folder)
    assert (report.made, report.found) == (3, 1)
    for i, name in enumerate(data.ids):
        with Image.open(folder.get_path(name)) as picture:
            assert picture.mode == "P"
            assert np.array_equal(np.asarray(picture), segmenter(np.asarray(photos(i))))


def test_predictions_for_given_labels(tmp_path, device):
    data = labelled.scenes(3)
    segmenter = Segmenter(network(classes=data.classes).to(device))
    folder = LabelFolder(tmp_path)
    folder.prepare({})
    assert make_predictions(segmenter, data, folder, labelled=True).made == 3
    for i, name in enumerate(data.ids):
        found = np.asarray(Image.open(folder.get_path(name)))
        assert np.array_equal(found, segmenter(np.asarray(data.photo(i)), data.labels(i)))
        assert set(np.unique(found)) <= {0, *(c + 1 for c in data.labels(i))}


def test_preprocessing_is_the_network_s_own():
    net, image = network(), photo()
    before = Segmenter(net).scores(image)
    net.preprocess = camplug.Preprocess(mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25))
    assert np.allclose(Segmenter(net).scores(image), softmax(by_hand(net, image, 1)), atol=1e-5)
    assert not np.allclose(Segmenter(net).scores(image), before, atol=1e-2)


def test_photographs_may_be_files_and_pictures(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    segmenter = Segmenter(network())
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(photo)):
        assert np.array_equal(segmenter(given), segmenter(photo))
        assert np.array_equal(segmenter.scores(given), segmenter.scores(photo))
    with pytest.raises(InputError, match="there is no file"):
        segmenter(tmp_path / "b.png")
