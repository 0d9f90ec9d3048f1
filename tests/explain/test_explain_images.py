"""Images that `explain` takes: paths, pictures, arrays, tensors and batches, of any number of channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bright_squares import BRIGHT, KEPT, Bright, assert_follows, grad_cam, photo
from PIL import Image
from torch import nn
from torchvision import transforms as T

from camplug import GradCAM
from camplug.errors import InputError
from camplug.images.preprocess import Preprocess


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
