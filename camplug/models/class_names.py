"""Class names of a model, and classes by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from camplug.errors import TargetError
from camplug.plug import Against, unwrap


def find_class_names(
    model: nn.Module,
    count: int | None = None,
    class_names: Sequence[str] | Mapping[int, str] | Mapping[str, int] | None = None,
) -> list[str] | None:
    """Find the class names of a model, in the order of its outputs; None if they are unknown.

    Tried in this order: `class_names`; the model's `labels`, `class_names`, `classes` or `config.id2label`; ImageNet's
    1000 names for models of timm or torchvision with 1000 classes. Placeholders such as "LABEL_0" are not names. A
    model with one output may have two names, for a negative and a positive prediction.

    Args:
        model: classifier.
        count: number of the model's outputs; None accepts names of any number.
        class_names: names that take precedence over the model's: in the order of the outputs, or a mapping between
            indices and names.

    Raises:
        TargetError: the number of `class_names` is not that of the classes, or they are no names.
    """
    inner = unwrap(model)
    lengths = None if count is None else (2, 1) if count == 1 else (count,)
    if class_names is not None and _list_names(class_names, None) is None:
        raise TargetError(
            f"class_names={str(class_names)[:60]} holds no names; give one text per class, in the order of the model's "
            'outputs: a list ["cat", "dog"], or a dict {"cat": 0, "dog": 1}.'
        )
    if class_names is not None and lengths and len(class_names) not in lengths:
        allowed = " or 2 (for no and yes)" if count == 1 else ""
        raise TargetError(f"class_names= holds {len(class_names)} names, but the model has {count} classes{allowed}.")
    own = [getattr(inner, name, None) for name in ("labels", "class_names", "classes")]
    for given in (class_names, *own, getattr(getattr(inner, "config", None), "id2label", None)):
        names = _list_names(given, lengths)
        if names and names != [f"LABEL_{i}" for i in range(len(names))]:
            return names
    if count == 1000 and type(inner).__module__.split(".")[0] in ("timm", "torchvision"):
        return list_imagenet_names()
    return None


def _list_names(given: Any, lengths: tuple[int, ...] | None) -> list[str] | None:
    """Return names given as a sequence, or as a mapping between indices and names, if their number is allowed."""
    if hasattr(given, "tolist"):  # an array, such as the classes of scikit-learn's LabelEncoder
        given = given.tolist()
    if not isinstance(given, (Sequence, Mapping)) or isinstance(given, (str, bytes)):
        return None
    if isinstance(given, Mapping) and given and all(isinstance(name, str) for name in given):
        given = {index: name for name, index in given.items()}
    for length in (len(given),) if lengths is None else lengths:
        names: list[Any] = [given.get(i) for i in range(length)] if isinstance(given, Mapping) else list(given)
        if len(names) == length and all(isinstance(name, str) for name in names):
            return names
    return None


def list_imagenet_names() -> list[str]:
    """List the 1000 ImageNet class names from torchvision."""
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def get_class_title(wanted: int, names: Sequence[str] | None, count: int) -> str:
    """Return the title of a class, or of the evidence against it.

    >>> get_class_title(2, None, 3), get_class_title(Against(0), ["cat", "dog"], 2)
    ('class 2', 'not cat')
    >>> get_class_title(Against(0), ["cat", "dog"], 1)
    'cat'
    """
    against = isinstance(wanted, Against)
    if count == 1 and (not names or len(names) == 2):  # both sides of one output have names
        return (names or ("negative", "positive"))[0 if against else 1]
    return ("not " if against else "") + (names[wanted] if names else f"class {int(wanted)}")


def find_class(name: str, names: list[str] | None, count: int) -> int:
    """Return the class with a name, see `find_index`; the first of two names of one output is `Against(0)`.

    >>> find_class("cat", ["cat", "dog"], 1), find_class("dog", ["cat", "dog"], 1)
    (Against(0), 0)
    """
    if count == 1 and not name.strip().isdecimal() and (not names or len(names) == 2):
        return 0 if find_index(name, names or ["negative", "positive"], 2) else Against(0)
    return find_index(name, names, count)


def find_index(name: str, names: list[str] | None, count: int) -> int:
    """Return the class that matches by its name, by a comma-separated synonym, or as the only one with all words.

    A number is an index.

    Raises:
        TargetError: no class or several classes match.
    """
    wanted = name.strip().lower()
    if wanted.isdecimal():
        if int(wanted) < count:
            return int(wanted)
        raise TargetError(f"class {wanted} is outside the model's {count} classes; allowed are 0 to {count - 1}.")
    if names is None:
        raise TargetError(f"the model has no class names, so {name!r} cannot be found; give class_names= or an index.")
    parts = [[part.strip().lower() for part in n.split(",")] for n in names]
    exact = [i for i, p in enumerate(parts) if wanted in (names[i].lower(), *p)]
    if len(exact) == 1:
        return exact[0]
    words = wanted.split()
    partial = exact or [i for i, n in enumerate(names) if words and all(w in _split_words(n) for w in words)]
    if len(partial) == 1:
        return partial[0]
    if partial:
        listed = ", ".join(f"{names[i]} ({i})" for i in partial[:6]) + (", ..." if len(partial) > 6 else "")
        has_name = any(names[i].strip().lower() == wanted for i in partial)
        raise TargetError(
            f"{name!r} fits several classes: {listed}; give {'' if has_name else 'one of these names or '}its index."
        )
    flat = {part: i for i, p in enumerate(parts) for part in p}
    near = difflib.get_close_matches(wanted, flat, n=3, cutoff=0.5)
    near = near or [part for part in flat if words and any(w in part for w in words)][:3]
    listed = ", ".join(f"{n} ({flat[n]})" for n in near)
    hint = f"did you mean {listed}?" if near else f"give an index from 0 to {count - 1}."
    raise TargetError(f"no class is called {name!r}; {hint}")


def _split_words(name: str) -> list[str]:
    return name.lower().replace(",", " ").replace("-", " ").split()
