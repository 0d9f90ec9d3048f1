"""What one photograph's explanation holds, and what can be done with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.fuse import normalize_map
from camplug.explain.names import get_class_title
from camplug.plug import Against, Evidence, Link

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class Explanation:
    """Maps of one photograph at its own size.

    Attributes:
        image: the photograph, upright RGB.
        maps: [K,H,W] float32 on the CPU, scaled as the explainer's `normalize` says: by default of maximum 1, or all 0
            where there is no evidence for the class.
        classes: the K class indices, `camplug.Against` for the evidence against a class; -1 where a callable was
            explained.
        names: their names ("class 3" where the model has none; "not ..." for `Against`).
        scores: the model's raw outputs for the K classes.
        logits: all C raw outputs, or None where the model has none.
        method: the name of the method.
        all_names: the names of all C classes, or None; of a model with one output two names may be known, for no and
            for yes.
        link: what the raw outputs are: "logits", or probabilities that a "softmax" or a "sigmoid" gave.
        multi_label: the model's classes do not exclude each other, as far as it tells.
        evidence: "negative" where the maps show what speaks against the classes.
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

    def probabilities(self, *, multi_label: bool | None = None) -> Tensor:
        """All C class probabilities: see `probability_kind`; outputs that are probabilities are given as they are.

        Args:
            multi_label: whether the classes do not exclude each other; default: as far as the model tells.

        Raises:
            InputError: the model has no logits.
        """
        if self.logits is None:
            raise InputError("this explanation has no logits; its score came from a callable.")
        if self.link != "logits":
            return self.logits
        return self.logits.sigmoid() if self.probability_kind(multi_label) == "sigmoid" else self.logits.softmax(0)

    def probability_kind(self, multi_label: bool | None = None) -> str:
        """Return what gives the probabilities: "softmax", or "sigmoid" for one output and for several labels."""
        if self.link != "logits":
            return self.link
        many = self.multi_label if multi_label is None else multi_label
        return "sigmoid" if many or (self.logits is not None and len(self.logits) == 1) else "softmax"

    def probability(self, k: int = 0, *, multi_label: bool | None = None) -> float | None:
        """The probability of the k-th explained class (of `Against`, that it is not the class); None without logits."""
        wanted = self.classes[k]
        if self.logits is None or wanted < 0:
            return None
        p = float(self.probabilities(multi_label=multi_label)[int(wanted)])
        return 1 - p if isinstance(wanted, Against) else p

    def title(self, k: int = 0, *, multi_label: bool | None = None) -> str:
        """Return the title of the k-th map in two lines: the class; its probability and what gave it."""
        p = self.probability(k, multi_label=multi_label)
        name = f"against {self.names[k]}" if self.evidence == "negative" else self.names[k]
        return name if p is None else f"{name}\n{p:.1%} ({self.probability_kind(multi_label)})"

    def top(self, k: int = 5, *, multi_label: bool | None = None) -> list[tuple[int, str, float]]:
        """The k most probable classes as (index, name, probability); of one output, both sides."""
        p = self.probabilities(multi_label=multi_label)
        found: list[tuple[int, float]] = list(enumerate(p.tolist()))
        if len(found) == 1:
            found.append((Against(0), 1 - found[0][1]))
        found = sorted(found, key=lambda pair: -pair[1])[:k]
        return [(i, get_class_title(i, self.all_names, len(p)), v) for i, v in found]

    def normalized_maps(self) -> Tensor:
        """Return the maps divided by their maxima, [K,H,W]; they are so already unless `normalize` is None."""
        return normalize_map(self.maps, "max")

    def mask(self, threshold: float = 0.5) -> Tensor:
        """Return where each map reaches a share of its maximum, bool [K,H,W]; an all-zero map has an empty mask."""
        maps = self.normalized_maps()
        return (maps >= threshold) & (maps > 0)

    def boxes(self, threshold: float = 0.5) -> list[list[tuple[int, int, int, int]]]:
        """Per class, the boxes (left, top, right, bottom) of the connected parts of the mask, largest part first.

        Right and bottom are exclusive; parts touching at a corner are connected.
        """
        from scipy import ndimage

        found = []
        for mask in self.mask(threshold).numpy():
            parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
            areas = ndimage.sum_labels(mask, parts, range(1, count + 1))
            slices = ndimage.find_objects(parts)
            order = sorted(range(count), key=lambda i: -areas[i])
            found.append([(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in (slices[i] for i in order)])
        return found

    def overlay(self, k: int = 0, **options: Any) -> Image:
        """Photograph, k-th map and colour bar in one picture; see `camplug.show.overlay` for the options."""
        from camplug.show import overlay

        return overlay(np.asarray(self.image), self.normalized_maps()[self._checked(k)].numpy(), **options)

    def grid(self, **options: Any) -> Image:
        """The photograph and all its maps side by side, with names; see `camplug.show.grid`."""
        from camplug.show import grid

        titles = [self.title(k) for k in range(len(self.maps))]
        return grid(np.asarray(self.image), list(self.normalized_maps().numpy()), titles, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a picture (.png, .jpg), or the numbers (.npz, without pickle; `Explanation.load` reads them).

        The file appears whole or not at all: it is written beside its place and then renamed.

        Raises:
            InputError: another ending, or the place cannot be written.
        """
        path = os.fspath(path)
        ending = os.path.splitext(path)[1].lower()
        if ending == ".npz":
            none: list[str] = []
            arrays = {
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
            write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
        elif ending in (".png", ".jpg", ".jpeg", ".webp"):
            picture = self.overlay() if len(self.maps) == 1 else self.grid()
            save_picture(picture, path)
        else:
            raise InputError(f"{path!r}: an explanation is saved as .png, .jpg, .webp (picture) or .npz (numbers).")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote as .npz.

        Raises:
            InputError: the file is missing, damaged, or something else.
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
            raise InputError(f"there is no file {os.fspath(path)!r}.") from None
        except Exception as error:
            raise InputError(f"{os.fspath(path)!r} is not an explanation saved by camplug ({error}).") from None

    def _checked(self, k: int) -> int:
        if not -len(self.maps) <= k < len(self.maps):
            raise InputError(f"map {k} does not exist; this explanation has {len(self.maps)}.")
        return k


def save_picture(picture: Image, path: str) -> None:
    """Write a picture in the format of the path's ending, whole or not at all.

    Raises:
        InputError: no such format, or the place cannot be written.
    """
    from PIL import Image as pil

    kind = pil.registered_extensions().get(os.path.splitext(path)[1].lower())
    if kind not in pil.SAVE:  # Pillow reads more formats than it writes
        raise InputError(f"{path!r}: pictures are written as .png, .jpg or .webp.")
    write_atomically(path, lambda file: picture.save(file, format=kind))


def write_atomically(path: str, write: Any) -> None:
    """Let `write(file)` fill a file beside `path`, then rename it.

    Raises:
        InputError: the folder is missing or may not be written, or the disk is full.
    """
    beside = f"{path}.{os.getpid()}.part"
    try:
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path!r} cannot be written ({error.strerror or error}).") from None
    finally:
        if os.path.exists(beside):
            os.remove(beside)
