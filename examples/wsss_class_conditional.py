"""Class-conditional inference, AffinityNet and DeepLab with saliency, on drawn scenes. Needs camplug[train]."""

import tempfile

from camplug.wsss.recipe import read_recipe, run_recipe

# on VOC 2012 with the paper's settings: camplug wsss run class_conditional_affinitynet --data-root VOCdevkit/VOC2012
WALK = (
    "{kind: affinitynet, training: {low: 1.5, high: 6, width: 56, radius: 3, epochs: 1, batch: 4, crop: 96}, "
    "walk: {steps: 16}}"
)
PAPER = ["seeds.explainer=ClassConditional(CAM, 'paper')", f"refine={WALK}", "pseudo_labels.threshold=0.5"]
PAPER += ["deeplab.refinement=0.08", "deeplab.saliency=contrast"]
# to see it run: far fewer scenes and epochs than `camplug wsss demo`, too few for figures
SHORT = ["data.train.data=scenes:24:0", "data.val.data=scenes:8:1", "data.threshold.data=scenes:8:2"]
SHORT += ["classifier.train.epochs=4", "deeplab.epochs=2", "evaluate.pictures=2"]

report = run_recipe(read_recipe("scenes", [*PAPER, *SHORT]), tempfile.mkdtemp())
for score in report["scores"]:
    print(f"{score['stage']:28} mIoU {100 * score['miou'][score['convention']]:5.1f} %")
