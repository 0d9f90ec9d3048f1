"""Explanation of one photograph: maps, names, probabilities, masks, boxes and pictures."""

from __future__ import annotations

import base64
import html
import os
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.fuse import normalize_map
from camplug.images.save import write_atomically
from camplug.models.class_names import get_class_title
from camplug.plug import Against, Evidence, Link

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(repr=False, eq=False)
class Explanation:
    """Maps of one photograph at its own size.

    `result["tabby"]` and `result[0]` are single maps [H,W]; `==` compares the content; in a notebook the grid of maps
    is shown.

    Attributes:
        image: the photograph, upright RGB.
        maps: [K,H,W] float32 on the CPU, scaled by the explainer's `normalize`: by default to maximum 1; all 0 without
            evidence for the class.
        classes: K class indices, `camplug.Against` for the evidence against a class; -1 for a callable.
        names: names of the K classes ("class 3" if unknown; "not ..." for `Against`).
        scores: raw outputs of the model for the K classes.
        logits: all C raw outputs; None if the model has none.
        method: name of the method.
        all_names: names of all C classes, or None; a model with one output may have two names, for no and yes.
        link: kind of the raw outputs: "logits", or probabilities from a "softmax" or "sigmoid".
        multi_label: the model declares classes that are not exclusive.
        evidence: "negative" for maps of the evidence against the classes.
    """

    image: Image
    maps: Tensor
    classes: list[int]
    names: list[str]
    scores: list[float]
    logits: Tensor | None = None
    method: str = ""
    all_names: list[str] | None = field(default=None, repr=False)
    link: Link = "logits"
    multi_label: bool = False
    evidence: Evidence = "positive"

    def __repr__(self) -> str:
        shown = [self.title(k).replace("\n", " ") for k in range(len(self.maps))]
        more = f", and {len(shown) - 5} more" if len(shown) > 5 else ""
        width, height = self.image.size
        return f"Explanation({self.method} of {', '.join(shown[:5]) or 'no class'}{more}; {width}x{height})"

    def _repr_html_(self) -> str:
        buffer = BytesIO()
        self.grid().save(buffer, format="PNG")
        picture = base64.b64encode(buffer.getvalue()).decode()
        return f'<img src="data:image/png;base64,{picture}" alt="{html.escape(repr(self))}" style="max-width:100%">'

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Explanation):
            return NotImplemented
        mine, theirs = self._make_arrays(), other._make_arrays()
        return all(np.array_equal(mine[k], theirs[k], equal_nan=mine[k].dtype.kind == "f") for k in mine)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, k: int | str) -> Tensor:
        """Return the map [H,W] of a class, by its position or name; see `maps`.

        Raises:
            InputError: there is no such map.
        """
        return self.maps[self._check_index(k)]

    def probabilities(self, *, multi_label: bool | None = None) -> Tensor:
        """Compute the probabilities [C] of all classes, see `probability_kind`.

        Args:
            multi_label: classes are not exclusive; default: the model's declaration.

        Raises:
            InputError: the model has no logits.
        """
        if self.logits is None:
            raise InputError("this explanation has no logits; its score came from a callable.")
        if self.link != "logits":
            return self.logits
        return self.logits.sigmoid() if self.probability_kind(multi_label) == "sigmoid" else self.logits.softmax(0)

    def probability_kind(self, multi_label: bool | None = None) -> str:
        """Return the function of the probabilities: "softmax", or "sigmoid" for one output or several labels."""
        if self.link != "logits":
            return self.link
        many = self.multi_label if multi_label is None else multi_label
        return "sigmoid" if many or (self.logits is not None and len(self.logits) == 1) else "softmax"

    def probability(self, k: int = 0, *, multi_label: bool | None = None) -> float | None:
        """Return the probability of the k-th explained class (1 - p for `Against`); None without logits."""
        wanted = self.classes[k]
        if self.logits is None or wanted < 0:
            return None
        p = float(self.probabilities(multi_label=multi_label)[int(wanted)])
        return 1 - p if isinstance(wanted, Against) else p

    def title(self, k: int = 0, *, multi_label: bool | None = None) -> str:
        """Return the title of the k-th map: the class, and in a second line its probability."""
        p = self.probability(k, multi_label=multi_label)
        name = f"against {self.names[k]}" if self.evidence == "negative" else self.names[k]
        return name if p is None else f"{name}\n{p:.1%} ({self.probability_kind(multi_label)})"

    def top(self, k: int = 5, *, multi_label: bool | None = None) -> list[tuple[int, str, float]]:
        """Return the k most probable classes as (index, name, probability); both sides of a single output."""
        p = self.probabilities(multi_label=multi_label)
        found: list[tuple[int, float]] = list(enumerate(p.tolist()))
        if len(found) == 1:
            found.append((Against(0), 1 - found[0][1]))
        found = sorted(found, key=lambda pair: -pair[1])[:k]
        return [(i, get_class_title(i, self.all_names, len(p)), v) for i, v in found]

    def normalized_maps(self) -> Tensor:
        """Return the maps [K,H,W] divided by their maxima; a change only if `normalize` is None."""
        return normalize_map(self.maps, "max")

    def mask(self, threshold: float = 0.5) -> Tensor:
        """Return the positions where each map reaches a share of its maximum, bool [K,H,W]; none if it is all 0."""
        maps = self.normalized_maps()
        return (maps >= threshold) & (maps > 0)

    def boxes(self, threshold: float = 0.5) -> list[list[tuple[int, int, int, int]]]:
        """Return per class the boxes (left, top, right, bottom) of the mask's components, largest component first.

        Right and bottom are exclusive; components are 8-connected.
        """
        import cv2

        found = []
        for mask in self.mask(threshold).numpy():
            _, _, parts, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
            parts = sorted(parts[1:].tolist(), key=lambda part: -part[cv2.CC_STAT_AREA])  # the first is the background
            found.append([(left, top, left + width, top + height) for left, top, width, height, _ in parts])
        return found

    def overlay(self, k: int | str = 0, **options: Any) -> Image:
        """Draw a map, by position or class name, over the photograph; see `camplug.show.overlay` for the options."""
        from camplug.show import overlay

        return overlay(np.asarray(self.image), self.normalized_maps()[self._check_index(k)].numpy(), **options)

    def grid(self, **options: Any) -> Image:
        """Draw the photograph and all its maps side by side; see `camplug.show.grid` for the options."""
        from camplug.show import grid

        titles = [self.title(k) for k in range(len(self.maps))]
        return grid(np.asarray(self.image), list(self.normalized_maps().numpy()), titles, **options)

    def to_dict(self, threshold: float = 0.5) -> dict[str, Any]:
        """Return size, method, classes with probabilities and boxes, as values that JSON takes; no maps.

        Args:
            threshold: share of a map's maximum from which on its boxes count, see `boxes`.
        """
        rows = zip(self.classes, self.names, self.scores, self.boxes(threshold), strict=True)
        return {
            "size": list(self.image.size),
            "method": self.method,
            "evidence": self.evidence,
            "outputs": self.link,
            "probabilities": self.probability_kind(),
            "explained": [
                {
                    "index": int(index),
                    "name": name,
                    "probability": self.probability(k),
                    "output": None if np.isnan(score) else score,
                    "boxes": [list(box) for box in boxes],
                }
                for k, (index, name, score, boxes) in enumerate(rows)
            ],
            "top": [
                {"index": int(i), "name": n, "probability": p}
                for i, n, p in (self.top() if self.logits is not None else [])
            ],
        }

    def save(self, path: str | os.PathLike[str] | BinaryIO, *, kind: str | None = None) -> None:
        """Write a picture (png, jpg, webp), or the data (npz without pickle, for `Explanation.load`).

        Args:
            path: file, written atomically, or a binary file object such as `io.BytesIO`.
            kind: "png", "jpg", "webp" or "npz"; default: the suffix of the path, "png" for a file object.

        Raises:
            InputError: the kind is unknown, or the file cannot be written.
        """
        opened = hasattr(path, "write")
        called = "the file object" if opened else os.fspath(path)  # type: ignore[arg-type]
        wanted = kind or ("png" if opened else os.path.splitext(called)[1].lower().removeprefix("."))
        if wanted == "npz":
            arrays = self._make_arrays()

            def write(file: Any) -> None:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

        elif wanted in ("png", "jpg", "jpeg", "webp"):
            picture = self.overlay() if len(self.maps) == 1 else self.grid()

            def write(file: Any) -> None:
                picture.save(file, format="jpeg" if wanted == "jpg" else wanted)

        else:
            raise InputError(f"{called!r}: an explanation is saved as .png, .jpg, .webp (picture) or .npz (numbers).")
        if opened:
            write(path)
        else:
            write_atomically(called, write)

    def _make_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the content as arrays without objects."""
        none: list[str] = []
        return {
            "maps": self.maps.numpy(),
            "image": np.asarray(self.image),
            "classes": np.array(self.classes, dtype=np.int64),
            "against": np.array([isinstance(c, Against) for c in self.classes], dtype=np.bool_),
            "names": np.array(self.names, dtype=np.str_),
            "scores": np.array(self.scores, dtype=np.float64),
            "logits": np.zeros(0, np.float32) if self.logits is None else self.logits.float().numpy(),
            "method": np.array(self.method, dtype=np.str_),
            "all_names": np.array(self.all_names or none, dtype=np.str_),
            "link": np.array(self.link, dtype=np.str_),
            "multi_label": np.array(self.multi_label),
            "evidence": np.array(self.evidence, dtype=np.str_),
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str] | BinaryIO) -> Explanation:
        """Read an .npz file (path or file object) written by `save`.

        Raises:
            InputError: the file is missing, damaged, or no explanation.
        """
        from PIL import Image as pil

        try:
            with np.load(path, allow_pickle=False) as data:
                logits = torch.from_numpy(data["logits"]) if data["logits"].size else None
                return cls(
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
                )
        except FileNotFoundError:
            raise InputError(f"there is no file {str(path)!r}.") from None
        except Exception as error:
            raise InputError(f"{str(path)!r} is not an explanation saved by camplug ({error}).") from None

    def _check_index(self, k: int | str) -> int:
        if isinstance(k, str):
            if k not in self.names:
                shown = ", ".join(map(repr, self.names[:5])) or "no class"
                raise InputError(f"there is no map of {k!r}; this explanation has {shown}.")
            return self.names.index(k)
        if not -len(self.maps) <= k < len(self.maps):
            raise InputError(f"map {k} does not exist; this explanation has {len(self.maps)}.")
        return k
