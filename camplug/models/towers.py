"""Image and text towers of models of images and texts: Hugging Face's CLIP and SigLIP, and those of open_clip."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from camplug.errors import InputError, ModelError
from camplug.models.hosts import split_open_clip

FAMILIES = ("clip", "siglip", "chinese_clip", "altclip", "metaclip_2")  # of Hugging Face
BATCH = 256  # texts in one pass


class ImageTower(nn.Module):
    """Image tower of a model of images and texts, from images [N,3,H,W] to unit vectors [N,D].

    Hugging Face's towers interpolate their position embedding for images of another size.

    Args:
        model: model of images and texts, whose modules are shared.

    Raises:
        ModelError: the model is of another kind.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.is_hf = is_hf_pair(model)
        if self.is_hf:
            vision = cast(nn.Module, model.vision_model)
            self.visual = vision
            self.projection = getattr(model, "visual_projection", None)
            side = getattr(vision.config, "image_size", None)
            self.size = (side, side) if isinstance(side, int) else side
            self.interpolates = "interpolate_pos_encoding" in inspect.signature(vision.forward).parameters
        else:
            self.visual = cast(nn.Module, model.visual)
            self.projection = None

    def forward(self, images: Tensor) -> Tensor:
        """Return unit vectors [N,D] of images [N,3,H,W]."""
        if not self.is_hf:
            out = self.visual(images)
            return nn.functional.normalize(out[0] if isinstance(out, tuple) else out, dim=-1)
        options = {"interpolate_pos_encoding": True} if self.interpolates and images.shape[2:] != self.size else {}
        features = self.visual(pixel_values=images, **options).pooler_output
        return nn.functional.normalize(features if self.projection is None else self.projection(features), dim=-1)


def is_hf_pair(model: nn.Module) -> bool:
    """Return whether a model is one of images and texts of Hugging Face, and supported.

    Raises:
        ModelError: it is neither that nor one of open_clip.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if hasattr(model, "get_image_features") and hasattr(model, "vision_model") and kind in FAMILIES:
        return True
    if callable(getattr(model, "encode_text", None)) and isinstance(getattr(model, "visual", None), nn.Module):
        return False
    packed = "; it reads packed sequences of patches" if kind == "siglip2" else ""
    raise ModelError(
        f"prompts need an image and a text tower with one embedding: models of open_clip, or of Hugging Face "
        f"({', '.join(FAMILIES)}); got {type(model).__name__}{packed}."
    )


def has_text_tower(model: nn.Module) -> bool:
    """Return whether a model is one of images and texts, supported or not."""
    return any(callable(getattr(model, name, None)) for name in ("get_text_features", "encode_text"))


def get_scale_and_bias(model: nn.Module, scale: float | None = None) -> tuple[float, float | None]:
    """Return the factor of cosines (`scale`, or the model's), and the number added in models trained with sigmoids."""
    own, bias = getattr(model, "logit_scale", None), getattr(model, "logit_bias", None)
    if scale is None:
        if own is None:
            raise ModelError(f"this {type(model).__name__} has no logit_scale; give scale=.")
        scale = float(own.detach().double().exp())
    return scale, None if bias is None else float(bias.detach().double())


@torch.no_grad()
def embed_texts(model: nn.Module, texts: Sequence[str], tokenizer: Callable[..., Any] | None = None) -> Tensor:
    """Compute the unit vectors [T,D] of texts, on the model's device.

    Args:
        model: model of images and texts; it runs in evaluation mode and keeps its own.
        texts: texts.
        tokenizer: tokenizer of Hugging Face, or function from texts to token numbers [T,L]; default: the model's.

    Raises:
        ModelError: the model has no tokenizer.
        InputError: a text has too many tokens.
    """
    is_hf = is_hf_pair(model)
    read = (_find_hf_tokenizer if is_hf else _find_open_clip_tokenizer)(model) if tokenizer is None else tokenizer
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    found = []
    try:
        model.eval()
        for first in range(0, len(texts), BATCH):
            part = list(texts[first : first + BATCH])
            if is_hf:
                tokens = {name: t.to(device) for name, t in _tokenize_hf(model, read, part).items()}
                out: Any = model.get_text_features(**tokens)  # type: ignore[operator]
                found.append(out if isinstance(out, Tensor) else out.pooler_output)
            else:
                found.append(model.encode_text(_tokenize_open_clip(read, part).to(device)))  # type: ignore[operator]
    finally:
        for module, mode in modes:
            module.training = mode
    return nn.functional.normalize(torch.cat(found), dim=-1)


def _tokenize_hf(model: Any, tokenizer: Callable[..., Any], texts: list[str]) -> dict[str, Tensor]:
    if not hasattr(tokenizer, "model_max_length"):  # a plain function
        tokens = tokenizer(texts)
        return dict(tokens) if isinstance(tokens, Mapping) else {"input_ids": tokens}
    longest = model.config.text_config.max_position_embeddings
    if model.config.model_type == "siglip":  # trained on texts padded to one length, without a mask
        given = tokenizer(texts, padding="max_length", max_length=longest, return_tensors="pt")
        given = {"input_ids": given["input_ids"]}
    else:
        given = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    if given["input_ids"].shape[1] > longest:
        raise InputError(
            f"a prompt has {given['input_ids'].shape[1]} tokens, and the model reads {longest}; shorten "
            f"{max(texts, key=len)!r}."
        )
    return given


def _tokenize_open_clip(tokenizer: Callable[..., Any], texts: list[str]) -> Tensor:
    longest = getattr(tokenizer, "context_length", None)
    encode = getattr(tokenizer, "encode", None)
    if longest is not None and callable(encode):  # it would cut long texts in silence
        for text in texts:
            count = len(encode(text)) + 2  # start and end
            if count > longest:
                raise InputError(f"a prompt has {count} tokens, and the model reads {longest}; shorten {text!r}.")
    return cast(Tensor, tokenizer(texts))


def _find_hf_tokenizer(model: Any) -> Any:
    from transformers import AutoTokenizer

    name = getattr(model, "name_or_path", "")
    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception:  # missing files raise many kinds of errors
        raise ModelError(
            f"no tokenizer is found where this {type(model).__name__} came from ({name!r}); give tokenizer=, for "
            "instance transformers.AutoTokenizer.from_pretrained(...)."
        ) from None


def _find_open_clip_tokenizer(model: Any) -> Any:
    """Return the tokenizer of a model's name if `camplug.load_model` built it, else the one of CLIP if it fits."""
    import open_clip

    made_with = getattr(model, "camplug_made_with", {}).get("model", "")
    if made_with.startswith("open_clip:"):
        arch, _ = split_open_clip(made_with.partition(":")[2])
        return open_clip.get_tokenizer(arch)
    length = getattr(model, "context_length", None)
    if getattr(model, "vocab_size", None) == open_clip.tokenizer.SimpleTokenizer().vocab_size and length:
        return open_clip.tokenizer.SimpleTokenizer(context_length=length)
    raise ModelError(
        f"the tokenizer of this {type(model).__name__} is unknown; give tokenizer=open_clip.get_tokenizer(NAME)."
    )
