# %% [markdown]
# # A method of your own
# A method that reads layers is one function of a layer's activation and gradient. Layers, tokens of transformers,
# several classes, half precision and the model's state are taken care of.

# %%
import camplug
from camplug.testing import check_explainer


@camplug.register("strongest")
class Strongest(camplug.LayerExplainer):
    """The channels with the largest mean gradients alone, weighted as in Grad-CAM."""

    count = 20

    def layer_map(self, activation, gradient):  # [N,K,h,w] twice -> [N,h,w]
        weights = gradient.mean((2, 3), keepdim=True)
        best = weights.topk(min(self.count, weights.shape[1]), 1)
        return (
            (best.values * activation.gather(1, best.indices.expand(-1, -1, *activation.shape[2:]))).sum(1).clamp_min(0)
        )


# %% [markdown]
# The checks that camplug's own methods pass: batches against single images, threads, half precision, and a model that
# is left as it was.

# %%
check_explainer(Strongest)

# %% [markdown]
# It has a name now, for `create`, wrappers, recipes and the command line. Running a cell again registers its class
# again.

# %%
from camplug.models.preprocess import find_preprocess

model, photo = camplug.load_model("demo"), camplug.sample_photo()
small = find_preprocess(model).change(None, None, long_side=160)  # quicker; leave it out for the model's own size
lines = ["gradcam", "strongest", "MultiView(strongest, scales=(1,))"]
explainers = [camplug.create(line, model, preprocess=small) for line in lines]
results = [explainer.explain(photo, "Egyptian cat") for explainer in explainers]
explainers[-1]

# %%
from camplug.show import grid

grid(results[0].image, [result.maps[0].numpy() for result in results], lines)

# %% [markdown]
# Whether it shows what the model uses is measured as in [Is a map trustworthy?](trust.md), for the new method as for
# the others.
