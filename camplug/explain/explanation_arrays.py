"""Explanations as arrays without objects, and .npz files of them."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np
import torch

from camplug.errors import InputError
from camplug.explain.explanation import Explanation
from camplug.plug import Against


def make_arrays(one: Explanation) -> dict[str, np.ndarray[Any, Any]]:
    """Return the content of an explanation as arrays without objects, by field; "against" marks `Against` classes."""
    none: list[str] = []
    return {
        "maps": one.maps.numpy(),
        "image": np.asarray(one.image),
        "classes": np.array(one.classes, dtype=np.int64),
        "against": np.array([isinstance(c, Against) for c in one.classes], dtype=np.bool_),
        "names": np.array(one.names, dtype=np.str_),
        "scores": np.array(one.scores, dtype=np.float64),
        "logits": np.zeros(0, np.float32) if one.logits is None else one.logits.float().numpy(),
        "method": np.array(one.method, dtype=np.str_),
        "all_names": np.array(one.all_names or none, dtype=np.str_),
        "link": np.array(one.link, dtype=np.str_),
        "multi_label": np.array(one.multi_label),
        "evidence": np.array(one.evidence, dtype=np.str_),
        "seen": np.array(one.seen or none, dtype=np.float64),
    }


def load_explanation(path: str | os.PathLike[str] | BinaryIO) -> Explanation:
    """Read an .npz file (path or file object) written by `Explanation.save`.

    Raises:
        InputError: the file is missing, damaged, or no explanation.
    """
    from PIL import Image as pil

    try:
        with np.load(path, allow_pickle=False) as data:
            logits = torch.from_numpy(data["logits"]) if data["logits"].size else None
            return Explanation(
                image=pil.fromarray(data["image"]),
                maps=torch.from_numpy(data["maps"]),
                classes=[
                    Against(c) if against else c
                    for c, against in zip(data["classes"].tolist(), data["against"].tolist(), strict=True)
                ],
                names=data["names"].tolist(),
                scores=data["scores"].tolist(),
                logits=logits,
                method=str(data["method"]),
                all_names=data["all_names"].tolist() or None,
                link=str(data["link"]),  # type: ignore[arg-type]
                multi_label=bool(data["multi_label"]),
                evidence=str(data["evidence"]),  # type: ignore[arg-type]
                seen=tuple(data["seen"].tolist()) or None,
            )
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}.") from None
    except Exception as error:
        raise InputError(f"{str(path)!r} is not an explanation saved by camplug ({error}).") from None
