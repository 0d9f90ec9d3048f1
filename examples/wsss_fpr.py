"""FPR, IRN and DeepLab: the road of Chen et al. (ICCV 2023), on drawn scenes. Needs camplug[train]."""

import tempfile

from camplug.wsss.recipe import read_recipe, run_recipe

# on VOC 2012 with the paper's settings: camplug wsss run fpr_irn --data-root VOCdevkit/VOC2012
NETWORK = "model: 'import:camplug.wsss.recipe.small_network:SmallNetwork'"
SPAN = "preset: modern, batch: 8, crop: 96, sides: [96, 128], batch_norm: train"
START = f"{{train: {{{NETWORK}, {SPAN}, epochs: 4}}}}"  # FPR goes on with a trained classifier
PAPER = [f"classifier.train={{method: fpr, {SPAN}, epochs: 1, start: {START}}}", "seeds.explainer=MultiView(CAM)"]
# to see it run: far fewer scenes and epochs than `camplug wsss demo`, too few for figures
SHORT = ["data.train.data=scenes:24:0", "data.val.data=scenes:8:1", "data.threshold.data=scenes:8:2"]
SHORT += ["refine.training.epochs=1", "deeplab.epochs=2", "evaluate.pictures=2"]

report = run_recipe(read_recipe("scenes", [*PAPER, *SHORT]), tempfile.mkdtemp())
for score in report["scores"]:
    print(f"{score['stage']:28} mIoU {100 * score['miou'][score['convention']]:5.1f} %")
