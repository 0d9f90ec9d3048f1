"""The foreground probability: golden numbers and a loop over images, partners, blocks, masks and positions."""

from __future__ import annotations

import math

import pytest
import torch
from moved import everywhere

from camplug.errors import InputError
from camplug.wsss.rpnet import foreground_probability, region_similarity

_on_the_device = everywhere("foreground_probability", "region_similarity")


def slow_cosine(a, b):
    """Of two vectors."""
    dot, aa, bb = a.new_zeros(()), a.new_zeros(()), a.new_zeros(())
    for u, v in zip(a, b, strict=True):
        dot, aa, bb = dot + u * v, aa + u * u, bb + v * v
    return dot / (aa.sqrt() * bb.sqrt()) if aa > 0 and bb > 0 else a.new_zeros(())


def slow_prototype(features, positions):
    total = features.new_zeros(len(features))
    for y, x in positions:
        total = total + features[:, y, x]
    return total / (len(positions) + 5e-4)


def slow_gaussian(rows, border):
    h, w = len(rows), len(rows[0])
    steps = range(-2, 3)
    total = sum(math.exp(-(a * a + b * b) / 18) for a in steps for b in steps)
    out = [[None] * w for _ in range(h)]
    for y in range(h):
        for x in range(w):
            value, weight = 0.0, 0.0
            for a in steps:
                for b in steps:
                    if 0 <= y + a < h and 0 <= x + b < w:
                        g = math.exp(-(a * a + b * b) / 18) / total
                        value, weight = value + g * rows[y + a][x + b], weight + g
            out[y][x] = value / weight if border == "normalized" else value
    return out


def slow_probability(blocks, group, seed=None, border="normalized", smooth=True):
    """Image by image; `seed` fixes the dropping, None leaves it out."""
    n, _, h, w = blocks[0].shape
    positions = [(y, x) for y in range(h) for x in range(w)]
    generator = torch.Generator().manual_seed(seed or 0)
    regions = []
    for i in range(n):
        region = []
        for y, x in positions:
            for channel in blocks[0][i].detach().clamp_min(0):
                if float(channel[y, x] / (channel.max() + 1e-5)) >= 0.3:
                    region.append((y, x))
                    break
        regions.append(region)
    vectors = []  # of every block and image: one or two prototypes
    for features in blocks:
        draw = torch.rand(n, h, w, generator=generator)
        of_images = []
        for i, region in enumerate(regions):
            found = [slow_prototype(features[i], region)]
            if seed is not None:
                kept = [p for p in region if draw[i][p] < 0.5]
                if region and not kept:
                    kept = [min(region, key=lambda p, i=i: float(draw[i][p]))]
                found.append(slow_prototype(features[i], kept))
            of_images.append(found)
        vectors.append(of_images)
    planes = []
    for i in range(n):
        first = i // group * group
        rows = [[None] * w for _ in range(h)]
        for y, x in positions:
            best = None
            for features, of_images in zip(blocks, vectors, strict=True):
                for partner in range(first, first + group):
                    for vector in of_images[partner]:
                        s = slow_cosine(vector, features[i, :, y, x])
                        best = s if best is None or s > best else best
            rows[y][x] = best if best > 0 else best * 0
        peak = rows[0][0]
        for y, x in positions:
            peak = rows[y][x] if rows[y][x] > peak else peak
        rows = [[1.3 * v / (peak + 1e-5) for v in row] for row in rows]
        if smooth:
            rows = slow_gaussian(rows, border)
        planes.append(torch.stack([torch.stack(row) for row in rows]))
    return torch.stack(planes)[:, None]


def random_blocks(n, sizes=(3, 5), grid=(3, 4)):
    return [torch.randn(n, d, *grid, dtype=torch.float64, requires_grad=True) for d in sizes]


def compare(blocks, fast, slow):
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(slow)
    found = torch.autograd.grad((fast * weights).sum(), blocks)
    expected = torch.autograd.grad((slow * weights).sum(), blocks)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_similarity_golden():
    """(3, 4) with (2, 0): 6 / 10; with (0, -1): -4 / 5; with (6, 8): 1; with nothing: 0."""
    features = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    wanted = torch.tensor([[[2.0, 0.0], [0.0, -1.0], [6.0, 8.0], [0.0, 0.0]]])
    assert region_similarity(features, wanted).flatten().tolist() == pytest.approx([0.6, -0.8, 1, 0])


def test_similarity_equals_a_loop_in_value_and_gradient():
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    rows = [
        slow_cosine(wanted[i, p], features[i, :, y, x])
        for i in range(2)
        for p in range(3)
        for y in range(2)
        for x in range(3)
    ]
    compare((features, wanted), region_similarity(features, wanted), torch.stack(rows).view(2, 3, 2, 3))


def test_zero_vectors_have_no_gradient():
    features = torch.zeros(1, 3, 1, 2)
    features[..., 1] = 1.0
    features.requires_grad_()
    wanted = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    similar = region_similarity(features, wanted)
    similar.sum().backward()
    assert similar[0, :, 0, 0].tolist() == [0, 0]
    assert features.grad[..., 0].abs().max() == 0
    assert 0 < features.grad[..., 1].abs().max() < 1
    assert wanted.grad[0, 1].abs().max() == 0


