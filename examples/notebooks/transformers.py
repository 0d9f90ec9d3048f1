# %% [markdown]
# # Vision transformers
# The calls are those of a CNN: token layers are found and laid on the image's grid. This ViT is small and has random
# weights, so that the page needs no download; write `timm.create_model("vit_small_patch16_224", pretrained=True)` in
# its place.

# %%
import timm
import torch

import camplug
from camplug.show import grid

torch.manual_seed(0)
model = timm.create_model("vit_tiny_patch16_224", img_size=96, depth=4, num_classes=10).eval()
photo = camplug.sample_photo()

# %% [markdown]
# GradCAM and LayerCAM read the last token layer; LeGrad, rollouts and Grad-ECLIP read the attention of all layers.

# %%
explainers = [camplug.LayerCAM(model), camplug.LeGrad(model), camplug.AttentionRollout(model), camplug.GradECLIP(model)]
results = [explainer.explain(photo, 3) for explainer in explainers]
grid(results[0].image, [r.maps[0].numpy() for r in results], [type(e).__name__ for e in explainers])

# %% [markdown]
# 96x96 pixels in patches of 16 are 6x6 tokens, the grid of every map before it is enlarged. The first norm of the
# last block is read, since behind its attention the patches of a model with a class token have no gradient:

# %%
with camplug.Tape(model, "last") as tape:
    model(torch.zeros(1, 3, 96, 96))
tape.names

# %% [markdown]
# Several views give finer maps, without training:

# %%
camplug.MultiView(camplug.LeGrad(model), scales=(1,), flip=True).explain(photo, 3).overlay()
