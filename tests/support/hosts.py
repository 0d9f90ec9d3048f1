"""The small networks of `benchmarks/zoo_hosts.py`, and tokenizers that need no files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load_benchmark(name):
    """A module of the benchmarks, which import each other by name."""
    if name not in sys.modules:
        sys.path.insert(0, str(FOLDER))
        try:
            spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        finally:
            sys.path.remove(str(FOLDER))
    return sys.modules[name]


def make_host(title):
    """A network by source and name, in float32; of images and texts without the texts around it."""
    model = load_benchmark("zoo_hosts").find_host(title).make().float()
    return getattr(model, "model", model) if "open_clip" in title or title.endswith("Model") else model


def tokenize(texts):
    """Eight token numbers per text, made of its letters; 2 ends a text."""
    rows = [[3 + sum(map(ord, text[i::7])) % 40 for i in range(7)] + [2] for text in texts]
    return torch.tensor(rows)


def save_word_tokenizer(folder, words):
    """A tokenizer of whole words, as files beside a saved CLIP: 0 begins, 2 ends, 1 pads."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words])}, "<unk>"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_processor(folder, **values):
    """A preprocessor_config.json."""
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(values))