def test_probability_golden_across_images():
    """Two images of one row, one block of two channels, no dropping and no smoothing.

    Image A is (1, 0) (0, 0.1): shares 1 and 0.99 of its channels, both confident, so p_A = (0.5, 0.05) nearly; cosines
    with (1, 0) and (0, 0.1): 0.5 / sqrt(0.2525) = 0.99504 and 0.05 / sqrt(0.2525) = 0.09950.
    Image B is (0, 2) (0, -1): the first position only, p_B = (0, 2); cosines within B 1 and -1.
    Across, A's second position meets p_B: cosine 1; its first: 0. B's first meets p_A with 0.09950, its second with
    less than 0. So A is (0.99504, 1) and B (1, -1), cut (1, 0).
    """
    block = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.1]]], [[[0.0, 0.0]], [[2.0, -1.0]]]], dtype=torch.float64)
    options = {"smooth": False, "drop": False}
    found = foreground_probability([block], **options)
    assert found.flatten().tolist() == pytest.approx([1.3 * 0.99504, 1.3, 1.3, 0], abs=3e-5)
    alone = foreground_probability([block], group=1, **options)
    assert alone.flatten().tolist() == pytest.approx([1.3, 1.3 * 0.09950 / 0.99504, 1.3, 0], abs=3e-5)


def test_the_first_block_gives_the_region_of_all_blocks():
    """The second block's prototype is (0, 1), of the position that the first one marks: cosine 1 there, 0 elsewhere."""
    first = torch.tensor([[[[0.0, 1.0]]]])
    second = torch.tensor([[[[9.0, 0.0]], [[0.0, 1.0]]]])
    assert foreground_probability([first, second], group=1, smooth=False).flatten().tolist() == pytest.approx(
        [0, 1.3], abs=2e-5
    )


@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 11])
def test_probability_equals_a_loop_in_value_and_gradient(group, seed):
    blocks = random_blocks(2 * group)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    fast = foreground_probability(blocks, group=group, generator=generator, drop=seed is not None)
    compare(blocks, fast, slow_probability(blocks, group, seed))


@pytest.mark.parametrize("border, smooth", [("zero", True), ("zero", False)])
def test_probability_with_other_options_equals_a_loop(border, smooth):
    blocks = random_blocks(2, (2,), (2, 3))
    fast = foreground_probability(blocks, border=border, smooth=smooth, generator=torch.Generator().manual_seed(3))
    compare(blocks, fast, slow_probability(blocks, 2, 3, border, smooth))


def test_regions_of_one_position_survive_dropping():
    """Each image has one confident position: dropping keeps it, and changes nothing."""
    block = torch.full((40, 2, 2, 2), 0.01)
    block[:, 0, 1, 1] = 5.0
    block[:, 1] = -1.0
    found = foreground_probability([block], generator=torch.Generator().manual_seed(0))
    assert found.isfinite().all()
    torch.testing.assert_close(found, foreground_probability([block], drop=False))


def test_groups_do_not_mix():
    blocks = random_blocks(4)
    changed = [torch.cat([b[:2], torch.randn_like(b[2:])]) for b in blocks]
    one, other = (foreground_probability(b, drop=False) for b in (blocks, changed))
    assert torch.equal(one[:2], other[:2])
    assert not torch.allclose(one[2:], other[2:])


def test_order_within_a_group_does_not_matter():
    blocks = random_blocks(3)
    order = [2, 0, 1]
    one = foreground_probability(blocks, group=3, drop=False)
    torch.testing.assert_close(foreground_probability([b[order] for b in blocks], group=3, drop=False), one[order])


@pytest.mark.parametrize("value", [0.0, -1.0, 1.0])
@pytest.mark.parametrize("grid", [(1, 1), (3, 3)])
def test_flat_features_give_finite_gradients(value, grid):
    blocks = [torch.full((2, 3, *grid), value, requires_grad=True) for _ in range(2)]
    found = foreground_probability(blocks)
    found.sum().backward()
    assert found.flatten().tolist() == pytest.approx([1.3 if value > 0 else 0.0] * found.numel(), abs=2e-5)
    for block in blocks:
        assert block.grad.isfinite().all()
        assert block.grad.abs().max() < 1e3


def test_an_image_without_a_region_learns_from_its_partner():
    block = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]], [[[-1.0, -1.0]], [[0.0, -3.0]]]])
    assert foreground_probability([block], smooth=False)[1].flatten().tolist() == [0, 0]
    stage2 = block.abs()
    found = foreground_probability([block, stage2], smooth=False)[1].flatten()
    assert found.tolist() == pytest.approx([1.3, 1.3 * math.sqrt(0.1)], abs=3e-5)


def test_autocast_changes_nothing(device):
    blocks = [b.detach().float() for b in random_blocks(2)]
    with torch.autocast(device.type, torch.bfloat16):
        found = foreground_probability(blocks, drop=False)
    assert found.dtype == torch.float32
    assert torch.equal(found, foreground_probability(blocks, drop=False))


ONE = torch.rand(2, 3, 4, 4)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: foreground_probability([]), "no block given; give at least the feature maps of the last stage"),
        (
            lambda: foreground_probability([ONE, ONE[..., :2]]),
            r"blocks are \[\[2, 3, 4, 4\], \[2, 3, 4, 2\]\]; give the same images on the same grid",
        ),
        (lambda: foreground_probability([ONE, ONE[:1]]), r"give the same images on the same grid"),
        (lambda: foreground_probability([ONE], group=5), "group=5; give 1 to 4 images"),
        (lambda: foreground_probability([ONE], group=0), "group=0; give 1 to 4 images"),
        (lambda: foreground_probability([ONE], group=3), "2 images are no groups of 3; give a multiple of 3"),
        (lambda: foreground_probability([ONE], scale=0), "scale=0; give a number above 0"),
        (lambda: foreground_probability([ONE[0]]), r"features are torch.float32 \[3, 4, 4\]"),
        (
            lambda: region_similarity(ONE, torch.rand(2, 5, 4)),
            r"features \[2, 3, 4, 4\] and prototypes \[2, 5, 4\] do not fit; give \[N,D,h,w\] and \[N,P,D\]",
        ),
    ],
)
def test_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
