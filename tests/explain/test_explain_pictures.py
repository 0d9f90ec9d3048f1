"""From photographs and class names to maps at the photographs' own size, with the geometry undone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import transforms as T

from camplug import CAM, Against, EigenCAM, FullyCAM, GradCAM
from camplug.errors import InputError, TargetError
from camplug.explain.explanation import Explanation
from camplug.explain.photographs import compute_maps_on_photo, place_on_photo
from camplug.images.geometry import Box
from camplug.images.preprocess import Preprocess
from camplug.models import preprocess as preprocess_module


class Bright(nn.Module):
    """Two maps, pooled: how far each pixel is above middle grey ("bright"), and how far below ("dark")."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2, 3)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 3, 1, 1) / 3)
            self.features[0].bias.copy_(torch.tensor([-0.5, 0.5]))
            self.fc.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
            self.fc.bias.zero_()
        self.class_names = ["bright spot", "dark ground", "neither"]
        self.batches = []
        self.eval()

    def forward(self, x):
        self.batches.append(tuple(x.shape))
        return self.fc(self.pool(self.features(x)).flatten(1))


RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
KEPT = Preprocess((40, 40), **RAW)
SQUEEZED = Preprocess((48, 48), **RAW, keep_aspect=False)
BRIGHT, DARK, NEITHER = 0, 1, 2


