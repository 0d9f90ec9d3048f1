"""Explanation of one photograph: maps, names, probabilities, masks, boxes and pictures."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.fuse import normalize_map
from camplug.images.geometry import Box, find_outside
from camplug.images.save import write_atomically
from camplug.json_values import to_json_number
from camplug.models.class_names import get_class_title
from camplug.plug import Against, Evidence, Link

if TYPE_CHECKING:
    from matplotlib.figure import Figure
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
        seen: region of the photograph in the model's input (left, top, right, bottom), if it is not the whole.
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
    seen: tuple[float, float, float, float] | None = None

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
        from camplug.explain.explanation_arrays import make_arrays

        mine, theirs = make_arrays(self), make_arrays(other)
        return all(np.array_equal(mine[k], theirs[k], equal_nan=mine[k].dtype.kind == "f") for k in mine)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __len__(self) -> int:
        return len(self.maps)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.maps)

    def __contains__(self, name: object) -> bool:
        return name in self.names

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
        """Draw a map over the photograph.

        Args:
            k: position or class name.
            options: see `camplug.show.overlay`; `boxes` may also be a threshold for `boxes()`.
        """
        from camplug.show import overlay

        k = self._check_index(k)
        style = {"outside": self._find_outside(), **options, **self._find_boxes([k], options)[0]}
        return overlay(np.asarray(self.image), self.normalized_maps()[k].numpy(), **style)

    def _find_boxes(self, chosen: Sequence[int], options: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the argument `boxes` of the overlay of each map, if it is given as a threshold."""
        threshold = options.get("boxes", ())
        if threshold is not None and not isinstance(threshold, (int, float)):
            return [{} for _ in chosen]
        found = None if threshold is None else self.boxes(threshold)
        return [{"boxes": () if found is None else found[k]} for k in chosen]

    def grid(self, **options: Any) -> Image:
        """Draw the photograph and all its maps side by side; see `overlay` and `camplug.show.grid` for the options."""
        from camplug.show.figures import render_figure

        return render_figure(self._make_figure(**options))

    def _make_figure(self, **options: Any) -> Figure:
        from camplug.show import make_grid_figure

        style = {"outside": self._find_outside(), **options}
        style["each"] = self._find_boxes(range(len(self.maps)), style)
        titles = [self.title(k) for k in range(len(self.maps))]
        return make_grid_figure(np.asarray(self.image), list(self.normalized_maps().numpy()), titles, **style)

    def _find_outside(self) -> np.ndarray[Any, Any] | None:
        """Return the positions [H,W] whose middle is outside of the model's input; None if it saw all of them."""
        return None if self.seen is None else find_outside(Box(*self.seen), *self.image.size)

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
                    "probability": to_json_number(self.probability(k)),
                    "output": to_json_number(score),
                    "boxes": [list(box) for box in boxes],
                }
                for k, (index, name, score, boxes) in enumerate(rows)
            ],
            "top": [
                {"index": int(i), "name": n, "probability": to_json_number(p)}
                for i, n, p in (self.top() if self.logits is not None else [])
            ],
        }

    def save(self, path: str | os.PathLike[str] | BinaryIO, *, kind: str | None = None, **options: Any) -> None:
        """Write a picture (png, jpg, webp, svg, pdf), or the data (npz without pickle, for `Explanation.load`).

        Args:
            path: file, written atomically, or a binary file object such as `io.BytesIO`.
            kind: "png", "jpg", "webp", "svg", "pdf" or "npz"; default: the suffix of the path, "png" for a file object.
            options: look of the overlays, see `overlay`.

        Raises:
            InputError: the kind is unknown, or the file cannot be written.
        """
        opened = hasattr(path, "write")
        called = "the file object" if opened else os.fspath(path)  # type: ignore[arg-type]
        wanted = kind or ("png" if opened else os.path.splitext(called)[1].lower().removeprefix("."))
        if wanted == "npz":
            from camplug.explain.explanation_arrays import make_arrays

            arrays = make_arrays(self)

            def write(file: Any) -> None:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

        elif wanted in ("svg", "pdf"):
            figure = self._make_figure(**options)

            def write(file: Any) -> None:
                figure.savefig(file, format=wanted)

        elif wanted in ("png", "jpg", "jpeg", "webp"):
            title = f"{self.method}: {self.title()}".replace("\n", ", ") if len(self.maps) == 1 else None
            picture = self.grid(**options) if title is None else self.overlay(**{"title": title, **options})

            def write(file: Any) -> None:
                picture.save(file, format="jpeg" if wanted == "jpg" else wanted)

        else:
            raise InputError(f"{called!r}: an explanation is saved as .png, .jpg, .webp, .svg, .pdf or .npz (numbers).")
        if opened:
            write(path)
        else:
            write_atomically(called, write)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | BinaryIO) -> Explanation:
        """Read an .npz file (path or file object) written by `save`.

        Raises:
            InputError: the file is missing, damaged, or no explanation.
        """
        from camplug.explain.explanation_arrays import load_explanation

        return load_explanation(path)

    def _check_index(self, k: int | str) -> int:
        if isinstance(k, str) and k in self.names:
            return self.names.index(k)
        if isinstance(k, int) and -len(self.maps) <= k < len(self.maps):
            return k
        shown = ", ".join(map(repr, self.names[:5])) or "no class"
        raise InputError(f"there is no map {k!r}; this explanation has {len(self.maps)}: {shown}.")
