"""`camplug explain`: what it writes and prints, with every option, for photographs of every kind."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import torch
from commands import good, refused
from PIL import Image
from square_commands import MODEL, MODULE, OWN, SQUARE, files, iou, red_panels

import camplug
from camplug.cli.app import main
from camplug.explain.explanation import Explanation
from camplug.images.preprocess import Preprocess


@pytest.mark.slow
def test_without_arguments_a_cat_and_three_maps(place, demo):
    result = good("explain")
    assert files(place) == ["camplug_explain.png", f"{MODULE}.py"]
    assert "Egyptian cat" in result.stdout
    assert "written: camplug_explain.png" in result.stdout
    panels = red_panels(place / "camplug_explain.png")
    assert len(panels) == 4
    assert len({(s[0].start, s[0].stop) for s in panels}) == 1  # in one row
    picture = np.asarray(Image.open(place / "camplug_explain.png").convert("RGB"))
    first = next(s for s in panels if s[1].start == min(p[1].start for p in panels))
    shown = Image.fromarray(picture[first]).resize((45, 30), Image.Resampling.BOX)
    import skimage.data

    cat = Image.fromarray(skimage.data.chelsea()).resize((45, 30), Image.Resampling.BOX)
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(cat)).mean() < 8  # the first is the photograph


@pytest.mark.slow
def test_the_demo_in_json_and_its_class_by_name(place, demo):
    document = json.loads(good("explain", "--json", "--class", "tabby", "-o", "x.jpg").stdout)
    (entry,) = document["images"]
    assert [e["name"] for e in entry["explained"]] == ["tabby"]
    assert entry["top"][0]["name"] == "Egyptian cat"
    assert entry["size"] == [451, 300]
    assert entry["written"] == ["x.jpg"]
    assert Image.open(place / "x.jpg").format == "JPEG"


def test_one_photograph(place, square):
    result = good("explain", square, "--model", MODEL)
    assert files(place) == [f"{MODULE}.py", "square.png", "square_fully.png"]
    assert "dark ground" in result.stdout
    assert "written: square_fully.png" in result.stdout
    assert Image.open("square_fully.png").height == 80 + 15  # and a line of text


def test_class_method_and_numbers(place, square):
    result = good(
        "explain", square, "-m", MODEL, "--class", "bright spot", "--method", "gradcam", "--layers", "features",
        "--out", "numbers.npz", "--json",
    )  # fmt: skip
    document = json.loads(result.stdout)
    assert document["broken"] == []
    (entry,) = document["images"]
    assert (entry["image"], entry["size"], entry["method"]) == (square, [120, 80], "gradcam")
    assert entry["written"] == ["numbers.npz"]
    (one,) = entry["explained"]
    assert (one["index"], one["name"]) == (0, "bright spot")
    assert np.abs(np.subtract(one["boxes"][0], SQUARE)).max() <= 2
    back = Explanation.load("numbers.npz")
    assert back.method == "gradcam"
    assert iou(back.mask()[0], SQUARE) > 0.8
    assert one["output"] == pytest.approx(back.scores[0])
    assert one["probability"] == pytest.approx(float(back.logits.softmax(0)[0]))
    assert [t["index"] for t in entry["top"]] == back.logits.argsort(descending=True).tolist()


def test_masks_and_boxes(place, square):
    result = good(
        "explain", square, "-m", MODEL, "-c", "bright spot", "--mask", "0.5", "--boxes", "0.8", "--out", "a.png"
    )
    mask = np.asarray(Image.open("a_mask.png"))
    assert sorted(np.unique(mask)) == [0, 255]
    expected = camplug.FullyCAM(camplug.load_model(MODEL)).explain(square, "bright spot")
    assert np.array_equal(mask == 255, expected.mask(0.5)[0])
    assert f"boxes of bright spot: {' '.join(map(str, expected.boxes(0.8)[0]))}\n" in result.stdout
    assert "written: a.png, a_mask.png" in result.stdout
    both = json.loads(good("explain", square, "-m", MODEL, "-c", "0", "-c", "1", "--mask", "0.5", "--json").stdout)
    names = ["square_fully.png", "square_fully_mask_bright_spot.png", "square_fully_mask_dark_ground.png"]
    assert both["images"][0]["written"] == names
    assert all((place / name).is_file() for name in names)
    assert "--mask 1.5 is no share of a map's maximum" in refused("explain", square, "-m", MODEL, "--mask", "1.5")
    (place / "a_mask.png").write_bytes((place / square).read_bytes())
    given = ("explain", "a_mask.png", "-m", MODEL, "--mask", "0.5", "--out", "a.png")
    assert "'a_mask.png' is the photograph itself" in refused(*given)


def test_the_command_line_says_what_the_library_says(place, square):
    good("explain", square, "-m", MODEL, "-c", "0", "-c", "dark ground", "--method", "Grad-CAM", "-o", "a.npz")
    model = camplug.load_model(MODEL)
    expected = camplug.GradCAM(model).explain(square, [0, 1])
    back = Explanation.load("a.npz")
    assert torch.equal(back.maps, expected.maps)
    assert (back.classes, back.scores) == (expected.classes, expected.scores)


def test_a_wrapper_around_a_method(place, square):
    text = "MultiView(GradCAM, scales=(1, 2), flip=False)"
    good("explain", square, "-m", MODEL, "-c", "0", "--method", text, "--layers", "features", "-o", "a.npz")
    model = camplug.load_model(MODEL)
    wrapped = camplug.MultiView(camplug.GradCAM(model, "features"), (1, 2), flip=False)
    back = Explanation.load("a.npz")
    assert torch.equal(back.maps, wrapped.explain(square, [0]).maps)
    assert back.method == "multiview(gradcam)"
    good("explain", square, "-m", MODEL, "-c", "0", "--method", "Compete(MultiView(GradCAM++))")
    assert files(place) == ["a.npz", f"{MODULE}.py", "square.png", "square_compete_multiview_gradcam++.png"]
    assert "MultiView wraps an explainer" in refused("explain", square, "-m", MODEL, "--method", "MultiView()")
    assert "It is a wrapper; write what it wraps" in refused("explain", square, "-m", MODEL, "--method", "multiview")


def test_the_long_side(place, square):
    seen = []
    for command in ("explain", "compare"):
        good(command, square, "-m", f"import:{MODULE}:Watched", "-c", "0", "--long-side", "90", "-o", "a.png",
             "--method" if command == "explain" else "--methods", "gradcam")  # fmt: skip
        seen.append(sys.modules[MODULE].Watched.seen[-1])
    assert seen == [(60, 90), (60, 90)]
    fixed = f"import:{MODULE}:NoLayer"
    assert "takes images of 40x40 pixels only" in refused("explain", square, "-m", fixed, "--long-side", "90")


def test_probabilities_of_a_multi_label_model(place, square):
    one, many = (
        json.loads(good("explain", square, "-m", MODEL, "--json", "-o", "a.npz", *more).stdout)["images"][0]
        for more in ((), ("--multi-label",))
    )
    logits = Explanation.load("a.npz").logits
    for entry, p in ((one, logits.softmax(0)), (many, logits.sigmoid())):
        assert [t["probability"] for t in entry["top"]] == pytest.approx(p.sort(descending=True)[0].tolist())
        assert entry["explained"][0]["probability"] == pytest.approx(float(p[entry["explained"][0]["index"]]))


def test_mean_std_and_labels(place, square):
    (place / "labels.txt").write_text("hell\ndunkel\nflecks\n", encoding="utf-8")
    result = good(
        "explain", square, "-m", MODEL, "--class-names", "labels.txt", "-c", "hell", "--mean", "0.25", "--std", "0.5",
        "-o", "a.npz", "--json",
    )  # fmt: skip
    assert json.loads(result.stdout)["images"][0]["explained"][0]["name"] == "hell"
    x, _ = Preprocess((40, 40), (0.25,) * 3, (0.5,) * 3)(Image.open(square))
    expected = camplug.load_model(MODEL)(x[None])[0].detach()
    torch.testing.assert_close(Explanation.load("a.npz").logits, expected)


def test_a_mean_and_a_deviation_per_colour(place, square):
    numbers = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    good("explain", square, "-m", MODEL, "-c", "0", *numbers, "-o", "a.npz")
    x, _ = Preprocess((40, 40), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(Image.open(square))
    torch.testing.assert_close(Explanation.load("a.npz").logits, camplug.load_model(MODEL)(x[None])[0].detach())
    assert "mean = '0.4,0.5' cannot be read; give 1 or 3 numbers separated by commas or none." in refused(
        "explain", square, "-m", MODEL, "--mean", "0.4,0.5"
    )


@pytest.mark.parametrize(
    ("encoding", "wanted"),
    [("ascii", "\\u732b"), ("cp1252", "Za\\u017c\xf3\\u0142\\u0107"), ("utf-8", "Za\u017c\xf3\u0142\u0107")],
)
def test_names_that_a_console_cannot_write(place, square, monkeypatch, encoding, wanted):
    """Characters that the encoding of a console lacks are written as numbers."""
    (place / "labels.txt").write_text("Za\u017c\xf3\u0142\u0107\n\u732b\nchat\n", encoding="utf-8")
    words = ("explain", str(square), "-m", MODEL, "--class-names", "labels.txt", "-c", "\u732b", "-o", "a.png")
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "argv", ["camplug", *words])
    with pytest.raises(SystemExit) as end:
        main()
    console.flush()
    assert end.value.code == 0
    assert wanted in console.buffer.getvalue().decode(encoding)


def test_a_checkpoint(place, square):
    saved = camplug.load_model(MODEL)
    with torch.no_grad():
        saved.fc.bias.add_(torch.tensor([5.0, 0.0, 0.0]))
    torch.save(saved.state_dict(), "c.pt")
    for more, top in (((), 1), (("--checkpoint", "c.pt"), 0)):
        entry = json.loads(good("explain", square, "-m", MODEL, "--json", *more).stdout)["images"][0]
        assert entry["top"][0]["index"] == top


def test_notes_go_to_stderr(place, square):
    result = good("explain", square, "-m", f"import:{MODULE}:Nameless", "--json")
    assert json.loads(result.stdout)["images"][0]["explained"][0]["name"] == "class 1"
    assert "Warning" not in result.stderr


# ---- every kind of photograph works

COLOURS = {(0, 0): (255, 0, 0), (0, 1): (0, 255, 0), (1, 0): (0, 0, 255), (1, 1): (255, 255, 255)}


def quarters():
    pixels = np.zeros((40, 60, 3), np.uint8)
    for (row, column), colour in COLOURS.items():
        pixels[20 * row : 20 * row + 20, 30 * column : 30 * column + 30] = colour
    return Image.fromarray(pixels)


def write_kind(kind):
    """A file of this kind, and the pixels that it shows."""
    picture, exif = quarters(), Image.Exif()
    expected = np.asarray(picture).astype(int)
    if kind == "CMYK":
        picture.convert("CMYK").save("p.jpg", quality=100, subsampling=0)
        return "p.jpg", expected
    if kind == "EXIF":
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save("p.jpg", exif=exif, quality=100, subsampling=0)
        return "p.jpg", expected
    if kind == "RGBA":
        alpha = Image.new("L", picture.size, 255)
        alpha.paste(0, (0, 0, 30, 20))
        picture.putalpha(alpha)
        expected[:20, :30] = 255
    elif kind == "16-bit":
        deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        picture = Image.fromarray(deep)
        expected = (deep // 257).astype(int)[:, :, None].repeat(3, 2)
    elif kind == "grey":
        picture = picture.convert("L")
        expected = np.asarray(picture).astype(int)[:, :, None].repeat(3, 2)
    elif kind == "palette":
        picture = picture.quantize(4)
    picture.save("p.png")
    return "p.png", expected


@pytest.mark.parametrize("kind", ["RGB", "CMYK", "RGBA", "16-bit", "grey", "EXIF", "palette"])
def test_photographs_of_every_kind_are_upright_and_in_colour(place, kind):
    path, expected = write_kind(kind)
    good("explain", path, "-m", MODEL, "-c", "bright", "-o", "a.npz")
    good("explain", path, "-m", MODEL, "-c", "bright", "-o", "a.png")
    numbers = Explanation.load("a.npz")
    assert numbers.image.size == (60, 40)
    pixels = np.asarray(numbers.image).astype(int)
    for row, column in COLOURS:
        inner = (slice(20 * row + 4, 20 * row + 16), slice(30 * column + 4, 30 * column + 26))
        assert np.abs(pixels[inner] - expected[inner]).max() <= 6
    bright = expected.mean(2) > 200  # what this model looks for
    heat = numbers.maps[0].numpy()
    assert heat[20:, 30:][4:-4, 4:-4].min() > 0.9
    assert heat[~bright].mean() < 0.1


def test_evidence_against_a_class(place, square):
    more = ("-m", MODEL, "-c", "dark spot", "--evidence", "negative")
    result = good("explain", square, *more, "--method", "gradcam", "--layers", "features", "-o", "a.npz")
    back = Explanation.load("a.npz")
    assert (back.evidence, back.title().splitlines()[0]) == ("negative", "against dark spot")
    model = camplug.load_model(MODEL)
    expected = camplug.GradCAM(model, "features", evidence="negative").explain(square, [2])
    assert torch.equal(back.maps, expected.maps)
    assert "against" in result.stdout
    document = json.loads(good("compare", square, *more, "--methods", "gradcam,eigencam", "--json").stdout)
    assert document["methods"] == ["gradcam"]
    assert "eigencam shows the same for every class" in document["refused"][0]["error"]
    assert "evidence='sum'; allowed are" in refused("explain", square, "-m", MODEL, "--evidence", "sum")


def test_a_model_of_one_channel(place, square):
    (place / f"{MODULE}_grey.py").write_text(
        OWN.replace("nn.Conv2d(3, 2, 1)", "nn.Conv2d(1, 2, 1)").replace("3, 1, 1) / 3", "1, 1, 1)")
    )
    more = ("-m", f"import:{MODULE}_grey:Bright", "-c", "0", "--method", "gradcam", "--layers", "features")
    for options in ((), ("--mean", "0", "--std", "1"), ("--long-side", "60")):
        good("explain", square, *more, *options, "-o", "a.npz")
        assert iou(Explanation.load("a.npz").mask()[0], SQUARE) > 0.8
