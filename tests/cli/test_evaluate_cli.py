"""`camplug evaluate`: every number of a report against plain loops, where thresholds come from, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import good, refused, run
from PIL import Image

import camplug
from camplug.wsss.data import Scenes
from camplug.wsss.seeds import Seed, SeedFolder

CLASSES = ["cat", "dog", "sea lion", "yak"]  # nobody has a yak
LABELS = {"1.png": ["cat"], "2.png": ["cat", "dog"], "3.png": [], "4.png": ["cat", "dog", "sea lion"], "5.png": ["dog"]}
GRID = np.arange(1, 100) / 100
SIZE = (12, 9)  # width, height


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CAMPLUG_DEBUG", raising=False)
    return tmp_path


def blurred(rng, classes):
    """Maps [K,H,W] in [0, 1], and a mask that agrees with them now and then."""
    maps = rng.random((len(classes), SIZE[1], SIZE[0])) ** 2
    best = np.concatenate([np.full((1, SIZE[1], SIZE[0]), 0.35), maps]).argmax(0)
    mask = np.array([0, *(c + 1 for c in classes)])[best].astype(np.uint8)
    other = rng.random(mask.shape)
    mask[other < 0.3] = rng.integers(0, 4, mask.shape)[other < 0.3]
    mask[other > 0.95] = 255
    return maps, mask


def make(place, name="mine", seed=0, dtype="uint8"):
    """A data set with masks, and seeds made by hand beside it."""
    rng, root = np.random.default_rng(seed), place / name
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.txt").write_text("\n".join(CLASSES))
    labels = {f"{name}{image}": names for image, names in LABELS.items()}
    (root / "labels.json").write_text(json.dumps(labels))
    folder = SeedFolder(place / f"{name}_seeds")
    folder.prepare({"explainer": "by hand", "classes": CLASSES})
    for i, (image, names) in enumerate(labels.items()):
        classes = tuple(CLASSES.index(n) for n in names)
        maps, mask = blurred(rng, classes)
        Image.new("RGB", SIZE, (seed, i, 0)).save(root / "images" / image)
        Image.fromarray(mask).save(root / "masks" / image)
        stored = np.rint(maps * 255).astype(np.uint8) if dtype == "uint8" else maps.astype(np.float16)
        folder.save(image[:-4], Seed(stored, classes, mask.shape, np.zeros(4, np.float32)))
    return root, folder


def labelled(seed, threshold):
    """The labels of a seed at a threshold, pixel by pixel."""
    values = seed.maps.astype(np.float32) / np.float32(255 if seed.maps.dtype == np.uint8 else 1)
    result = np.zeros(seed.size, int)
    for place in np.ndindex(*seed.size):
        best = np.float32(threshold)
        for c, value in zip(seed.classes, values[(slice(None), *place)], strict=True):
            if value > best:
                best, result[place] = value, c + 1
    return result


def counted(pairs):
    """The confusion matrix of (labels, mask) pairs, pixel by pixel."""
    matrix = np.zeros((5, 5), int)
    for labels, mask in pairs:
        for said, true in zip(labels.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if true != 255:
                matrix[true, said] += 1
    return matrix


def numbers(matrix):
    """Rows of IoU, precision, recall, FDR by class; None where undefined."""
    rows = []
    for c in range(5):
        hit, said, true = matrix[c, c], matrix[:, c].sum(), matrix[c].sum()
        pairs = ((hit, said + true - hit), (hit, said), (hit, true), (said - hit, said))
        rows.append([part / of if of else None for part, of in pairs])
    return rows


def mean(matrix, convention, classes):
    ious = {c: numbers(matrix)[c][0] for c in classes}
    if convention == "all":
        return sum(v or 0 for v in ious.values()) / len(ious)
    enter = [v for c, v in ious.items() if v is not None and (convention == "present" or matrix[c].sum())]
    return sum(enter) / len(enter)


def truth(root, folder):
    """(name, seed, mask) of all images."""
    names = [image[:-4] for image in json.loads((root / "labels.json").read_text())]
    return [(n, folder.load(n), np.asarray(Image.open(root / "masks" / f"{n}.png"))) for n in names]


def check(report, matrix, classes, convention="present"):
    assert [list(row.values()) for row in report["per_class"].values()] == [
        [None if v is None else pytest.approx(v, abs=1e-12) for v in row] for row in numbers(matrix)
    ]
    for name in ("present", "all", "truth"):
        assert report["miou"][name] == pytest.approx(mean(matrix, name, classes), abs=1e-12), name
    assert report["averaged_over"] == [["background", *CLASSES][c] for c in classes]
    assert report["convention"] == convention
    assert report["pixels"] == matrix.sum()


def evaluated(*arguments):
    return json.loads(good("evaluate", *arguments, "--json").stdout)


# ---- values


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("convention", ["present", "all", "truth"])
def test_every_number_of_a_report(place, dtype, convention):
    root, folder = make(place, dtype=dtype)
    images = truth(root, folder)
    report = evaluated("mine_seeds", "--data", "mine", "--convention", convention)
    sweep = [mean(counted([(labelled(seed, t), mask) for _, seed, mask in images]), convention, range(5)) for t in GRID]
    assert report["sweep"]["thresholds"] == GRID.tolist()
    assert report["sweep"]["miou"] == pytest.approx(sweep, abs=1e-12)
    best = GRID[int(np.argmax(sweep))]
    assert report["threshold"] == report["best_threshold_here"] == best
    assert report["threshold_chosen"] == "best on these very images, with their masks: optimistic"
    check(report, counted([(labelled(seed, best), mask) for _, seed, mask in images]), range(5), convention)
    assert (report["images_listed"], report["images_scored"], report["broken"]) == (5, 5, [])
    assert report["seeds"] == {"explainer": "by hand", "classes": CLASSES}
    assert report["camplug"] == camplug.__version__
    for group, names in {"0": ["3"], "1": ["1", "5"], "2": ["2"], "3": ["4"]}.items():
        part = counted([(labelled(seed, best), mask) for n, seed, mask in images if n[-1] in names])
        row = report["by_number_of_classes"][group]
        assert row == {"images": len(names), "miou": pytest.approx(mean(part, convention, range(5)), abs=1e-12)}


@pytest.mark.parametrize("threshold", [0.3, 0.333, 0.0, 0.995])
def test_a_given_threshold(place, threshold):
    root, folder = make(place)
    report = evaluated("mine_seeds", "--data", "mine", "--threshold", threshold)
    assert (report["threshold"], report["threshold_chosen"]) == (threshold, "given")
    matrix = counted([(labelled(seed, threshold), mask) for _, seed, mask in truth(root, folder)])
    check(report, matrix, range(5))
    assert len(report["sweep"]["thresholds"]) == (99 if threshold == 0.3 else 100)


def test_some_classes(place):
    root, folder = make(place)
    report = evaluated("mine_seeds", "--data", "mine", "--classes", "sea lion, cat", "--threshold", "0.4")
    matrix = counted([(labelled(seed, 0.4), mask) for _, seed, mask in truth(root, folder)])
    check(report, matrix, [0, 1, 3])
    at = report["sweep"]["thresholds"].index(0.4)
    assert report["sweep"]["miou"][at] == pytest.approx(mean(matrix, "present", [0, 1, 3]))
    assert "the data has cat, dog, sea lion, yak" in refused(
        "evaluate", "mine_seeds", "--data", "mine", "--classes", "cat,seal"
    )
    assert "--classes ','" in refused("evaluate", "mine_seeds", "--data", "mine", "--classes", ",")


def test_label_pictures(place):
    root, folder = make(place)
    pairs = []
    for n, (name, seed, mask) in enumerate(truth(root, folder)):
        labels = labelled(seed, 0.4).astype(np.uint8)
        picture = Image.fromarray(labels)
        if n % 2:  # as VOC keeps them
            picture = picture.convert("P")
            picture.putpalette([7 * i % 256 for i in range(768)])
            picture.putdata(labels.ravel().tolist())
        (place / "labels").mkdir(exist_ok=True)
        picture.save(place / "labels" / f"{name}.png")
        pairs.append((labels, mask))
    report = evaluated("labels", "--data", "mine", "-o", "r.json")
    check(report, counted(pairs), range(5))
    assert not {"threshold", "sweep", "seeds"} & report.keys()
    assert not (place / "r.png").exists()
    entered = sum(row["iou"] is not None for row in report["per_class"].values())
    in_truth = sum(row["recall"] is not None for row in report["per_class"].values())
    assert report["classes_in_mean"] == {"present": entered, "all": 5, "truth": in_truth}
    shown = good("evaluate", "labels", "--data", "mine").stdout
    assert f"mIoU over {entered} of 5 classes: {100 * report['miou']['present']:.1f} (present)" in shown
    for option in (("--threshold", "0.3"), ("--threshold-from", "r.json")):
        assert "label pictures, which have no threshold" in refused("evaluate", "labels", "--data", "mine", *option)
    assert "'r.json' is no report of `camplug evaluate` on seeds." in refused(
        "evaluate", "mine_seeds", "--data", "mine", "--threshold-from", "r.json"
    )


def test_small_seeds_are_scored_at_full_size(place):
    root, _ = make(place)
    folder = SeedFolder(place / "small")
    folder.prepare({"classes": CLASSES})
    for name, seed, _ in truth(root, SeedFolder("mine_seeds")):
        folder.save(name, Seed(seed.maps[:, ::3, ::3], seed.classes, seed.size, seed.logits))
    report = evaluated("small", "--data", "mine", "--threshold", "0.4")
    pairs = []
    for _, seed, mask in truth(root, folder):
        full = Seed(seed.to_full_size(), seed.classes, seed.size, seed.logits)
        pairs.append((labelled(full, 0.4), mask))
    check(report, counted(pairs), range(5))


# ---- what is written and printed


def test_the_classes_that_enter_a_mean_are_counted(place):
    """The mean by `present` is over the classes of the one image and the background."""
    data = Scenes(1, seed=5)
    (place / "labels").mkdir()
    Image.fromarray(data.mask(0)).save(place / "labels" / f"{data.ids[0]}.png")
    shown = good("evaluate", "labels", "--data", "scenes:1:5").stdout
    entered = len(data.labels(0)) + 1
    share = 100 * entered / (len(data.classes) + 1)
    assert f"mIoU over {entered} of {len(data.classes) + 1} classes: 100.0 (present)" in shown
    assert f"by the other conventions: {share:.1f} (all), 100.0 (truth)" in shown


def test_report_plot_and_table(place):
    make(place)
    shown = good("evaluate", "mine_seeds", "--data", "mine", "-o", "r.json").stdout
    report = json.loads((place / "r.json").read_text())
    assert report == evaluated("mine_seeds", "--data", "mine")
    picture = Image.open(place / "r.png")
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
    assert f"mine_seeds: 5 of 5 images; threshold {report['threshold']:.4g}, best on these very images" in shown
    row = next(line for line in shown.splitlines() if "sea lion" in line)
    cells = [f"{100 * v:.1f}" for v in report["per_class"]["sea lion"].values()]
    assert row.replace("│", " ").split() == ["sea", "lion", *cells]
    yak = next((line for line in shown.splitlines() if "yak" in line), "")
    assert yak.count("-") == sum(v is None for v in report["per_class"]["yak"].values())
    assert f"{100 * report['miou']['present']:.1f} (present); by the other conventions: " in shown
    assert f"{100 * report['miou']['all']:.1f} (all)" in shown
    assert "images of 1 class: " in shown
    assert "images of 3 or more classes: " in shown


def test_the_threshold_of_another_split(place):
    make(place, "train", seed=1)
    root, folder = make(place, "val", seed=2)
    chosen = evaluated("train_seeds", "--data", "train", "-o", "train.json")["best_threshold_here"]
    (place / "val_seeds" / "x").mkdir()  # what else lies there does not matter
    report = evaluated("val_seeds", "--data", "val", "--threshold-from", "train.json")
    assert report["threshold"] == chosen != report["best_threshold_here"]
    assert report["threshold_chosen"] == "best on train (train.json)"
    check(report, counted([(labelled(seed, chosen), mask) for _, seed, mask in truth(root, folder)]), range(5))
    again = evaluated("train_seeds", "--data", "train", "--threshold-from", "train.json")
    assert again["threshold_chosen"].endswith("optimistic")  # it is no other split
    edited = {**json.loads((place / "train.json").read_text()), "best_threshold_here": 1.5}
    (place / "edited.json").write_text(json.dumps(edited))
    for name, says in (
        ("edited.json", "a threshold of 1.5 is not possible; give 0 or more, and less than 1."),
        ("none.json", "'none.json' is no report of `camplug evaluate`"),
        ("val/labels.json", "is no report of `camplug evaluate`"),
    ):
        assert says in refused("evaluate", "val_seeds", "--data", "val", "--threshold-from", name)


def test_scenes(place):
    data = Scenes(3)
    folder = SeedFolder("perfect")
    folder.prepare({"classes": list(data.classes)})
    for i, name in enumerate(data.ids):
        maps = np.stack([(data.mask(i) == c + 1) for c in data.labels(i)]).astype(np.uint8) * 255
        folder.save(name, Seed(maps, data.labels(i), maps.shape[1:], np.zeros(6, np.float32)))
    report = evaluated("perfect", "--data", "scenes:3")
    assert report["miou"]["present"] == report["miou"]["truth"] == 1
    assert report["sweep"]["miou"] == [1] * 99


# ---- everything that goes wrong


def test_images_that_cannot_be_scored_are_listed(place):
    _, folder = make(place)
    whole = evaluated("mine_seeds", "--data", "mine", "--threshold", "0.4")
    folder.get_path("mine2").unlink()
    folder.get_path("mine1").write_bytes(b"hello")
    seed = folder.load("mine5")
    folder.save("mine5", Seed(seed.maps, seed.classes, (9, 13), seed.logits))
    result = run("evaluate", "mine_seeds", "--data", "mine", "--threshold", "0.4", "--json", "-o", "r.json")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    report = json.loads(result.stdout)
    assert (report["images_listed"], report["images_scored"]) == (5, 2)
    errors = {b["image"]: b["error"] for b in report["broken"]}
    assert list(errors) == ["mine1", "mine2", "mine5"]
    assert "is no seed or damaged" in errors["mine1"]
    assert "there is no seed 'mine_seeds/mine2.npz'" in errors["mine2"]
    assert "is of a photograph of (9, 13), its mask has (9, 12)" in errors["mine5"]
    assert result.stderr.count("skipped:") == 3
    assert report["pixels"] < whole["pixels"]
    for name in ("mine3", "mine4"):
        folder.get_path(name).unlink()
    assert "none of the 5 images could be scored; the first one: 'mine_seeds/mine1.npz' is no seed" in refused(
        "evaluate", "mine_seeds", "--data", "mine"
    )


def test_bad_input(place):
    root, _ = make(place)

    def says(*arguments, results="mine_seeds", data="mine"):
        return refused("evaluate", results, "--data", data, *arguments)

    assert "exclude each other" in says("--threshold", "0.3", "--threshold-from", "r.json")
    assert "threshold = 'nan' cannot be read; give a number or none." in says("--threshold", "nan")
    for value in ("1", "-0.1"):
        assert f"a threshold of {float(value):g} is not possible" in says("--threshold", value)
    assert "'mean'; allowed are present, all, truth." in says("--convention", "mean")
    assert "'r.csv': a report is a .json file." in says("-o", "r.csv")
    assert "there is no folder 'none'" in says("-o", "none/r.json")
    assert "there is no folder 'nothing'" in says(results="nothing")
    (place / "empty").mkdir()
    assert "'empty' holds neither seeds (settings.json, made by `camplug seeds`) nor label PNGs" in says(
        results="empty"
    )
    assert "'nowhere' is missing" in says(data="nowhere")
    assert "has no class 'striped disc', which the data has; classes are matched by name" in says(data="scenes:3")
    (root / "classes.txt").write_text("cat\ndog\nsea lion\nyak\nzebra")
    assert "whose classes are 'cat', 'dog', 'sea lion', 'yak', has no class 'zebra'" in says()
    (root / "masks").rename(root / "nomasks")
    assert "'mine' has no masks to compare with." in says()
    (place / "mine_seeds" / "settings.json").write_text("{")
    (root / "nomasks").rename(root / "masks")
    assert "settings.json' cannot be read" in says()
    assert not (place / "r.json").exists()


def solid(place, values, classes="crack\n", labels="crack", made=None):
    """Two photographs whose masks are two columns of values, and label pictures that say another thing."""
    for name in ("d/images", "d/masks", "made"):
        (place / name).mkdir(parents=True)
    (place / "d" / "classes.txt").write_text(classes)
    (place / "d" / "labels.csv").write_text(f"image,labels\na.png,{labels}\nb.png,{labels}\n")
    for name in "ab":
        Image.new("RGB", (4, 2)).save(place / "d/images" / f"{name}.png")
        for folder, (left, right) in (("d/masks", values), ("made", made or (0, 1))):
            picture = np.array([[left, left, right, right]] * 2, np.uint8)
            Image.fromarray(picture).save(place / folder / f"{name}.png")


def test_masks_of_0_and_255(place):
    solid(place, (0, 255))
    says = refused("evaluate", "made", "--data", "d")
    assert "'a' is labelled crack, its mask holds 0 (background), 255 (ignored)." in says
    assert "--mask-values 255=crack" in says
    report = evaluated("made", "--data", "d", "--mask-values", "255=crack")
    assert report["miou"]["present"] == 1.0
    assert evaluated("made", "--data", "d?mask_values=255=crack")["miou"] == report["miou"]
    assert evaluated("made", "--data", "d", "--mask-values", "255=ignore")["per_class"]["crack"]["iou"] is None
    assert "names 'rust'; the classes are crack" in refused(
        "evaluate", "made", "--data", "d", "--mask-values", "255=rust"
    )


def test_open_pixels_of_label_pictures(place):
    solid(place, (0, 1), made=(255, 1))
    says = refused("evaluate", "made", "--data", "d")
    assert "the labels of 'a' leave pixels open (255) that the mask counts; --ignore-as background" in says
    assert evaluated("made", "--data", "d", "--ignore-as", "background")["miou"]["present"] == 1.0
    assert "ignore_as='cat'; allowed are background or none." in refused(
        "evaluate", "made", "--data", "d", "--ignore-as", "cat"
    )
    make(place)
    says = refused("evaluate", "mine_seeds", "--data", "mine", "--ignore-as", "background")
    assert "holds seeds, which leave no pixel open" in says


def test_a_class_name_with_a_comma(place):
    solid(place, (0, 2), classes="cat\ncrack, wide\n", labels='"crack, wide"', made=(0, 2))
    for given in (("crack, wide",), ("cat", "--classes", "crack, wide")):
        report = evaluated("made", "--data", "d", "--classes", *given)
        assert report["averaged_over"][-1] == "crack, wide"
        assert report["miou"]["present"] == 1.0
    assert "a name with commas takes an option --classes of its own" in refused(
        "evaluate", "made", "--data", "d", "--classes", "crack"
    )


def test_a_missing_mask_is_listed_also_where_values_are_said(place):
    solid(place, (0, 255))
    (place / "d/masks/b.png").unlink()
    done = run("evaluate", "made", "--data", "d", "--mask-values", "255=crack")
    assert done.exit_code == 1
    assert "there is no mask 'd/masks/b.png'" in done.stderr