def photo(width=120, height=80, square=(30, 20, 54, 44)):
    """A white square (left, top, right, bottom) on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = square
    pixels[top:bottom, left:right] = 255
    return pixels


def grad_cam(preprocess=KEPT, model=None, **options):
    return GradCAM(Bright() if model is None else model, "features", preprocess=preprocess, **options)


def assert_follows(explanation, square, k=0, overlap=0.8):
    """The k-th map peaks inside of the square, its mask is the square, and far from it there is nothing."""
    heat = explanation.maps[k]
    assert tuple(heat.shape) == (explanation.image.height, explanation.image.width)
    left, top, right, bottom = square
    y, x = divmod(int(heat.argmax()), heat.shape[1])
    assert (left <= x < right, top <= y < bottom) == (True, True), (x, y)
    truth = torch.zeros_like(heat, dtype=torch.bool)
    truth[top:bottom, left:right] = True
    mask = explanation.mask()[k]
    assert (mask & truth).sum() / (mask | truth).sum() > overlap
    margin = 6
    far = torch.ones_like(truth)
    far[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = False
    assert float(heat[far].max()) < 0.02
    assert float(heat.max()) == 1


# ---- geometry


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
    model = timm.create_model("test_vit", pretrained=False).eval()
    sizes = []
    model.register_forward_pre_hook(lambda m, args: sizes.append(tuple(args[0].shape)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights may find nothing
        result = FullyCAM(model).explain(photo(200, 90), 3)
    assert sizes[-1] == (1, 3, *model.pretrained_cfg["input_size"][1:])
    assert tuple(result.maps.shape) == (1, 90, 200)
    assert result.maps.min() >= 0
    assert result.maps.max() <= 1


# ---- what an image can be


def test_path_pil_and_arrays_give_the_same(tmp_path):
    pixels = photo()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    explainer = grad_cam()
    first = explainer.explain(tmp_path / "a.png", BRIGHT)
    np.testing.assert_array_equal(np.asarray(first.image), pixels)
    others = [str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, torch.from_numpy(pixels)]
    others.append(torch.from_numpy(pixels).permute(2, 0, 1))
    for source in others:
        result = explainer.explain(source, BRIGHT)
        assert torch.equal(result.maps, first.maps)
        assert result.image.tobytes() == first.image.tobytes()
        assert result.scores == first.scores


def test_an_exif_rotated_photograph_is_explained_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo()).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert_follows(grad_cam().explain(tmp_path / "turned.png", BRIGHT), (30, 20, 54, 44))


def test_a_float_tensor_goes_in_as_it_is():
    x = torch.from_numpy(photo()).permute(2, 0, 1).float() / 255
    explainer = grad_cam(preprocess=lambda p: pytest.fail("a float tensor is normalised already"))
    result = explainer.explain(x, BRIGHT)
    torch.testing.assert_close(result.maps, explainer.maps(x[None], BRIGHT))
    assert_follows(result, (30, 20, 54, 44), overlap=0.99)
    np.testing.assert_array_equal(np.asarray(result.image), photo())  # stretched to black and white for the eye
    assert result.scores[0] == pytest.approx(2 * 0.5 * 24 * 24 / (80 * 120), rel=1e-4)


def test_a_batch_gives_a_list():
    x = torch.stack(
        [torch.from_numpy(photo(square=s)).permute(2, 0, 1) / 255 for s in ((0, 0, 9, 9), (50, 50, 60, 60))]
    )
    explainer = grad_cam()
    results = explainer.explain(x, BRIGHT)
    assert isinstance(results, list)
    expected = explainer.maps(x, BRIGHT)
    for i, result in enumerate(results):
        torch.testing.assert_close(result.maps[0], expected[i])
    one = explainer.explain(x[:1], BRIGHT)
    assert isinstance(one, list)
    assert len(one) == 1


def test_a_uint8_batch_is_a_list_of_photographs():
    x = torch.stack([torch.from_numpy(photo()).permute(2, 0, 1)] * 2)
    results = grad_cam().explain(x, BRIGHT)
    assert [tuple(r.maps.shape) for r in results] == [(1, 80, 120)] * 2
    assert_follows(results[1], (30, 20, 54, 44))


def test_photographs_of_mixed_sizes_keep_their_order():
    squares = [((120, 80), (30, 20, 54, 44)), ((60, 60), (10, 10, 34, 34)), ((60, 60), (30, 4, 54, 28))]
    squares.append(((120, 80), (80, 40, 104, 64)))
    explainer = grad_cam()
    photos = [photo(*size, square) for size, square in squares]
    results = explainer.explain(photos, BRIGHT)
    for result, (size, square), source in zip(results, squares, photos, strict=True):
        assert result.image.size == size
        assert_follows(result, square)
        torch.testing.assert_close(result.maps, explainer.explain(source, BRIGHT).maps)


def test_batches():
    model = Bright()
    explainer = grad_cam(model=model)
    small = photo(60, 60, (10, 10, 34, 34))
    explainer.explain([photo()] * 5 + [small] * 2 + [photo()], BRIGHT, batch_size=2)
    wide, square = (3, 40, 60), (3, 40, 40)
    assert model.batches == [(2, *wide), (2, *wide), (1, *wide), (2, *square), (1, *wide)]


def test_no_photographs():
    assert grad_cam().explain([], None) == []


@pytest.mark.parametrize(
    "source,says",
    [
        (torch.zeros(2, 8, 8), r"a float tensor must be \[3,H,W\] or \[N,3,H,W\]; got \[2, 8, 8\]"),
        (torch.zeros(8, 8), r"got \[8, 8\]"),
        (np.zeros((8, 8, 3)), "must be uint8"),
        ("no such file.png", "there is no file 'no such file.png'"),
        (None, "got NoneType"),
        ([photo(), 3.0], "got float"),
    ],
)
def test_other_images_are_refused(source, says):
    with pytest.raises(InputError, match=says):
        grad_cam().explain(source, BRIGHT)


def test_a_transform_that_fails_on_a_file_names_it(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: preprocess= must turn a PIL image into a float tensor"):
        grad_cam(lambda p: p).explain(tmp_path / "a.png")


# ---- classes


def test_classes_by_index_name_list_and_none():
    explainer = grad_cam()
    by_index = explainer.explain(photo(), BRIGHT)
    assert (by_index.classes, by_index.names, by_index.method) == ([0], ["bright spot"], "gradcam")
    for same in ("bright spot", "Bright", "0", np.int64(0), torch.tensor(0), [0], ["spot"], torch.tensor([0])):
        result = explainer.explain(photo(), same)
        assert result.classes == [0]
        assert torch.equal(result.maps, by_index.maps)
    several = explainer.explain(photo(), ["dark ground", 0])
    assert several.classes == [1, 0]
    assert several.names == ["dark ground", "bright spot"]
    torch.testing.assert_close(several.maps[1], by_index.maps[0])
    predicted = explainer.explain(photo())
    assert predicted.classes == [1]  # mostly black
    torch.testing.assert_close(predicted.maps[0], several.maps[0])
    assert predicted.scores == pytest.approx([float(predicted.logits[1])])


def test_scores_are_the_models_logits():
    model = Bright()
    result = grad_cam(model=model).explain(photo(), [1, 0])
    x, _ = KEPT(Image.fromarray(photo()))
    logits = model(x[None])[0].detach()
    torch.testing.assert_close(result.logits, logits)
    assert result.scores == pytest.approx([float(logits[1]), float(logits[0])])
    torch.testing.assert_close(result.probabilities(), logits.softmax(0))
    assert result.top(1)[0][:2] == (1, "dark ground")
    assert result.all_names == model.class_names


def test_a_callable():
    explainer = grad_cam()
    result = explainer.explain(photo(), lambda out: out[:, BRIGHT] * 3)
    assert (result.classes, result.names) == ([-1], ["score"])
    assert np.isnan(result.scores[0])
    torch.testing.assert_close(result.maps, explainer.explain(photo(), BRIGHT).maps)
    both = explainer.explain([photo(), photo()], lambda out: out[:, BRIGHT])
    torch.testing.assert_close(both[1].maps, result.maps)


def test_one_entry_per_photograph():
    explainer = grad_cam()
    photos = [photo(), photo(60, 60, (10, 10, 34, 34)), photo()]
    results = explainer.explain(photos, ["bright", 1, [1, "bright"]])
    assert [r.classes for r in results] == [[0], [1], [1, 0]]
    for result, source in zip(results, photos, strict=True):
        torch.testing.assert_close(result.maps, explainer.explain(source, result.classes).maps)
    assert [r.classes for r in explainer.explain(photos, torch.tensor([0, 1, 0]))] == [[0], [1], [0]]
    assert [r.classes for r in explainer.explain(photos, "dark")] == [[1]] * 3
    assert [r.classes for r in explainer.explain(photos)] == [[1], [1], [1]]


def test_no_class():
    result = grad_cam().explain(photo(), [])
    assert (result.classes, result.names, result.scores) == ([], [], [])
    assert result.maps.shape == (0, 80, 120)


@pytest.mark.parametrize(
    "source,classes,says",
    [
        (photo(), 3, "class 3 is outside the model's 3 classes; allowed are 0 to 2"),
        (photo(), -1, "class -1 is outside"),
        (photo(), "dirk ground", r"no class is called 'dirk ground'; did you mean dark ground \(1\)"),
        (photo(), 0.5, "0.5 is no class index"),
        ([photo()] * 3, [0, 1], "2 entries in classes for 3 images; give one class for all, or one entry per image"),
        ([photo()], [0, 1], "2 entries in classes for 1 images"),
    ],
)
def test_classes_that_do_not_exist(source, classes, says):
    with pytest.raises(TargetError, match=says):
        grad_cam().explain(source, classes)


def test_labels():
    explainer = grad_cam(class_names=["hell", "dunkel", "weder"])
    assert explainer.explain(photo(), "dunkel").classes == [1]
    assert explainer.explain(photo(), 0).names == ["hell"]
    with pytest.raises(TargetError, match="class_names= holds 2 names, but the model has 3 classes"):
        grad_cam(class_names=["a", "b"]).explain(photo(), 0)


def test_without_names():
    model = Bright()
    del model.class_names
    result = grad_cam(model=model).explain(photo(), 0)
    assert result.names == ["class 0"]
    assert result.all_names is None
    with pytest.raises(TargetError, match="the model has no class names"):
        grad_cam(model=model).explain(photo(), "bright")


def test_names_work_in_any_number_format():
    result = grad_cam(model=Bright().double()).explain(photo(), "bright")
    assert result.classes == [0]
    assert result.maps.dtype == torch.float32
    assert_follows(result, (30, 20, 54, 44))


# ---- scale and warnings


@pytest.mark.parametrize("normalize", ["max", "minmax", None])
def test_maps_are_scaled_as_the_explainer_says(normalize):
    result = grad_cam(normalize=normalize).explain(photo(), [BRIGHT, DARK])
    assert result.maps.min() == 0
    assert (result.maps.amax((1, 2)) == 1).all() == (normalize is not None)
    torch.testing.assert_close(result.normalized_maps(), grad_cam().explain(photo(), [BRIGHT, DARK]).maps)
    assert torch.equal(result.mask(), grad_cam().explain(photo(), [BRIGHT, DARK]).mask())


def test_no_positive_evidence_is_told_of_with_the_users_own_line():
    with pytest.warns(UserWarning, match="no positive evidence for 'neither': its gradcam map is all 0") as told:
        result = grad_cam().explain(photo(), [BRIGHT, NEITHER])
    assert len(told) == 1
    assert told[0].filename == __file__
    assert (result.maps[1] == 0).all()
    assert result.maps[0].max() == 1


def test_the_defaults_are_told_of_once(monkeypatch):
    monkeypatch.setattr(preprocess_module, "_warned", False)
    explainer = GradCAM(Bright(), "features")
    with pytest.warns(UserWarning, match="the model does not say how it wants its images") as told:
        results = explainer.explain([photo(), photo()], DARK)
    assert len(results) == 2
    assert len(told) == 1


def test_the_model_and_its_mode_are_untouched():
    model = Bright().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grad_cam(model=model).explain(photo(), "bright")
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model._forward_hooks
    assert not model.features._forward_hooks


# ---- maps alone


@pytest.mark.parametrize("normalize", ["max", "minmax", None])
def test_maps_on_a_photograph_are_made_at_its_size(normalize):
    explainer, source = grad_cam(normalize=normalize), Image.fromarray(photo())
    maps, logits = compute_maps_on_photo(explainer, source, [DARK, BRIGHT])
    x, _ = KEPT(source)
    want = explainer.run(x[None], [[DARK, BRIGHT]], (80, 120))
    assert torch.equal(maps, want.maps[0])
    torch.testing.assert_close(logits, want.logits[0])
    assert maps.dtype == torch.float32
    one = explainer.explain(source, [DARK, BRIGHT])  # the same numbers
    assert torch.equal(one.maps, maps)
    assert torch.equal(one.normalized_maps(), maps / maps.amax((1, 2), keepdim=True))
    assert (float(maps.max()) == 1) == (normalize is not None)
    assert torch.equal(one.mask(0.4), one.normalized_maps() >= 0.4)


def test_maps_on_a_cropped_photograph_are_those_of_an_explanation():
    crop = T.Compose([T.Resize(64), T.CenterCrop(48), T.ToTensor()])
    explainer, source = grad_cam(crop), Image.fromarray(photo(square=(50, 30, 74, 54)))
    maps, logits = compute_maps_on_photo(explainer, source, [BRIGHT, DARK])
    want = explainer.explain(source, [BRIGHT, DARK])
    assert torch.equal(maps, want.maps)
    assert torch.equal(logits, want.logits)
    assert maps[:, :, :20].amax() == 0  # outside of the crop


def test_no_maps_on_a_photograph():
    maps, logits = compute_maps_on_photo(grad_cam(), Image.fromarray(photo()), [])
    assert maps.shape == (0, 80, 120)
    assert logits.shape == (3,)


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


class OfChannels(nn.Module):
    """The mean over its channels of what is above 0.25, pooled."""

    def __init__(self, channels):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.ReLU())
        self.fc = nn.Linear(1, 2)
        with torch.no_grad():
            self.features[0].weight.fill_(1 / channels)
            self.features[0].bias.fill_(-0.25)
            self.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


@pytest.mark.parametrize("transform", [KEPT, Preprocess((40, 40), (0.0,), (1.0,)), None])
@pytest.mark.filterwarnings("ignore:the model does not say how it wants its images")
def test_a_model_of_one_channel_gets_the_photograph_in_grey(transform):
    model = OfChannels(1).eval()
    seen = []
    model.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    result = GradCAM(model, "features", preprocess=transform).explain(photo(), 0)
    assert_follows(result, (30, 20, 54, 44))
    assert seen[-1].shape[1] == 1
    if transform is not None:
        grey = np.asarray(Image.fromarray(photo()).convert("L").resize((60, 40), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(seen[-1][0, 0].numpy(), grey / 255, atol=1e-6)
    tensor = GradCAM(model, "features").explain(torch.from_numpy(photo()[..., :1]).permute(2, 0, 1) / 255, 0)
    assert_follows(tensor, (30, 20, 54, 44), overlap=0.99)
    with pytest.raises(InputError, match=r"must be \[1,H,W\] or \[N,1,H,W\]; got \[3, 8, 8\]"):
        GradCAM(model, "features").explain(torch.zeros(3, 8, 8), 0)
    with pytest.raises(InputError, match="preprocess= gives 3 channels, and the model reads 1"):
        GradCAM(model, "features", preprocess=T.ToTensor()).explain(photo(), 0)


def test_a_model_of_many_channels_takes_tensors():
    explainer = GradCAM(OfChannels(6).eval(), "features")
    x = torch.from_numpy(photo()[..., :1]).permute(2, 0, 1).expand(6, -1, -1) / 255
    result = explainer.explain(x, 0)
    assert_follows(result, (30, 20, 54, 44), overlap=0.99)
    np.testing.assert_array_equal(np.asarray(result.image), photo())  # the mean of the channels, for the eye
    assert len(explainer.explain(torch.stack([x, x]), 0)) == 2
    with pytest.raises(
        InputError, match=r"the model reads 6 channels, and a photograph has 3 .*float tensor \[6,H,W\]"
    ):
        GradCAM(OfChannels(6).eval(), "features", preprocess=KEPT).explain(photo(), 0)


# ---- what the outputs are


class Ends(Bright):
    """`Bright` with something after its logits, or with fewer of them."""

    def __init__(self, end, outputs=3):
        super().__init__()
        self.end, self.outputs = end, outputs
        self.class_names = self.class_names[:outputs] if outputs > 1 else ["dark ground", "bright spot"]

    def forward(self, x):
        return self.end(super().forward(x)[:, : self.outputs])


def logits_of_photo():
    return Bright()(KEPT(Image.fromarray(photo()))[0][None])[0].detach()


@pytest.mark.parametrize(
    "end", [lambda z: (z.softmax(1), z), lambda z: z.softmax(1), lambda z: z.log_softmax(1)],
    ids=["both", "probabilities", "log"],
)  # fmt: skip
@pytest.mark.parametrize("method", [GradCAM, EigenCAM])
def test_probabilities_are_not_made_twice(end, method):
    p = logits_of_photo().softmax(0)
    result = method(Ends(end), "features", preprocess=KEPT).explain(photo(), 1)
    torch.testing.assert_close(result.probabilities(), p)
    assert [(i, name) for i, name, _ in result.top()] == [(1, "dark ground"), (0, "bright spot"), (2, "neither")]
    assert result.top(1)[0][2] == pytest.approx(float(p[1]))
    assert result.title() == f"dark ground\n{p[1]:.1%} (softmax)"


def test_saturated_probabilities_are_told_of():
    model = Ends(lambda z: (1000 * z).softmax(1))
    with pytest.warns(
        UserWarning, match="puts out probabilities, and the explained one is 1 up to rounding for image 0"
    ):
        grad_cam(model=model).explain(photo())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grad_cam(model=Ends(lambda z: ((1000 * z).softmax(1), 1000 * z))).explain(photo())


@pytest.mark.parametrize("end", [lambda z: z, torch.sigmoid, lambda z: z[:, 0]], ids=["logit", "sigmoid", "vector"])
def test_one_output_has_two_sides(end):
    z = float(logits_of_photo()[0])
    p = 1 / (1 + np.exp(-z))
    explainer = grad_cam(model=Ends(end, 1))
    yes = explainer.explain(photo(), "bright spot")
    assert (repr(yes.classes), yes.names) == ("[0]", ["bright spot"])
    torch.testing.assert_close(yes.maps, grad_cam().explain(photo(), BRIGHT).maps)
    assert [(repr(i), n, pytest.approx(v)) for i, n, v in yes.top()] == [
        ("0", "bright spot", p), ("Against(0)", "dark ground", 1 - p),
    ]  # fmt: skip
    assert yes.title() == f"bright spot\n{p:.1%} (sigmoid)"
    shifted = grad_cam(model=Ends(lambda t: end(t - 2 * z), 1))  # now it says no
    with pytest.warns(UserWarning, match="no positive evidence for 'dark ground'"):  # no place of it is negative
        no = shifted.explain(photo())
    assert (repr(no.classes), no.names) == ("[Against(0)]", ["dark ground"])
    assert no.top(1)[0][1] == "dark ground"
    assert no.probability() == pytest.approx(p)
    assert repr(shifted.explain(photo(), no.classes).classes) == "[Against(0)]"


def test_one_output_without_names():
    model = Ends(lambda z: z, 1)
    model.class_names = None
    result = grad_cam(model=model).explain(photo())
    assert result.names == ["positive"]
    assert [name for _, name, _ in result.top()] == ["positive", "negative"]
    labelled = grad_cam(model=model, class_names=["no", "yes"])
    assert (labelled.explain(photo()).names, labelled.explain(photo(), "yes").names) == (["yes"], ["yes"])
    assert grad_cam(model=model, class_names=["spot"]).explain(photo()).names == ["spot"]
    with pytest.raises(
        TargetError, match=r"class_names= holds 3 names, but the model has 1 classes or 2 \(for no and yes\)"
    ):
        grad_cam(model=model, class_names=["a", "b", "c"]).explain(photo())


def test_negative_evidence_is_named_so():
    explainer = grad_cam(evidence="negative")
    result = explainer.explain(photo(), [NEITHER, BRIGHT])
    p = logits_of_photo().softmax(0)
    assert result.names == ["neither", "bright spot"]
    assert result.title() == f"against neither\n{p[NEITHER]:.1%} (softmax)"
    assert (result.maps[0] > 0).any()
    torch.testing.assert_close(result.maps[:1], grad_cam().explain(photo(), Against(NEITHER)).maps)
    against = grad_cam().explain(photo(), Against(NEITHER))
    assert against.title() == f"not neither\n{1 - p[NEITHER]:.1%} (softmax)"


def test_multi_label_models_have_sigmoids():
    model = Bright()
    model.multi_label = True
    result = grad_cam(model=model).explain(photo(), BRIGHT)
    torch.testing.assert_close(result.probabilities(), logits_of_photo().sigmoid())
    assert result.title().endswith("(sigmoid)")
    torch.testing.assert_close(result.probabilities(multi_label=False), logits_of_photo().softmax(0))


@pytest.mark.filterwarnings("ignore:no positive evidence")
@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float32])
def test_labels_of_photographs(kind):
    explainer = grad_cam()
    rows = torch.tensor([[1, 0, 1], [0, 1, 0]])
    photos = [photo(), photo(60, 60, (10, 10, 34, 34))]
    for labels in (rows.to(kind), rows.to(kind).numpy(), rows.to(kind).tolist()):
        assert [r.classes for r in explainer.explain(photos, labels)] == [[0, 2], [1]]
        assert explainer.explain(photo(), labels[0]).classes == [0, 2]
        assert explainer.explain(photo(), labels[:1]).classes == [0, 2]
    with pytest.raises(TargetError, match="labels need one column per class"):
        explainer.explain(photos, rows[:, :2].to(torch.bool))
    assert explainer.explain(photo(), torch.tensor([2, 1])).classes == [2, 1]


@pytest.mark.parametrize("end", [torch.squeeze, lambda z: (z.softmax(1).squeeze(), z.squeeze())])
def test_squeezed_outputs_of_one_photograph(end):
    result = grad_cam(model=Ends(end)).explain(photo())
    assert (result.classes, result.names) == ([1], ["dark ground"])
    torch.testing.assert_close(result.logits, logits_of_photo())
