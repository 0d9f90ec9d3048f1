"""Photographs of every kind come out upright, in RGB, with the right colours; everything else is refused in words."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from camplug.errors import InputError
from camplug.images.photo import read_photo

PLANAR = struct.pack("<HHIH", 284, 3, 1, 1)  # TIFF entry: the colours of a pixel lie side by side
QUARTERS = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (255, 255, 255)}
# how the camera stored the picture, so that the flag turns it upright
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def quarters() -> Image.Image:
    """40x24: red, green over blue, white."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    for (row, column), colour in QUARTERS.items():
        pixels[12 * row : 12 * row + 12, 20 * column : 20 * column + 20] = colour
    return Image.fromarray(pixels)


def assert_quarters(photo: Image.Image, tolerance: int = 0) -> None:
    assert photo.mode == "RGB"
    assert photo.size == (40, 24)
    pixels = np.asarray(photo).astype(int)
    for (row, column), colour in QUARTERS.items():
        inner = pixels[12 * row + 3 : 12 * row + 9, 20 * column + 4 : 20 * column + 16]
        assert np.abs(inner - colour).max() <= tolerance, (row, column, inner[0, 0])


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "tif", "gif"])
def test_formats_without_loss_give_every_pixel_back(tmp_path, ending):
    path = tmp_path / f"photo.{ending}"
    quarters().save(path, **({"lossless": True} if ending == "webp" else {}))
    photo = read_photo(path)
    assert photo.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(photo), np.asarray(quarters()))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr"])
def test_jpeg_in_any_colour_space(tmp_path, mode):
    path = tmp_path / "photo.jpg"
    quarters().convert(mode).save(path, quality=100, subsampling=0)
    assert_quarters(read_photo(str(path)), tolerance=6)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_rotation_is_undone(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = STORED[orientation]
    stored = quarters() if turn is None else quarters().transpose(turn)
    path = tmp_path / f"photo.{ending}"
    options = {"quality": 100, "subsampling": 0} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    stored.save(path, exif=exif, **options)
    assert_quarters(read_photo(path), tolerance=6 if ending == "jpg" else 0)
    with Image.open(path) as opened:  # the same through a PIL image
        assert_quarters(read_photo(opened), tolerance=6 if ending == "jpg" else 0)


def test_reading_twice_turns_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    quarters().transpose(STORED[6]).save(tmp_path / "a.png", exif=exif)
    assert_quarters(read_photo(read_photo(tmp_path / "a.png")))


def test_damaged_exif_does_not_cost_the_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    quarters().save(path, exif=exif, quality=100, subsampling=0)
    raw = path.read_bytes()
    assert raw.count(b"MM\x00*") == 1
    path.write_bytes(raw.replace(b"MM\x00*", b"MM\x00!"))
    assert_quarters(read_photo(path), tolerance=6)  # whatever the rotation was


def test_palette(tmp_path):
    quarters().quantize(4).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as opened:
        assert opened.mode == "P"
    assert_quarters(read_photo(tmp_path / "p.png"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 3, 4))
    if mode == "La":
        image = image.convert("LA").convert("La")
    elif mode == "PA":
        alpha = image.getchannel("A")
        image = Image.new("P", image.size)
        image.putalpha(alpha)
        assert image.mode == "PA"
    else:
        image = image.convert(mode)
    pixels = np.asarray(read_photo(image))
    assert pixels.shape == (4, 6, 3)
    assert (pixels[:, :3] == 0).all()
    assert (pixels[:, 3:] == 255).all()


def test_half_transparent_is_mixed_with_white():
    pixels = np.asarray(read_photo(Image.new("RGBA", (3, 3), (200, 0, 100, 51))))
    assert np.abs(pixels[0, 0].astype(int) - (244, 204, 224)).max() <= 1  # 0.2 of the colour, 0.8 of white


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_in_a_png_becomes_white(tmp_path, mode):
    image = Image.new("RGB", (6, 4), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 3, 4))
    image = image.convert(mode)
    hidden = image.getpixel((5, 0))
    image.save(tmp_path / "t.png", transparency=hidden)
    pixels = np.asarray(read_photo(tmp_path / "t.png"))
    assert (pixels[:, 3:] == 255).all()
    shown = (255, 0, 0) if mode != "L" else (76, 76, 76)
    assert (pixels[:, :3] == shown).all()


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 32).round().astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    Image.fromarray(ramp).save(tmp_path / "ramp.tif")
    expected = (ramp / 257).round()
    for name in ("ramp.png", "ramp.tif"):
        pixels = np.asarray(read_photo(tmp_path / name))
        assert pixels.shape == (4, 32, 3)
        np.testing.assert_array_equal(pixels, expected[:, :, None].repeat(3, 2))


