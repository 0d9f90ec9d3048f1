"""Classifiers whose classes are texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from camplug.errors import InputError
from camplug.models.preprocess import find_preprocess
from camplug.models.towers import ImageTower, embed_texts, get_scale_and_bias
from camplug.plug import unwrap


class Prompts(nn.Module):
    r"""Classifier of images by their similarity to texts, made of a model of images and texts (CLIP, SigLIP).

    .. math:: z_k = s\, \frac{v^T t_k}{|v|\,|t_k|} + b, \qquad
        t_k = \sum_{w \in W_k} \frac{E(w)}{|E(w)|}, \qquad p = \mathrm{softmax}(z)

    v is the vector of an image, E that of a text, W_k the texts of class k: its prompt and synonyms in every template;
    s and b are the model's. The vectors t_k are computed once. Classes are the prompts and the background prompts, in
    this order. Explained is the probability, so that the evidence for other prompts counts against a class (CLIP-ES,
    Lin et al., 2023, arXiv 2212.09506).

    Args:
        model: model of `transformers` (CLIPModel, SiglipModel, ChineseCLIPModel, AltCLIPModel, MetaClip2Model) or
            open_clip; the modules of its image tower are shared, its text tower is not kept.
        prompts: class names, such as "a dog".
        background: prompts of what is none of these classes, such as "grass".
        templates: texts with {} in place of a prompt.
        synonyms: further texts of a prompt.
        softmax: put out probabilities; False puts out the logits z.
        scale: s; default: the model's.
        tokenizer: tokenizer of Hugging Face, or function from a list of texts to token numbers [T,L]; default: the
            model's own.
        interpolate: height and width of images given to Hugging Face's models; their position embeddings are
            interpolated. Default: the model's own size.

    Raises:
        ModelError: the model has no two towers, or its tokenizer is unknown.
        InputError: no or equal prompts, one class alone, a template without {}, or a text that is too long.
    """

    text_features: Tensor

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[str],
        *,
        background: Sequence[str] = (),
        templates: Sequence[str] = ("{}",),
        synonyms: Mapping[str, Sequence[str]] | None = None,
        softmax: bool = True,
        scale: float | None = None,
        tokenizer: Callable[..., Any] | None = None,
        interpolate: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        names = check_prompts(prompts, background, softmax=softmax)
        groups = make_texts(names, templates, synonyms or {})
        inner = unwrap(model)
        self.tower = ImageTower(inner)
        if interpolate is not None and not (self.tower.is_hf and self.tower.interpolates):
            raise InputError(f"this {type(inner).__name__} reads images of one size; leave interpolate= out.")
        self.scale, bias = get_scale_and_bias(inner, scale)
        self.bias = bias or 0.0
        self.softmax = softmax
        self.class_names = names
        self.multi_label = bias is not None and not softmax  # trained with sigmoids
        read = find_preprocess(inner)
        self.preprocess = replace(read, size=interpolate or read.size, keep_aspect=False)
        self.register_buffer("text_features", average_texts(inner, groups, tokenizer))
        self.training = self.tower.training = model.training  # train() would change the shared modules

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, or logits, [N,K] of images [N,3,H,W]."""
        logits: Tensor = self.scale * self.tower(images) @ self.text_features.T + self.bias
        return logits.softmax(-1) if self.softmax else logits


def check_prompts(prompts: Sequence[str], background: Sequence[str], *, softmax: bool) -> list[str]:
    """Return the class names: prompts and background.

    Raises:
        InputError: a text instead of a list, none, equal ones, or one class whose probability is always 1.
    """
    for name, given in (("prompts", prompts), ("background", background)):
        if isinstance(given, str) or not all(isinstance(text, str) and text.strip() for text in given):
            raise InputError(f'{name}={given!r}; give a list of texts, such as ["a dog", "grass"].')
    names = [*prompts, *background]
    if not prompts:
        raise InputError('prompts= is empty; give at least one text, such as "a dog".')
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"prompts and background hold {', '.join(map(repr, twice))} twice; give each text once.")
    if len(names) == 1 and softmax:
        raise InputError(
            f"the probability of {names[0]!r} among one prompt alone is always 1; add prompts or background=, or give "
            "softmax=False."
        )
    return names


def make_texts(
    names: Sequence[str], templates: Sequence[str], synonyms: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    """Return the texts of each class: its name and synonyms in every template.

    Raises:
        InputError: a template without {}, or synonyms of another name.

    >>> make_texts(["dog", "grass"], ["a {}.", "one {}."], {"dog": ["puppy"]})
    [['a dog.', 'one dog.', 'a puppy.', 'one puppy.'], ['a grass.', 'one grass.']]
    """
    templates = [templates] if isinstance(templates, str) else list(templates)
    for template in templates or [""]:
        if template.count("{}") != 1:
            raise InputError(f'the template {template!r} must hold {{}} once; for instance "a photo of {{}}.".')
    unknown = [name for name in synonyms if name not in names]
    if unknown:
        raise InputError(f"synonyms= holds {unknown[0]!r}, which is no prompt; prompts are {', '.join(names)}.")
    for name, others in synonyms.items():
        if isinstance(others, str):
            raise InputError(f"synonyms= of {name!r} is a text; give a list of texts.")
    return [[t.replace("{}", word) for word in (name, *synonyms.get(name, ())) for t in templates] for name in names]


def average_texts(model: nn.Module, groups: Sequence[Sequence[str]], tokenizer: Callable[..., Any] | None) -> Tensor:
    """Compute the unit vectors [K,D] of classes: the direction of the mean of their texts' unit vectors."""
    vectors = embed_texts(model, [text for group in groups for text in group], tokenizer)
    parts = torch.split(vectors, [len(group) for group in groups])
    return nn.functional.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)
