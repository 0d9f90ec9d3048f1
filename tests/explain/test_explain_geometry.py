"""Maps at the photographs' own size: resizes, crops and padding are undone."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
from bright_squares import BRIGHT, DARK, KEPT, RAW, SQUEEZED, Bright, assert_follows, grad_cam, photo
from PIL import Image
from torchvision import transforms as T

from camplug import CAM, FullyCAM, GradCAM
from camplug.explain.explanation import Explanation
from camplug.explain.photo_inputs import place_on_photo
from camplug.images.geometry import Box
from camplug.images.preprocess import Preprocess


@pytest.mark.parametrize("method", [CAM, GradCAM, FullyCAM])
@pytest.mark.parametrize(
    "transform", [KEPT, SQUEEZED, Preprocess((200, 200), **RAW)], ids=["kept", "squeezed", "larger"]
)
@pytest.mark.parametrize("size,square", [((120, 80), (30, 20, 54, 44)), ((70, 110), (40, 80, 64, 104))])
def test_the_map_lies_on_the_square(method, transform, size, square):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = method(Bright(), preprocess=transform).explain(photo(*size, square), BRIGHT)
    assert isinstance(result, Explanation)
    assert result.maps.dtype == torch.float32
    assert_follows(result, square)


def test_a_model_of_one_input_size():
    model = Bright()
    model.pretrained_cfg = {"input_size": (3, 48, 48), "fixed_input_size": True, **RAW}
    result = GradCAM(model, "features").explain(photo(160, 60, (100, 10, 140, 50)), BRIGHT)
    assert model.batches[-1] == (1, 3, 48, 48)
    assert_follows(result, (100, 10, 140, 50))


def test_a_panorama_is_squeezed_and_laid_back():
    result = grad_cam().explain(photo(1000, 50, (600, 5, 700, 45)), BRIGHT)
    left, top, right, bottom = result.boxes()[0][0]
    assert max(abs(left - 600), abs(right - 700)) <= 7  # one cell is 6.25 pixels wide
    assert max(abs(top - 5), abs(bottom - 45)) <= 2


def crop(*steps):
    return T.Compose([*steps, T.ToTensor()])


@pytest.mark.parametrize(
    "transform,seen,square",
    [
        (crop(T.Resize(64), T.CenterCrop(56)), (25, 5, 95, 75), (34, 20, 58, 44)),
        (crop(T.CenterCrop(60)), (30, 10, 90, 70), (34, 20, 58, 44)),
        (crop(T.Lambda(lambda p: p.crop((60, 20, 120, 60))), T.Resize((40, 60))), (60, 20, 120, 60), (80, 30, 104, 54)),
    ],
    ids=["resize and crop", "crop", "a corner, squeezed"],
)
def test_a_users_crop_is_undone_and_nothing_is_said_outside(transform, seen, square):
    explainer = grad_cam(transform)
    result = explainer.explain(photo(square=square), [BRIGHT, DARK])
    assert_follows(result, square)
    left, top, right, bottom = seen
    outside = torch.ones(80, 120, dtype=torch.bool)
    outside[top - 1 : bottom + 1, left - 1 : right + 1] = False
    assert (result.maps[1][outside] == 0).all()
    inside = ~outside
    inside[square[1] - 3 : square[3] + 3, square[0] - 3 : square[2] + 3] = False
    inside[: top + 2], inside[bottom - 2 :], inside[:, : left + 2], inside[:, right - 2 :] = (False,) * 4
    assert (result.maps[1][inside] == 1).all()  # black ground everywhere in view


def test_evidence_outside_of_the_crop_is_not_seen():
    explainer = grad_cam(crop(T.CenterCrop(40)))
    with pytest.warns(UserWarning, match="no positive evidence for 'bright spot'"):
        result = explainer.explain(photo(square=(0, 0, 30, 30)), BRIGHT)
    assert (result.maps == 0).all()


@pytest.mark.parametrize(
    "step", [T.RandomRotation((20, 20)), T.RandomHorizontalFlip(), T.Lambda(lambda p: p.transpose(0))],
    ids=["rotates", "draws", "mirrors"],
)  # fmt: skip
def test_a_transform_that_does_more_is_told_of(step):
    with pytest.warns(UserWarning, match="does more than resize, crop and pad"):
        result = grad_cam(crop(T.Resize((40, 60)), step)).explain(photo(), BRIGHT)
    assert tuple(result.maps.shape) == (1, 80, 120)


def test_maps_of_a_real_transformer_come_back_at_the_photographs_size():
    model = timm.create_model("test_vit", pretrained=False, dynamic_img_size=False).eval()
    sizes = []
    model.register_forward_pre_hook(lambda m, args: sizes.append(tuple(args[0].shape)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights may find nothing
        result = FullyCAM(model).explain(photo(200, 90), 3)
    assert sizes[-1] == (1, 3, *model.pretrained_cfg["input_size"][1:])
    assert tuple(result.maps.shape) == (1, 90, 200)
    assert result.maps.min() >= 0
    assert result.maps.max() <= 1


# ---- padding, channels


def letterbox(side, fill):
    def transform(picture):
        scale = side / max(picture.size)
        small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
        square = Image.new("RGB", (side, side), (fill,) * 3)
        square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
        return T.ToTensor()(square)

    return transform


@pytest.mark.parametrize("size,square", [((120, 80), (30, 20, 54, 44)), ((70, 110), (40, 80, 64, 104))])
@pytest.mark.parametrize("fill", [0, 114])
def test_a_letterbox_is_undone(size, square, fill):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = grad_cam(letterbox(100, fill)).explain(photo(*size, square), BRIGHT)
    assert_follows(result, square)


def test_a_padded_map_is_read_at_the_photographs_pixels():
    """Against bilinear resizing of the padded map to the padded photograph, of which the middle is cut out."""
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    want = torch.nn.functional.interpolate(maps[:, None], (120, 120), mode="bilinear")[:, 0, 20:100]
    torch.testing.assert_close(place_on_photo(maps, Box(0, -20, 120, 100), (80, 120)), want)
    cut = place_on_photo(
        maps, Box(10, 5, 50, 35), (40, 60)
    )  # a crop: the map lies in its place, nothing is told outside
    want = torch.nn.functional.interpolate(maps[:, None], (30, 40), mode="bilinear")[:, 0]
    torch.testing.assert_close(cut[:, 5:35, 10:50], want)
    assert cut.sum() == pytest.approx(float(want.sum()), rel=1e-5)
