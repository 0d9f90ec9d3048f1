# %% [markdown]
# # From photographs with labels to a segmentation network
# A folder of photographs and a table of what each shows are enough. `camplug wsss init photos` writes a recipe for
# them and `camplug wsss run` runs it; here is the same in Python, with drawn pictures, a small network and few
# epochs, to be over in seconds.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

from camplug.wsss.data import Folder

rng, photos = np.random.default_rng(0), Path("photos")
(photos / "images").mkdir(parents=True)
colours = {"lemon": (220, 200, 60), "plum": (70, 50, 180)}


def draw(names):
    """Return a grey, noisy picture with a square for each name."""
    picture = rng.normal(128, 12, (64, 96, 3))
    for place, name in zip(rng.permutation([4, 36, 68])[: len(names)], names, strict=True):
        top, side = rng.integers(4, 30), rng.integers(20, 28)
        picture[top : top + side, place : place + side] += np.array(colours[name]) - 128
    return picture.clip(0, 255).astype(np.uint8)


rows = ["image,labels"]
for i in range(24):
    names = [["lemon"], ["plum"], ["lemon", "plum"], []][i % 4]
    Image.fromarray(draw(names)).save(photos / "images" / f"{i:02}.png")
    rows.append(f"{i:02}.png,{';'.join(names)}")
(photos / "labels.csv").write_text("\n".join(rows) + "\n")
print("\n".join(rows[:5]))

# %%
Folder(photos)

# %% [markdown]
# The recipe: a classifier is trained on the image labels, its maps are seeds, they are cut where Otsu's method
# separates their values, and a segmentation network is trained on these pseudo-labels. There are no masks, so nothing
# is scored.

# %%
from camplug.wsss.recipe import make_recipe, run_recipe

training = {"batch": 8, "crop": 64, "sides": [64, 96]}
network = "import:camplug.wsss.recipe.small_network:SmallNetwork"
recipe = make_recipe(
    {
        "data": {"train": {"data": f"folder:{photos}"}},
        "classifier": {
            "train": {"model": network, "preset": "modern", "batch_norm": "train", "epochs": 16, **training}
        },
        "seeds": {"explainer": "MultiView(LayerCAM, scales=(1, 2))", "long_side": 96},
        "pseudo_labels": {"threshold": "otsu", "crf": "none"},
        "deeplab": {"epochs": 16, "output_stride": None, "lr": 0.002, "batch": 8, "crop": 64},
        "segment": {"long_side": 96},
        "evaluate": {"pictures": 1},
    }
)
report = run_recipe(recipe, "run")
for stage in report["stages"]:
    print(stage["stage"])

# %% [markdown]
# `run/report.html` shows every stage with pictures; the network is a file, and labels any photograph:

# %%
from camplug.show.labels import overlay_labels
from camplug.wsss.deeplab import Segmenter, load_deeplab

segmenter = Segmenter(load_deeplab("run/network.pt"), long_side=96)
photo = Image.fromarray(draw(["plum", "lemon"]))
labels = segmenter(photo)
print({("background", *colours)[value]: int((labels == value).sum()) for value in np.unique(labels)})

size = 4 * photo.width, 4 * photo.height
large = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
overlay_labels(np.asarray(photo.resize(size)), np.asarray(large), list(colours))
