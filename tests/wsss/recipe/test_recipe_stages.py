"""Which stages there are, what each depends on, and what is made again after a change."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
from edited import relabel, write_data, write_labels
from PIL import Image
from recipes import SCENES, keys, open_stages, tiny, voc_tree

from camplug.errors import InputError
from camplug.wsss.recipe import list_stages, make_recipe
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import ImageList, View, spread_indices
from camplug.wsss.recipe.run import open_list
from camplug.wsss.recipe.stages import get_stage
from camplug.wsss.store.identity import make_digest

NAMES = [
    "classifier",
    "seeds train",
    "seeds val",
    "seeds threshold",
    "cut seeds",
    "evaluate seeds train",
    "evaluate seeds val",
    "affinities",
    "maps train",
    "maps val",
    "maps threshold",
    "choose maps threshold",
    "evaluate maps train",
    "evaluate maps val",
    "labels train",
    "labels val",
    "evaluate labels train",
    "evaluate labels val",
    "deeplab",
    "predictions val",
    "evaluate predictions val",
    "predictions crf val",
    "evaluate predictions crf val",
]


def test_the_road():
    assert list(keys(tiny())) == NAMES


def test_without_refinement_deeplab_and_val_the_road_is_short():
    short = tiny(
        refine=None, deeplab=None, pseudo_labels={"threshold": 0.3, "crf": "none"}, evaluate={"products_on": ["train"]}
    )
    assert list(keys(short)) == [
        "classifier",
        "seeds train",
        "evaluate seeds train",
        "labels train",
        "evaluate labels train",
    ]


def test_a_walk_without_training_has_no_network():
    recipe = make_recipe({**tiny().text, "refine": {"kind": "colour", "walk": {"steps": 8}, "scale": 0.5}})
    stages = open_stages(recipe)
    assert [name for name in NAMES if name not in stages] == ["affinities"]
    maps = stages["maps val"]
    assert dict(maps.inputs) == {"seeds": stages["seeds val"]}
    assert maps.settings["walk"] == {"beta": 30.0, "steps": 8, "power": 1.0}
    assert (maps.settings["kind"], maps.settings["scale"]) == ("colour", 0.5)


def test_one_threshold_without_masks_for_all_lists():
    stages = open_stages(tiny(pseudo_labels={"threshold": "otsu"}))
    cut = stages["cut maps"]
    assert (cut.part, cut.scores, dict(cut.inputs)) == ("train", False, {"maps": stages["maps train"]})
    for name in ("labels train", "labels val", "evaluate maps train", "evaluate maps val"):
        assert stages[name].inputs["choice"] is cut
    assert not [name for name in stages if name.startswith("choose")]


def changed_by(**changes):
    before, after = keys(tiny()), keys(tiny(**changes))
    assert before.keys() == after.keys()
    return [name for name in before if before[name] != after[name]]


FROM_SEEDS = [name for name in NAMES if name != "classifier"]
FROM_DEEPLAB = NAMES[NAMES.index("deeplab") :]


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, []),
        ({"title": "another"}, []),
        ({"deeplab": {"lr": 0.002}}, FROM_DEEPLAB),
        ({"seeds": {"explainer": "MultiView(GradCAM, scales=(1,))"}}, FROM_SEEDS),
        ({"classifier": {"train": {"model": "import:trainable:net", "epochs": 3}}}, NAMES),
        ({"segment": {"crf": "irn"}}, NAMES[-2:]),
        ({"segment": {"crf": "par"}}, NAMES[-2:]),
        ({"segment": {"flip": True}}, NAMES[-4:]),
        ({"refine": {"walk": {"steps": 16}}}, NAMES[NAMES.index("maps train") :]),
        ({"pseudo_labels": {"crf": "par"}}, [n for n in NAMES if "labels" in n] + FROM_DEEPLAB),
        ({"pseudo_labels": {"crf": "affinitynet"}}, [n for n in NAMES if "labels" in n] + FROM_DEEPLAB),
        ({"evaluate": {"classes": ["striped disc"]}}, None),
    ],
)
def test_only_what_depends_on_a_change_is_made_again(changes, again):
    if "title" in changes:
        assert keys(make_recipe({**dict(tiny().text), "title": "another"})) == keys(tiny())
        return
    found = changed_by(**changes)
    if again is None:  # the threshold is chosen by the mean over other classes
        again = [n for n in NAMES if n.startswith(("evaluate", "choose"))]
        again += ["labels train", "labels val", *FROM_DEEPLAB]
        assert sorted(set(again)) == sorted(found)
    else:
        assert found == again


def test_other_images_are_other_stages_and_a_moved_folder_is_not(tmp_path):
    before = keys(tiny())
    other = tiny(data={"val": {"data": "scenes:5:1", "options": SCENES}})
    found = [name for name, key in keys(other).items() if key != before[name]]
    assert found == [name for name in NAMES if name.endswith("val")]
    sizes = tiny(data={"val": {"data": "scenes:4:1", "options": {**SCENES, "size": [48, 48]}}})
    assert keys(sizes)["seeds val"] != before["seeds val"]
    roots = [voc_tree(tmp_path / name) for name in "ab"]
    two = []
    for root in roots:
        of = {"train": "train", "val": "val", "threshold": "val"}
        parts = {name: {"data": f"voc:{root}", "split": split} for name, split in of.items()}
        two.append(keys(tiny(data=parts, pseudo_labels={"threshold": 0.3})))
    assert two[0] == two[1]


def test_the_hash_by_hand(tmp_path):
    recipe = tiny()
    data = {name: part.open() for name, part in recipe.data.items()}
    cache = Cache(tmp_path, data)
    stages = {stage.name: stage for stage in list_stages(recipe, data)}
    names = "\n".join(f"scene0_{i:06d}" for i in range(8))
    train = data["train"]
    photographs, labels = ([digest(i) for i in range(8)] for digest in (train.photo_digest, train.label_digest))
    document = {
        "stage": "seeds train",
        "version": get_stage("seeds").version,
        "settings": {"explainer": "MultiView(CAM, scales=(1,))", "long_side": 64, "dtype": "uint8", "scale": 1.0},
        "inputs": {"network": cache.get_key(stages["classifier"])},
        "data": [
            {
                "list_sha256": hashlib.sha256(names.encode()).hexdigest()[:16],
                "classes": make_digest(list(train.classes)),
                "photographs": make_digest(photographs),
                "labels": make_digest(labels),
            }
        ],
        "saliency": None,
        "files": [],
    }
    key = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert cache.get_key(stages["seeds train"]) == key
    assert cache.get_folder(stages["seeds train"]) == tmp_path / "cache" / f"seeds-train-{key[:12]}"


def test_weights_are_known_by_their_content(tmp_path):
    weights = tmp_path / "net.pt"

    def given():
        classifier = {"given": {"model": "demo", "checkpoint": str(weights)}}
        return keys(make_recipe({**dict(tiny().text), "classifier": classifier}))

    assert given()["seeds train"] is None  # not there: nothing can be said
    weights.write_bytes(b"one")
    one = given()
    weights.write_bytes(b"two")
    assert one["seeds train"] is not None
    assert given()["seeds train"] != one["seeds train"]


def test_products_of_a_sublist_are_those_of_train(tmp_path):
    root = voc_tree(tmp_path)
    part = {"data": f"voc:{root}"}
    sections = dict(tiny().text)
    sections["data"] = {
        "train": {**part, "split": "train_aug"},
        "score_on": {**part, "split": "train"},
        "val": {**part, "split": "val"},
    }
    sections["pseudo_labels"] = {"threshold": "best on score_on", "optimistic": True}
    sections["evaluate"] = {"pictures": 0}
    recipe = make_recipe(sections)
    data = {name: one.open() for name, one in recipe.data.items()}
    stages = {stage.name: stage for stage in list_stages(recipe, data)}
    assert "seeds score_on" not in stages
    assert stages["choose maps score_on"].inputs["product"] is stages["maps train"]
    assert stages["choose maps score_on"].part == stages["evaluate seeds train"].part == "score_on"
    sections["pseudo_labels"] = {"threshold": "best on score_on"}
    with pytest.raises(InputError, match=r"8 of these images are reported in data\.score_on.*optimistic: true"):
        list_stages(make_recipe(sections), data)


def test_a_threshold_needs_masks(tmp_path):
    root = voc_tree(tmp_path)
    for file in (root / "SegmentationClass").iterdir():
        file.unlink()
    (root / "SegmentationClass").rmdir()
    sections = dict(tiny().text)
    sections["data"] = {
        "train": {"data": f"voc:{root}", "split": "train"},
        "threshold": {"data": f"voc:{root}", "split": "val"},
    }
    sections["evaluate"] = {}
    recipe = make_recipe(sections)
    data = {name: one.open() for name, one in recipe.data.items()}
    with pytest.raises(InputError, match=r"data\.threshold has no masks to choose on"):
        list_stages(recipe, data)


def test_a_view_keeps_its_masks_to_itself():
    data = ImageList("scenes:6:0", options=SCENES).open()
    closed = View(data, masks=False, indices=[1, 4])
    assert closed.ids == (data.ids[1], data.ids[4])
    assert closed.labels(1) == data.labels(4)
    assert not closed.has_masks
    with pytest.raises(InputError, match="masks are opened by stages that score"):
        closed.mask(0)
    assert (View(data, masks=True).mask(2) == data.mask(2)).all()
    assert spread_indices(9, 3) == [1, 4, 7]


def test_labels_from_masks_are_refused(tmp_path):
    part = ImageList(f"voc:{voc_tree(tmp_path)}", "train", {"labels": "masks"})
    with pytest.raises(InputError, match="would open masks to learn from"):
        part.open()


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"data.train.data names \$\{NOWHERE\}, which is not set; .*--data-root"):
        open_list("train", ImageList("voc:${NOWHERE}"))
    with pytest.raises(InputError, match=r"data.val: '.*none' is missing; give the data set's folder"):
        open_list("val", ImageList(f"voc:{tmp_path}/none"))
    with pytest.raises(InputError, match="options of 'scenes:3' cannot be used"):
        ImageList("scenes:3", options={"colour": 1}).open()


def of_folders(train, threshold="other", **changes):
    parts = {name: {"data": f"folder:{place}"} for name, place in (("train", train), ("threshold", threshold))}
    return tiny(data={**parts, "val": {"data": "folder:val"}}, evaluate={"products_on": ["train"]}, **changes)


def edits_change(recipe, edit):
    before = keys(recipe)
    edit()
    return {name for name, key in keys(recipe).items() if key != before[name]}


def test_images_are_known_by_their_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, other = tmp_path / "own", tmp_path / "other"
    write_data(own)
    write_data(other, seed=1)  # the same names and classes
    write_data(tmp_path / "val", seed=2)
    recipe = of_folders("own")
    assert not {k: v for k, v in keys(recipe).items() if keys(of_folders("other", "own")).get(k) == v}
    shutil.copytree(own, tmp_path / "moved")
    assert keys(of_folders("moved")) == keys(recipe)

    def mask_of(root):
        Image.fromarray(np.full((24, 32), 2, np.uint8)).save(root / "masks" / "s1.png")

    scored = {n for n in keys(recipe) if n.startswith("evaluate") and not n.endswith("val")}
    assert edits_change(recipe, lambda: mask_of(own)) == scored
    choosing = {n for n in keys(recipe) if n.startswith("choose")}
    changed = edits_change(recipe, lambda: mask_of(other))
    assert choosing < changed
    assert not {n for n in changed if n.startswith(("classifier", "seeds", "affinities", "maps"))}
    assert edits_change(recipe, lambda: relabel(own, "s0.png", ["yak", "dog"])) == set(keys(recipe))


def test_a_threshold_is_not_chosen_on_what_is_reported_under_another_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "own")
    write_data(tmp_path / "other", seed=1)
    write_data(tmp_path / "val", seed=2)
    renamed = tmp_path / "renamed"
    shutil.copytree(tmp_path / "own", renamed)
    for i in range(4):
        for part in ("images", "masks"):
            (renamed / part / f"s{i}.png").rename(renamed / part / f"t{i}.png")
    labels = json.loads((renamed / "labels.json").read_text())
    write_labels(renamed, {name.replace("s", "t"): names for name, names in labels.items()})
    keys(of_folders("own"))  # equal names are no reason
    with pytest.raises(InputError, match=r"4 of these images are reported in data\.train"):
        keys(of_folders("own", "renamed"))
