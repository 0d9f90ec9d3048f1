"""`camplug train deeplab` and `camplug segment`: from label pictures to scored predictions, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import good, refused, run
from PIL import Image

import camplug
from camplug.show.labels import overlay_labels
from camplug.wsss.data import open_data
from camplug.wsss.deeplab import Segmenter, load_deeplab
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.seeds.predicted_labels import PredictedLabels

MODEL = ["--model", "timm:resnet10t", "--num-classes", "3"]
TRAIN = [
    *("--data", "scenes:8", "--epochs", "1", "--batch", "4", "--crop", "64", "--scales", "0.75,1"),
    *("--lr", "0.001", "--device", "cpu"),
]

pytestmark = pytest.mark.filterwarnings("ignore:.*self.log.*")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Labels, and the state dict of a network to begin with."""
    import timm

    root = tmp_path_factory.mktemp("deeplab")
    data = open_data("scenes:8", None)
    folder = LabelFolder(root / "labels")
    folder.prepare({"classes": list(data.classes)})
    for i, name in enumerate(data.ids):
        folder.save(name, data.mask(i))
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), root / "start.pth")
    return root


def train(place, out, *more):
    given = [place / "labels", *TRAIN, *MODEL, "--checkpoint", place / "start.pth", "--out", out]
    return "train", "deeplab", *given, *more


@pytest.fixture(scope="module")
def trained(place):
    said = good(*train(place, place / "net", "--json"))
    return json.loads(said.stdout)


def test_from_labels_to_a_score(place, trained, tmp_path):
    assert trained["file"] == str(place / "net" / "deeplab.pt")
    assert (trained["images"], trained["broken"]) == (8, [])
    assert trained["losses"]["loss"] > 0
    again = good(*train(place, place / "net"))
    assert again.stdout == f"{place / 'net' / 'deeplab.pt'} was there\n"
    given = ["--weights", trained["file"], "--data", "scenes:3", "--device", "cpu", "--out", tmp_path / "p"]
    said = json.loads(good("segment", *given, "--scales", "0.75,1", "--flip", "--json").stdout)
    assert (said["made"], said["found"], said["broken"]) == (3, 0, [])
    settings = json.loads((tmp_path / "p" / "settings.json").read_text())
    assert settings["scales"] == [0.75, 1.0]
    assert settings["flip"] is True
    assert settings["holds"] == "labels"
    said = good("segment", *given, "--scales", "0.75,1", "--flip")
    assert "0 labels made, 3 were there" in said.stdout
    assert "of other settings: flip differs" in refused("segment", *given, "--scales", "0.75,1")
    assert "of other settings: labels" in refused(
        "segment", *given, "--scales", "0.75,1", "--flip", "--labels", "given"
    )
    report = json.loads(good("evaluate", tmp_path / "p", "--data", "scenes:3", "--json").stdout)
    assert report["images_listed"] == 3


