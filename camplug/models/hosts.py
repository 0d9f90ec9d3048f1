"""Build models of Hugging Face transformers, of open_clip, and of registered hosts."""

from __future__ import annotations

import difflib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from camplug.errors import InputError, ModelError
from camplug.plugins import is_same_definition

EXTRA = 'install it with: pip install "camplug[hosts]".'


def build_hf(name: str, pretrained: bool, num_classes: int | None) -> nn.Module:
    """Build a classifier, or a model of images and texts, of Hugging Face.

    Args:
        name: name on the hub (ORG/NAME), or a folder with config.json and weights.
        pretrained: load its weights.
        num_classes: number of classes of a new head; default: the model's own head.

    Raises:
        ModelError: transformers is missing, the model does not exist, or has no classes of its own.
    """
    try:
        import transformers
    except ImportError:
        raise ModelError(f"hf:{name} needs the package transformers; {EXTRA}") from None
    folder = os.path.expanduser(name)
    if name.startswith((".", "/", "~")) and not os.path.isdir(folder):
        raise ModelError(f"there is no folder {name!r} with a Hugging Face model.")
    with _quieten("huggingface_hub", "transformers"), _without_bars(transformers.utils.logging):
        try:
            config = transformers.AutoConfig.from_pretrained(folder)
            cls = _find_architecture(name, config, num_classes)
            if num_classes is not None:
                config.num_labels = num_classes
            if not pretrained:
                return cast(nn.Module, cls._from_config(config) if hasattr(cls, "_from_config") else cls(config))
            return cast(
                nn.Module, cls.from_pretrained(folder, config=config, ignore_mismatched_sizes=bool(num_classes))
            )
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"hf:{name} cannot be loaded ({_get_first_sentence(error)}); give the name of a model on the hub "
                "(ORG/NAME), or a folder with config.json and model.safetensors."
            ) from None


def _find_architecture(name: str, config: Any, num_classes: int | None) -> Any:
    """Return the class of a model: that of its weights if these are of a classifier or of two towers.

    Raises:
        ModelError: the weights have no classes, and no number of classes is given.
    """
    import transformers

    declared = (getattr(config, "architectures", None) or [""])[0]
    cls = getattr(transformers, declared, None)
    if cls is not None and "ForImageClassification" in declared:
        return cls
    if hasattr(config, "vision_config") and hasattr(config, "text_config") and num_classes is None:
        return cls if cls is not None and declared.endswith("Model") else transformers.AutoModel
    if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ModelError(f"hf:{name} is a {declared or type(config).__name__}, which is no classifier of images.")
    if num_classes is None:
        raise ModelError(
            f"hf:{name} is a {declared or type(config).__name__} without a head for classes; give the number of "
            "classes for a new head to train."
        )
    return transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]


def build_open_clip(name: str, pretrained: bool, num_classes: int | None) -> nn.Module:
    """Build a model of images and texts of open_clip.

    Args:
        name: ARCH/TAG, see `open_clip.list_pretrained()`; ARCH without weights; or a folder with
            open_clip_config.json.
        pretrained: load its weights.
        num_classes: must be None; classes come from texts.

    Raises:
        ModelError: open_clip is missing, or the model does not exist.
    """
    try:
        import open_clip
    except ImportError:
        raise ModelError(f"open_clip:{name} needs the package open_clip_torch; {EXTRA}") from None
    if num_classes is not None:
        raise ModelError(f"open_clip:{name} takes its classes from texts; leave the number of classes out.")
    arch, tag = split_open_clip(name)
    known = open_clip.list_models()
    if ":" not in arch and arch not in known:
        near = difflib.get_close_matches(arch, known, n=3)
        raise ModelError(f"open_clip has no model {arch!r}; did you mean {' or '.join(near or known[:3])}?")
    if pretrained and ":" not in arch and not tag:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ModelError(
            f"open_clip:{name} does not say which weights; write open_clip:{arch}/TAG with one of "
            f"{', '.join(tags) or 'none (there are no weights of this model)'}."
        )
    with _quieten("huggingface_hub"):
        try:
            model = open_clip.create_model(arch, pretrained=tag if pretrained else None, load_weights=pretrained)
        except Exception as error:
            raise ModelError(
                f"open_clip:{name} cannot be loaded ({_get_first_sentence(error)}); its weights are downloaded at "
                "first use, so check the network, or give a folder with open_clip_config.json."
            ) from None
    return cast(nn.Module, model)


def split_open_clip(name: str) -> tuple[str, str | None]:
    """Return architecture and tag of the weights; a folder is the architecture "local-dir:FOLDER".

    >>> split_open_clip("ViT-B-32/laion2b_s34b_b79k"), split_open_clip("RN50"), split_open_clip("hf-hub:org/name")
    (('ViT-B-32', 'laion2b_s34b_b79k'), ('RN50', None), ('hf-hub:org/name', None))
    """
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return f"local-dir:{folder}", None
    if ":" in name:
        return name, None
    arch, _, tag = name.partition("/")
    return arch, tag or None


def _get_first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].rstrip(".:")


@contextmanager
def _without_bars(bars: Any) -> Iterator[None]:
    """Show no progress bars of transformers inside the block."""
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


@contextmanager
def _quieten(*names: str) -> Iterator[None]:
    """Silence warnings and the logs of packages inside the block."""
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log in logs:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.setLevel(level)


Build = Callable[[str, bool, int | None], nn.Module]
HOSTS: dict[str, Build] = {"hf": build_hf, "open_clip": build_open_clip}
BUILT_IN = ("demo", "timm", "torchvision", "import", *HOSTS)


def register_host(host: str, build: Build) -> None:
    """Make models of a further host available as "HOST:NAME" to `load_model`, the command line and recipes.

    The same function of the same module may be registered again.

    Args:
        host: part before the colon.
        build: function from a name, whether to load its published weights, and the number of classes of a new head
            (None for the model's own) to the model.

    Raises:
        InputError: the host exists already.
    """
    old = HOSTS.get(host)
    if host in BUILT_IN or (old is not None and not is_same_definition(old, build)):
        raise InputError(f"the host {host!r} exists already; give the new one another name.")
    HOSTS[host] = build
