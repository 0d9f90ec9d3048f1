"""Attention transfer, IRN and DeepLab: the road of Qin et al. (TCSVT 2024), on drawn scenes. Needs camplug[train]."""

import tempfile

from camplug.wsss.recipe import read_recipe, run_recipe

# on VOC 2012 with the paper's settings: camplug wsss run atm_fum --data-root VOCdevkit/VOC2012
PAPER = ["classifier.train.method=atm", "classifier.train.ramp=0.5", "seeds.explainer=MultiView(CAM)"]
# to see it run: far fewer scenes and epochs than `camplug wsss demo`, too few for figures
SHORT = ["data.train.data=scenes:16:0", "data.val.data=scenes:4:1", "data.threshold.data=scenes:4:2"]
SHORT += ["classifier.train.epochs=2", "refine.training.epochs=1", "deeplab.epochs=2", "evaluate.pictures=2"]
SHORT += ["classifier.train.crop=80", "seeds.long_side=64"]  # the relation of positions is the fourth power of the side

report = run_recipe(read_recipe("scenes", [*PAPER, *SHORT]), tempfile.mkdtemp())
for score in report["scores"]:
    print(f"{score['stage']:28} mIoU {100 * score['miou'][score['convention']]:5.1f} %")
