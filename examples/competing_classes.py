"""Two classes in one photograph: a map that tells classes apart says whose a position is."""

import sys

import numpy as np
from PIL import Image

import camplug
from camplug.images.sample import find_sample_photo

model = camplug.load_model("demo")
if len(sys.argv) > 1:
    photo, classes = sys.argv[1], sys.argv[2:]
else:  # the demo's cat beside the same cat upside down makes do for two animals
    cat = Image.open(find_sample_photo()).convert("RGB").resize((320, 213))
    photo = Image.fromarray(np.concatenate([np.asarray(cat), np.asarray(cat)[::-1]], axis=1))
    classes = ["Egyptian cat", "tabby"]

fully = camplug.FullyCAM(model, channel_norm=False)
for explainer in (fully, camplug.Compete(fully)):
    result = explainer.explain(photo, classes)
    both = result.mask(0.3).all(0).float().mean()
    print(f"{explainer.name}: {both:.1%} of the photograph is claimed by both classes")
    result.save(f"{explainer.name.replace('(', '_').rstrip(')')}.png")
