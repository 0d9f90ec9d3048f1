"""Class-conditional inference: look at parts of the photograph by themselves, erase what was found and look again."""

import sys

import camplug
from camplug.images.sample import find_sample_photo

model = camplug.load_model("demo")
photo = sys.argv[1] if len(sys.argv) > 1 else find_sample_photo()

cam = camplug.CAM(model)
explainers = {
    "CAM": cam,
    "split & unite": camplug.SplitUnite(cam),
    "iterative erasing": camplug.IterativeErasing(cam),
    "both": camplug.ClassConditional(cam),
    "both as in the paper": camplug.ClassConditional(cam, preset="paper"),
    "both as in the authors' code": camplug.ClassConditional(cam, preset="repo"),
}
for name, explainer in explainers.items():
    result = explainer.explain(photo, "Egyptian cat")
    print(f"{name}: above half on {result.mask(0.5).float().mean():.1%} of the photograph")
    result.save(name.replace(" ", "_").replace("&", "and").replace("'", "") + ".png")