def test_dark_sixteen_bit_grey_stays_dark(tmp_path):
    Image.fromarray(np.array([[1, 250, 4096, 4096]] * 4, np.uint16)).save(tmp_path / "dark.png")
    assert np.asarray(read_photo(tmp_path / "dark.png"))[0, :, 0].tolist() == [0, 1, 16, 16]


@pytest.mark.parametrize("name", ["twelve.tif", "twelve.png"])
def test_twelve_bits_in_sixteen(tmp_path, name):
    ramp = np.array([[0, 255, 1020, 4080]] * 4, np.uint16)
    Image.fromarray(ramp).save(tmp_path / name)
    with pytest.warns(UserWarning, match="holds no value above 4095 and is taken for 12-bit data: 4095 is white"):
        pixels = np.asarray(read_photo(tmp_path / name))
    assert pixels[0, :, 1].tolist() == [0, 16, 64, 254]


DEEP = np.arange(0, 65536, 683, dtype=np.uint16).reshape(4, 8, 3)  # RGB of 16 bits


def write_deep(path, values=DEEP, orientation=1):
    """Write RGB or RGBA of 16 bits, which Pillow cannot; the orientation is stored and the pixels stay."""
    order = [2, 1, 0, 3][: values.shape[2]]
    done, raw = cv2.imencode(path.suffix, values[..., order], [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    assert done
    raw = raw.tobytes()
    if path.suffix == ".png":
        exif = Image.Exif()
        exif[0x0112] = orientation
        chunk = b"eXIf" + exif.tobytes()[6:]
        raw = raw[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + raw[33:]
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_colours_are_rounded_to_eight(tmp_path, ending):
    want = (DEEP / 257).round()
    np.testing.assert_array_equal(np.asarray(read_photo(write_deep(tmp_path / f"deep.{ending}"))), want)
    with Image.open(tmp_path / f"deep.{ending}") as opened:
        np.testing.assert_array_equal(np.asarray(read_photo(opened)), want)


def test_sixteen_bit_colours_are_turned_upright(tmp_path):
    pixels = np.asarray(read_photo(write_deep(tmp_path / "turned.png", orientation=6)))  # 90 degrees clockwise
    np.testing.assert_array_equal(pixels, np.rot90((DEEP / 257).round(), -1))


def test_sixteen_bit_transparency_is_laid_on_white(tmp_path):
    values = np.dstack([DEEP, np.full((4, 8), 65535, np.uint16)])
    values[2:, :, 3] = 0
    pixels = np.asarray(read_photo(write_deep(tmp_path / "deep.png", values)))
    np.testing.assert_array_equal(pixels[:2], (DEEP[:2] / 257).round())
    assert (pixels[2:] == 255).all()


def test_twelve_bit_colours_in_sixteen(tmp_path):
    with pytest.warns(UserWarning, match="a photograph of 16 bits holds no value above 4095"):
        pixels = np.asarray(read_photo(write_deep(tmp_path / "twelve.png", DEEP // 16)))
    np.testing.assert_array_equal(pixels, (DEEP // 16 / 4095 * 255).round())


def test_planes_of_sixteen_bits_are_refused(tmp_path):
    raw = write_deep(tmp_path / "planes.tif").read_bytes()
    assert raw.count(PLANAR) == 1
    (tmp_path / "planes.tif").write_bytes(raw.replace(PLANAR, PLANAR[:-2] + b"\x02\x00"))
    with pytest.raises(InputError, match=r"planes.tif' stores each colour as a plane of 16 bits.*save it as PNG"):
        read_photo(tmp_path / "planes.tif")


@pytest.mark.parametrize("top,scale", [(1.0, 255.0), (255.0, 1.0)])
def test_floating_point_grey(top, scale):
    values = np.linspace(0, top, 12, dtype=np.float32).reshape(3, 4)
    pixels = np.asarray(read_photo(Image.fromarray(values)))
    np.testing.assert_array_equal(pixels[:, :, 0], (values * scale).round())
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()


def test_floating_point_grey_outside_of_any_range_is_stretched():
    values = np.array([[-10.0, 0.0], [5.0, 10.0]], np.float32)
    np.testing.assert_array_equal(np.asarray(read_photo(Image.fromarray(values)))[:, :, 1], [[0, 128], [191, 255]])
    with pytest.raises(InputError, match="NaN or infinite"):
        read_photo(Image.fromarray(np.array([[np.nan, 0], [0, 0]], np.float32)))


@pytest.mark.parametrize(
    "mode,value,rgb", [("L", 77, (77, 77, 77)), ("1", 1, (255, 255, 255)), ("I", 77, (77, 77, 77))]
)
def test_grey(mode, value, rgb):
    assert (np.asarray(read_photo(Image.new(mode, (3, 5), value))) == rgb).all()


def test_arrays_and_tensors():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(read_photo(pixels)), pixels)
    np.testing.assert_array_equal(np.asarray(read_photo(torch.from_numpy(pixels))), pixels)
    np.testing.assert_array_equal(np.asarray(read_photo(torch.from_numpy(pixels).permute(2, 0, 1))), pixels)
    np.testing.assert_array_equal(np.asarray(read_photo(pixels[:, ::-1])), pixels[:, ::-1])  # negative strides
    for grey in (pixels[:, :, 0], pixels[:, :, :1], torch.from_numpy(pixels[None, :, :, 0])):
        np.testing.assert_array_equal(np.asarray(read_photo(grey)), pixels[:, :, :1].repeat(3, 2))
    rgba = np.dstack([pixels, np.full((5, 7), 255, np.uint8)])
    np.testing.assert_array_equal(np.asarray(read_photo(rgba)), pixels)


def test_the_source_is_not_changed():
    image = Image.new("RGBA", (4, 3), (1, 2, 3, 4))
    read_photo(image)
    assert image.mode == "RGBA"
    assert image.getpixel((0, 0)) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros(4, "u1"),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(InputError, match=r"must be uint8 of shape \[H,W,3\]") as told:
        read_photo(array)
    assert str(array.dtype) in str(told.value)
    assert str(list(array.shape)) in str(told.value)


def test_other_types_are_refused():
    with pytest.raises(InputError, match=r"bytes, a file object, a PIL image, a uint8 array .* got dict"):
        read_photo({})


def test_too_small(tmp_path):
    Image.new("RGB", (1, 9)).save(tmp_path / "thin.png")
    with pytest.raises(InputError, match=r"thin\.png' has 1x9 pixels; a map needs at least 2x2"):
        read_photo(tmp_path / "thin.png")
    with pytest.raises(InputError, match="5x0"):
        read_photo(np.zeros((0, 5, 3), np.uint8))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"there is no file '.*none\.jpg'"):
        read_photo(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a folder"):
        read_photo(tmp_path)
    (tmp_path / "text.jpg").write_text("not a photograph")
    with pytest.raises(InputError, match=r"text\.jpg' is not an image that Pillow can read"):
        read_photo(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty\.jpg'"):
        read_photo(tmp_path / "empty.jpg")


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "gif", "bmp"])
def test_truncated_files(tmp_path, ending):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    whole = io.BytesIO()
    noise.save(whole, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending))
    path = tmp_path / f"cut.{ending}"
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole.getvalue()[: int(part * len(whole.getvalue()))])
        with pytest.raises(InputError) as told:
            read_photo(path)
        assert f"cut.{ending}'" in str(told.value)


def test_a_lazily_opened_truncated_image_is_refused(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    noise.save(tmp_path / "cut.jpg")
    raw = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(raw[: len(raw) // 2])
    with Image.open(tmp_path / "cut.jpg") as opened, pytest.raises(InputError, match="the image is damaged"):
        read_photo(opened)


@pytest.mark.filterwarnings("ignore")  # what decoders warn of
def test_random_damage_never_raises_anything_else(tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF"):
        whole = io.BytesIO()
        quarters().save(whole, kind, **({"exif": exif} if kind != "GIF" else {}))
        raw = np.frombuffer(whole.getvalue(), np.uint8)
        for _ in range(40):
            bad = raw.copy()
            bad[rng.integers(0, min(len(bad), 120), 3)] = rng.integers(0, 256, 3)
            (tmp_path / "bad").write_bytes(bad.tobytes())
            try:
                assert read_photo(tmp_path / "bad").mode == "RGB"
            except InputError as error:
                assert "bad'" in str(error)  # noqa: PT017


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_bytes_and_file_objects_are_what_their_file_is(tmp_path, form):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x", format=form)
    data = (tmp_path / "x").read_bytes()
    want = np.asarray(read_photo(tmp_path / "x"))
    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data)):
        np.testing.assert_array_equal(np.asarray(read_photo(source)), want)


@pytest.mark.parametrize("data", [b"", b"no image", io.BytesIO(b"no image")])
def test_bytes_that_are_no_image(data):
    with pytest.raises(InputError, match=r"the image is not an image that Pillow can read"):
        read_photo(data)


def test_bytes_of_sixteen_bits_and_of_half_a_file():
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    want = np.round(deep[..., ::-1] / 257).astype(int)
    assert np.abs(np.asarray(read_photo(data)).astype(int) - want).max() <= 1
    with pytest.raises(InputError, match="the image is damaged"):
        read_photo(data[: len(data) // 2])
