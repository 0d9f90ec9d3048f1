# %% [markdown]
# # Texts as classes
# CLIP and SigLIP have no classes; `camplug.Prompts` makes classes of texts. This CLIP is built on the spot with
# random weights, so the maps mean nothing here; `camplug.load_model("open_clip:ViT-B-16/openai")` or
# `"hf:openai/clip-vit-base-patch16"` has published ones.

# %%
import torch
from transformers import CLIPConfig, CLIPModel

import camplug

torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
config = CLIPConfig(
    text_config={**small, "vocab_size": 128, "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 0},
    vision_config={**small, "image_size": 64, "patch_size": 8},
    projection_dim=16,
)
clip = CLIPModel(config).eval()

# %% [markdown]
# A model by name brings its tokenizer; this one needs one. Letters will do.


# %%
def tokenize(texts):
    return torch.tensor([[0, *(ord(c) for c in text[:14].ljust(14)), 2] for text in texts])


prompts = camplug.Prompts(clip, ["a cat", "a dog"], background=["grass", "sky"], tokenizer=tokenize)
result = camplug.GradCAM(prompts).explain(camplug.sample_photo(), ["a cat", "a dog"])
result

# %% [markdown]
# The output is the softmax over prompts and background, and the explained score is the probability: a map shows what
# speaks for this text rather than for the others. All explainers and wrappers take the classifier, and so do `camplug
# explain --prompts` and `camplug seeds --prompts`.

# %%
for index, name, probability in result.top(4):
    print(index, name, f"{probability:.1%}")