def test_shares_make_what_one_process_makes(trained, tmp_path, monkeypatch):
    given = ["--weights", trained["file"], "--data", "scenes:5", "--device", "cpu", "--crf", "deeplab"]
    good("segment", *given, "--out", tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        said = json.loads(good("segment", *given, "--out", tmp_path / "two", "--json").stdout)
        assert (said["shard"], said["made"]) == ([int(rank), 2], 3 - int(rank))
    names = open_data("scenes:5", None).ids
    one, two = (LabelFolder(tmp_path / part) for part in ("one", "two"))
    assert all(np.array_equal(one.get_path(n).read_bytes(), two.get_path(n).read_bytes()) for n in names)


def test_validation_is_what_evaluate_says(place, tmp_path):
    said = json.loads(good(*train(place, tmp_path / "net", "--validation", "scenes:4:1", "--json")).stdout)
    given = ["--weights", said["file"], "--data", "scenes:4:1", "--device", "cpu", "--out", tmp_path / "p"]
    good("segment", *given)
    report = json.loads(good("evaluate", tmp_path / "p", "--data", "scenes:4:1", "--json").stdout)
    assert said["losses"]["validation_miou"] == pytest.approx(report["miou"]["present"], abs=1e-6)


def test_a_file_of_options(place, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("head: v3+\nwidth: 8\nloss_scales: [1, 0.5]\nloss: balanced\noutput_stride: none\ncut: 8\n")
    good(*train(place, tmp_path / "net", "--config", file))
    told = json.loads((tmp_path / "net" / "settings.json").read_text())
    assert (told["learning"]["head"], told["learning"]["loss_scales"], told["learning"]["cut"]) == ("v3+", [1, 0.5], 8)
    assert told["network"]["output_stride"] is None
    file.write_text("scales: [1, 1.5]\nflip: true\nfuse: max\nlong_side: 64\n")
    weights = tmp_path / "net" / "deeplab.pt"
    good("segment", "-w", weights, "--data", "scenes:1", "--config", file, "-o", tmp_path / "p", "--device", "cpu")
    told = json.loads((tmp_path / "p" / "settings.json").read_text())
    assert (told["scales"], told["flip"], told["fuse"], told["long_side"]) == ([1.0, 1.5], True, "max", 64)


def test_on_a_trained_classifier(place, tmp_path):
    start = [*MODEL, "--checkpoint", place / "start.pth", "--out", tmp_path / "classifier", "--device", "cpu"]
    good("train", "classifier", "--data", "scenes:8", *start, "--epochs", "1", "--batch", "4", "--crop", "64")
    given = [place / "labels", *TRAIN, "--out", tmp_path / "net", "--refinement", "0.08", "--saliency", "contrast"]
    said = good("train", "deeplab", *given, "--model", tmp_path / "classifier" / "classifier.pt")
    assert "DeepLab with the head aspp for 6 classes" in said.stdout
    network = tmp_path / "net" / "deeplab.pt"
    made = torch.load(network, weights_only=True)
    assert (made["format"], made["made_with"]) == (
        "camplug deeplab 1",
        {"model": "timm:resnet10t", "num_classes": 3},
    )
    good("segment", "-w", network, "--data", "scenes:1", "-o", tmp_path / "p", "--device", "cpu")


def test_images_without_labels_are_listed(place, tmp_path):
    given = [place / "labels", *TRAIN, *MODEL, "--checkpoint", place / "start.pth", "--out", tmp_path / "net"]
    given[given.index("scenes:8")] = "scenes:9"
    said = run("train", "deeplab", *given)
    assert said.exit_code == 1
    assert said.stderr.startswith("skipped: there are no labels")
    assert (tmp_path / "net" / "deeplab.pt").exists()


def test_none_and_numbers_of_a_crf(place, tmp_path):
    good(*train(place, tmp_path / "net", "--output-stride", "none"))
    assert load_deeplab(tmp_path / "net" / "deeplab.pt").output_stride is None
    on = ("--weights", tmp_path / "net" / "deeplab.pt", "--data", "scenes:2")
    crf = ("--crf", "irn", "--crf-bilateral", "67,3,4", "--crf-gaussian", "1,3")
    good("segment", *on, *crf, "--out", tmp_path / "a")
    good("segment", *on, "--crf", "deeplab", "--out", tmp_path / "b")
    pictures = [sorted((tmp_path / name).glob("*.png")) for name in "ab"]
    assert len(pictures[0]) == 2
    assert [p.read_bytes() for p in pictures[0]] == [p.read_bytes() for p in pictures[1]]


def test_what_training_refuses(place, tmp_path):
    assert "the folder of labels is missing" in refused("train", "deeplab", "--data", "scenes:8")
    assert "--data is missing" in refused("train", "deeplab", place / "labels")
    assert "there is no folder of labels" in refused(
        *(a if a != place / "labels" else tmp_path / "no" for a in train(place, tmp_path / "net"))
    )
    assert "head='fcn'; allowed are" in refused(*train(place, tmp_path / "net", "--head", "fcn"))
    assert "give 2 numbers separated by commas" in refused(*train(place, tmp_path / "net", "--scales", "1"))
    assert "--workers -1; give 0 or more." in refused(*train(place, tmp_path / "net", "--workers", "-1"))
    assert "refinement without saliency" in refused(*train(place, tmp_path / "net", "--refinement", "0.1"))
    assert "num_classes = 0; give at least 1." in refused(
        "train", "deeplab", place / "labels", *TRAIN, "--config", _written(tmp_path, "num_classes: 0")
    )
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "settings.json").write_text('{"classes": ["cat"]}')
    assert "the folder of labels, whose other classes are 'cat', has no class 'striped disc'" in refused(
        "train", "deeplab", tmp_path / "labels", *TRAIN, *MODEL
    )


def _written(folder, text):
    (folder / "options.yaml").write_text(text + "\n")
    return folder / "options.yaml"


def test_what_segmenting_refuses(trained, tmp_path):
    weights = ["--weights", trained["file"]]
    on = ["--data", "scenes:1", "--device", "cpu", "--out", tmp_path / "p"]
    assert "--weights is missing" in refused("segment", *on)
    assert "give either photographs, as in camplug segment a.jpg b.jpg, or --data" in refused("segment", *weights)
    assert "there is no file 'none.pt'; `camplug train deeplab` makes it." in refused("segment", "-w", "none.pt", *on)
    assert "scales = 'a,b' cannot be read" in refused("segment", *weights, *on, "--scales", "a,b")
    assert "give factors above 0" in refused("segment", *weights, *on, "--scales", "0")
    assert "fuse='sum'; allowed are mean, max." in refused("segment", *weights, *on, "--fuse", "sum")
    assert "--crf 'x'; allowed are" in refused("segment", *weights, *on, "--crf", "x")
    assert "labels='some'; allowed are none, given, predicted." in refused("segment", *weights, *on, "--labels", "some")
    assert "go together" in refused("segment", *weights, *on, "--labels", "predicted")
    assert "go together" in refused("segment", *weights, *on, "--classifier", "demo")
    assert "--probability has no effect" in refused("segment", *weights, *on, "--probability", "0.3")
    other = ["--data", "scenes:1", "--device", "nowhere", "--out", tmp_path / "p"]
    assert "the device 'nowhere' is not available here" in refused("segment", *weights, *other)


def test_classes_that_a_classifier_finds(place, trained, tmp_path):
    start = [*MODEL, "--checkpoint", place / "start.pth", "--out", tmp_path / "net", "--device", "cpu"]
    span = ["--epochs", "1", "--batch", "4", "--crop", "32", "--sides", "32,32"]
    good("train", "classifier", "--data", "scenes:8", *start, *span)
    classifier = tmp_path / "net" / "classifier.pt"
    on = ["--weights", trained["file"], "--data", "scenes:4:1", "--device", "cpu", "--out", tmp_path / "p"]
    said = good("segment", *on, "--labels", "predicted", "--classifier", classifier, "--json")
    assert json.loads(said.stdout)["made"] == 4
    data, explainer = open_data("scenes:4:1", None), camplug.GradCAM(camplug.load_model(str(classifier)))
    predicted = PredictedLabels(data, explainer)
    network = Segmenter(load_deeplab(trained["file"]))
    for i, name in enumerate(data.ids):
        wanted = network(np.asarray(data.photo(i)), predicted.labels(i))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p" / f"{name}.png")), wanted)
    again = ("segment", *on, "--labels", "predicted", "--classifier", classifier)
    assert "4 were there" in good(*again).stdout
    assert "of other settings" in refused(*again, "--probability", "0.1")
    assert "of other settings" in refused("segment", *on, "--labels", "given")


def test_photographs_without_labels_are_segmented(trained, tmp_path):
    data = open_data("scenes:3", None)
    (tmp_path / "shots" / "day.1").mkdir(parents=True)
    data.photo(0).save(tmp_path / "shots" / "day.1" / "a.png")
    data.photo(1).save(tmp_path / "shots" / "b.PNG")
    data.photo(2).save(tmp_path / "c.png")
    given = ["--weights", trained["file"], "--device", "cpu", "--json", "--out"]
    good("segment", *given, tmp_path / "truth", "--data", "scenes:3")
    for out, how in (("x", [tmp_path / "shots", tmp_path / "c.png"]), ("y", ["--data", tmp_path / "shots"])):
        said = json.loads(good("segment", *how, *given, tmp_path / out).stdout)
        assert (said["made"], said["broken"]) == (2 if out == "y" else 3, [])
        for name, i in (("day.1/a", 0), ("b", 1)):
            picture = Image.open(tmp_path / out / f"{name}.png")
            assert np.array_equal(picture, Image.open(tmp_path / "truth" / f"{data.ids[i]}.png"))
    overlays = tmp_path / "overlays"
    one = json.loads(good("segment", tmp_path / "c*.png", *given, tmp_path / "z", "--overlays", overlays).stdout)
    assert one["made"] == 1
    labels = np.array(Image.open(tmp_path / "z" / "c.png"))
    drawn = overlay_labels(np.asarray(data.photo(2)), labels, data.classes)
    assert np.array_equal(Image.open(overlays / "c.png"), drawn)
    first = (overlays / "c.png").stat()
    good("segment", tmp_path / "c.png", *given, tmp_path / "z", "--overlays", overlays)
    assert (overlays / "c.png").stat().st_ino == first.st_ino  # made before
    good("segment", tmp_path / "c.png", *given, tmp_path / "z2", "--scales", "0.5", "--overlays", overlays)
    labels = np.array(Image.open(tmp_path / "z2" / "c.png"))
    drawn = overlay_labels(np.asarray(data.photo(2)), labels, data.classes)
    assert np.array_equal(Image.open(overlays / "c.png"), drawn)  # of other labels
    inside = refused("segment", tmp_path / "c.png", *given, tmp_path / "z", "--overlays", tmp_path / "z" / "o")
    assert "lies in the folder of the label pictures" in inside
    assert "there is no file or folder" in refused("segment", tmp_path / "n*.png", *given, tmp_path / "z")
    settings = json.loads((tmp_path / "z" / "settings.json").read_text())
    assert settings["classes"] == list(data.classes)
    says = refused("segment", tmp_path / "c.png", *given, tmp_path / "w", "--labels", "given")
    assert "--labels given needs image labels, and the data has none" in says
    assert "give either photographs" in refused("segment", *given, tmp_path / "w")
    assert "give either photographs" in refused("segment", tmp_path / "c.png", "--data", "scenes:2", *given, tmp_path)
    assert "has no effect on photographs" in refused("segment", tmp_path / "c.png", *given, tmp_path, "--split", "val")
    assert "there is no file or folder 'none.jpg'" in refused("segment", "none.jpg", *given, tmp_path / "w")


def test_no_photograph_is_replaced_or_removed(trained, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    data = open_data("scenes:2", None)
    for i in range(2):
        data.photo(i).save(photos / f"{i}.png")
    before = {file: file.read_bytes() for file in photos.glob("*.png")}
    given = ["--weights", trained["file"], "--device", "cpu", "--out"]
    assert "does not replace it; give another --out" in refused("segment", photos, *given, photos)
    said = refused("segment", photos, *given, tmp_path / "p", "--overlays", photos)
    assert "is no overlay that camplug has made" in said
    (tmp_path / "all" / "photos").mkdir(parents=True)
    (photos / "0.png").rename(tmp_path / "all" / "photos" / "0.png")
    (photos / "1.png").rename(tmp_path / "all" / "photos" / "1.png")
    good("segment", tmp_path / "all" / "photos", *given, tmp_path / "all")
    good("segment", tmp_path / "all" / "photos", *given, tmp_path / "all", "--scales", "0.5", "--overwrite")
    assert {(photos / f.name): f.read_bytes() for f in (tmp_path / "all" / "photos").glob("*.png")} == before
    assert len(list((tmp_path / "all").glob("*.png"))) == 2


def test_an_unreadable_photograph_has_no_overlay_and_stops_nothing(trained, tmp_path):
    data = open_data("scenes:2", None)
    for i in range(2):
        data.photo(i).save(tmp_path / f"{i}.png")
    given = ["segment", tmp_path / "*.png", "--weights", trained["file"], "--device", "cpu", "--out", tmp_path / "p"]
    good(*given)
    (tmp_path / "0.png").write_bytes(b"damaged")
    ended = run(*given, "--overlays", tmp_path / "overlays", "--json")
    assert ended.exit_code == 1
    assert json.loads(ended.stdout)["broken"][0]["image"] == "0"
    assert "there is no overlay of 0" in ended.stderr
    assert (tmp_path / "overlays" / "1.png").is_file()
