"""Pixel-adaptive refinement: a map follows the edges of its photograph, without a CRF and without training."""

import sys

import numpy as np

import camplug
from camplug.images.sample import find_sample_photo
from camplug.show import grid
from camplug.wsss.crf import pixel_adaptive_refinement

model = camplug.load_model("demo")
photo = sys.argv[1] if len(sys.argv) > 1 else find_sample_photo()

result = camplug.GradCAM(model).explain(photo, None if len(sys.argv) > 1 else "Egyptian cat")
maps = {"Grad-CAM": result.maps[0]}
for steps in (10, 40):
    refined = pixel_adaptive_refinement(result.image, result.maps, iterations=steps)[0]
    maps[f"{steps} steps"] = refined / refined.max()

pixels = np.asarray(result.image).astype(float)
contrast = np.abs(np.diff(pixels, axis=1)).mean(2)  # between neighbours in a row
for name, heat in maps.items():
    contour = np.diff(heat.numpy() > 0.5, axis=1)
    print(f"{name}: colours change by {contrast[contour].mean():.1f} of 255 across its contour at one half")
grid(np.asarray(result.image), [heat.numpy() for heat in maps.values()], list(maps)).save("refined.png")
