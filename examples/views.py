"""Several scales, each with its mirror image, fused to one map: any method becomes steadier."""

import sys

import camplug
from camplug.images.sample import find_sample_photo

model = camplug.load_model("demo")
photo = sys.argv[1] if len(sys.argv) > 1 else find_sample_photo()

one = camplug.FullyCAM(model)
eight = camplug.MultiView(one, scales=(0.5, 1.0, 1.5, 2.0), flip=True)
for explainer in (one, eight):
    result = explainer.explain(photo, "Egyptian cat")
    print(f"{explainer.name}: above half on {result.mask(0.5).float().mean():.1%} of the photograph")
    result.save(f"{explainer.name.replace('(', '_').rstrip(')')}.png")
