"""A tiny recipe on drawn scenes, a VOC tree of twenty images, and the paper recipes' sizes brought down to it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from PIL import Image

from camplug.wsss.data import VOC_CLASSES, Scenes, make_voc_palette
from camplug.wsss.recipe import list_stages, make_recipe
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.train.progress import ProgressCallback

SCENES = {"size": [48, 64], "classes": 3, "plain": 0.25}
NET = "import:trainable:net"
TINY = {
    "title": "tiny",
    "data": {
        "train": {"data": "scenes:8:0", "options": SCENES},
        "val": {"data": "scenes:4:1", "options": SCENES},
        "threshold": {"data": "scenes:4:2", "options": SCENES},
    },
    "classifier": {
        "train": {
            "model": NET,
            "preset": "modern",
            "batch_norm": "train",
            "epochs": 2,
            "batch": 4,
            "crop": 48,
            "sides": [48, 64],
        }
    },
    "seeds": {"explainer": "MultiView(CAM, scales=(1,))", "long_side": 64, "threshold": "otsu"},
    "refine": {
        "kind": "irn",
        "training": {
            "foreground": "otsu",
            "epochs": 1,
            "batch": 4,
            "crop": 32,
            "width": 0,
            "radius": 3,
            "crf": "none",
            "lr": 0.01,
        },
        "walk": {"steps": 8},
    },
    "pseudo_labels": {"threshold": "best on threshold", "crf": "irn"},
    "deeplab": {"epochs": 2, "batch": 4, "crop": 32, "output_stride": "none", "lr": 0.001},
    "segment": {"crf": "deeplab"},
    "evaluate": {"products_on": ["train", "val"], "pictures": 2},
}
# the paper recipes at a size for tests: a tiny network, crops of 32 pixels
SMALL = {
    "classifier.train": {"model": NET, "output_stride": None, "epochs": 1, "batch": 4, "crop": 32, "sides": [40, 48]},
    "seeds": {"long_side": 48},
    "refine": {"backbone": {"model": NET}},
    "refine.training": {"epochs": 1, "batch": 4, "crop": 32},
    "refine.walk": {"steps": 8},
    "deeplab": {
        "backbone": {"model": NET},
        "epochs": 1,
        "batch": 4,
        "accumulate": 1,
        "crop": 32,
        "long_side": 48,
        "output_stride": None,
        "width": 8,
    },
    "evaluate": {"pictures": 2, "classes": ["cat", "dog", "person"]},
}


def tiny(**changes):
    """The tiny recipe with settings in place of its own: tiny(seeds={"explainer": "CAM"})."""
    sections = copy.deepcopy(TINY)
    for name, section in changes.items():
        if section is None:
            sections.pop(name)
        else:
            sections[name] = {**sections.get(name, {}), **section}
    return make_recipe(sections)


def open_stages(recipe):
    """All stages of a recipe by name."""
    data = {name: part.open() for name, part in recipe.data.items()}
    return {stage.name: stage for stage in list_stages(recipe, data)}


def keys(recipe):
    """The keys under which the results of all stages are kept, by name."""
    cache = Cache(Path(), {name: part.open() for name, part in recipe.data.items()})
    return {name: cache.get_key(stage) for name, stage in open_stages(recipe).items()}


class Heard(ProgressCallback):
    """Keeps what it is told, and stops a run at the n-th step of a stage."""

    def __init__(self, stop: str | None = None, step: int = 2) -> None:
        self.lines: list[str] = []
        self.stop, self.left = stop, step

    def steps(self, what, total):
        from contextlib import contextmanager

        @contextmanager
        def counted():
            def step():
                if what == self.stop:
                    self.left -= 1
                    if self.left == 0:
                        raise KeyboardInterrupt

            yield step

        return counted()

    def done(self, text):
        self.lines.append(text)

    @property
    def ran(self) -> list[str]:
        """The stages that were run."""
        return [line.partition("] ")[2].removesuffix(" ...") for line in self.lines if line.endswith(" ...")]


def voc_tree(folder: Path) -> Path:
    """Twenty scenes as VOC: 14 of train_aug, 8 of them train, and 6 of val; their classes are cat, dog and person."""
    root = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    scenes = Scenes(20, (36, 48), seed=3, classes=3, plain=0.25)
    classes = [VOC_CLASSES.index(name) for name in ("cat", "dog", "person")]
    names = [f"2012_{i:06d}" for i in range(20)]
    for i, name in enumerate(names):
        scenes.photo(i).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        objects = "".join(f"<object><name>{VOC_CLASSES[classes[c]]}</name></object>" for c in scenes.labels(i))
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        values = np.array([0, *(c + 1 for c in classes)], np.uint8)[scenes.mask(i)]
        picture = Image.fromarray(values)
        picture.putpalette(make_voc_palette().tobytes())
        picture.save(root / "SegmentationClass" / f"{name}.png")
    lists = {"train_aug": names[:14], "train": names[:8], "val": names[14:]}
    for name, ids in lists.items():
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
    return root
