"""Mask files: decoding of values or colours, and a check against the image labels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.wsss.data.class_list import BACKGROUND, IGNORED
from camplug.wsss.data.dataset import IGNORE
from camplug.wsss.data.read_files import read_text
from camplug.wsss.store.identity import make_digest, make_file_digest

MAX_COMPARED = 8  # masks compared with image labels before the first one is used
IGNORED_NAMES = (*IGNORED, "ignore", "ignored", "void")  # names for ignored values and colours


class MaskCode:
    """Meaning of the values or colours of mask files.

    Args:
        classes: names of the foreground classes.
        values: class names by value, or a text such as "255=crack,0=background"; other values keep their meaning: 0
            background, c + 1 for class c, 255 ignored.
        palette: file with the colours of classes, one "name:red,green,blue" per line (CVAT's labelmap.txt, for
            example); used for RGB masks and instead of palette indices.

    Attributes:
        is_given: True if `values` or `palette` define the meaning.

    Raises:
        InputError: a name is not a class, or a value, a line or a file cannot be read.
    """

    def __init__(
        self,
        classes: Sequence[str],
        values: str | Mapping[Any, str] | None = None,
        palette: str | os.PathLike[str] | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.table = np.full(256, -1, np.int16)
        self.table[: len(classes) + 1] = np.arange(len(classes) + 1)
        self.table[IGNORE] = IGNORE
        self.values = {} if values is None else self._read_values(values)
        for value, number in self.values.items():
            self.table[value] = number
        self.colours: dict[int, int] = {}
        if palette is not None:
            for name, colour in read_palette(Path(palette).expanduser()):
                self.colours[pack_colour(colour)] = self.get_mask_value(name, f"the palette {str(palette)!r}")
        self.is_given = bool(self.values or self.colours)

    def get_mask_value(self, name: str, where: str) -> int:
        """Return the mask value of a class, the background or ignored pixels by name.

        Raises:
            InputError: there is no such class.
        """
        if name in self.classes:
            return self.classes.index(name) + 1
        if name.lower() in BACKGROUND:
            return 0
        if name.lower() in IGNORED_NAMES:
            return IGNORE
        raise InputError(
            f"{where} names {name!r}; the classes are {', '.join(self.classes)}, and background and ignore do as well."
        )

    def _read_values(self, given: str | Mapping[Any, str]) -> dict[int, int]:
        where = f"mask values {given!r}"
        if isinstance(given, str):
            parts = re.split(r"(?:^|,)\s*(\d+)\s*=", given)
            pairs: list[tuple[Any, str]] = list(zip(parts[1::2], parts[2::2], strict=True))
            if parts[0].strip() or not pairs:
                raise InputError(f"{where} cannot be read; write for instance 255=crack,0=background.")
        else:
            pairs = list(given.items())
        found = {}
        for value, name in pairs:
            if not str(value).isdecimal() or int(value) > 255:
                raise InputError(f"{where} has the value {value!r}; give whole numbers from 0 to 255.")
            found[int(value)] = self.get_mask_value(str(name).strip(), where)
        return found

    def to_plain(self) -> list[Any]:
        """Return the given values and colours as plain data, for digests."""
        return [sorted(self.values.items()), sorted(self.colours.items())]

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read a mask PNG as class numbers, uint8 [H,W]: 0 background, c + 1 for class c, 255 ignored.

        Palette PNGs are read by index, or by colour if a palette is given.

        Raises:
            InputError: the file is missing, damaged, not a suitable PNG, or has unknown values or colours.
        """
        values, colours = open_mask(path, with_colours=bool(self.colours))
        if colours is not None:
            return self._decode_colours(colours, path)
        assert values is not None
        mask = self.table[values]
        if (mask < 0).any():
            other = int(values[mask < 0].min())
            raise InputError(
                f"the mask {str(path)!r} holds the value {other}; allowed are 0 (background), 1 to "
                f"{len(self.classes)} (the classes) and 255 (ignored)."
            )
        return mask.astype(np.uint8)

    def _decode_colours(self, colours: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        wide = colours.astype(np.int64)
        there, where = np.unique(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], return_inverse=True)
        unknown = [int(c) for c in there if int(c) not in self.colours]
        if unknown:
            rgb = ", ".join(str(unknown[0] >> shift & 255) for shift in (16, 8, 0))
            raise InputError(f"the mask {str(path)!r} holds the colour {rgb}, which the palette does not name.")
        numbers = np.array([self.colours[int(c)] for c in there], np.uint8)
        mask: NDArray[np.uint8] = numbers[where].reshape(colours.shape[:2])
        return mask


def read_mask(path: Path, classes: int) -> NDArray[np.uint8]:
    """Read a mask PNG's class numbers, uint8 [H,W]: 0 background, 1 to `classes`, 255 ignored; see `MaskCode.read`.

    Raises:
        InputError: the file is missing, damaged, not a palette or 8-bit grey PNG, or has other values.
    """
    return MaskCode([str(c) for c in range(classes)]).read(path)


def open_mask(path: Path, with_colours: bool) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Read a mask PNG; return either its values [H,W] or its colours [H,W,3].

    Args:
        path: file.
        with_colours: return colours, except of grey PNGs.

    Raises:
        InputError: the file is missing, damaged, or of another format.
    """
    try:
        with Image.open(path) as image:
            kind = f"{image.mode} {image.format}"
            # Pillow stretches grey of 1, 2 or 4 bits to 0..255, which would change the classes
            stretched = image.mode == "L" and any(tile[3] != "L" for tile in image.tile)
            if with_colours and kind in ("RGB PNG", "RGBA PNG", "P PNG"):
                return None, np.array(image.convert("RGB"))
            if kind in ("P PNG", "L PNG") and not stretched:
                return np.array(image), None
    except FileNotFoundError:
        raise InputError(f"there is no mask {str(path)!r}.") from None
    except Exception as error:  # decoders raise many kinds of errors on damaged files
        raise InputError(f"the mask {str(path)!r} is damaged or cannot be read ({error}).") from None
    depth = " of fewer than 8 bits" if stretched else ""
    colours = "; a file of the classes' colours (palette) makes RGB masks readable" if "RGB" in kind else ""
    raise InputError(
        f"the mask {str(path)!r} is a {kind}{depth}; save class numbers as a palette PNG or an 8-bit grey PNG{colours}."
    )


def read_palette(path: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """Read class names and their colours, one "name:red,green,blue" per line; "#" begins a comment.

    Raises:
        InputError: a line cannot be read, there are no lines, or a colour or name occurs twice.
    """
    found: list[tuple[str, tuple[int, int, int]]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.match(r"\s*(.+?)\s*:\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*(?::.*)?$", line)
        if match is None or max(int(match[k]) for k in (2, 3, 4)) > 255:
            raise InputError(f"{str(path)!r}, line {number}: {line.strip()!r} is no 'name:red,green,blue'.")
        found.append((match[1], (int(match[2]), int(match[3]), int(match[4]))))
    names, colours = [name for name, _ in found], [colour for _, colour in found]
    if not found or len(set(names)) < len(names) or len(set(colours)) < len(colours):
        raise InputError(f"{str(path)!r} must give every class one colour of its own, as 'name:red,green,blue'.")
    return found


def pack_colour(colour: tuple[int, int, int]) -> int:
    """Return a colour as one number.

    >>> pack_colour((1, 0, 2))
    65538
    """
    return colour[0] << 16 | colour[1] << 8 | colour[2]


class MaskFiles:
    """Mask files of a data set, compared with the image labels before the first one is used.

    Args:
        code: meaning of values or colours.
        file: function from an image's index to its mask file.
        ids: image names.
        labels: function from an image's index to its classes; None if they are unknown or come from the masks.
        source: data set on the command line, such as "folder:PATH", for messages.
    """

    def __init__(
        self,
        code: MaskCode,
        file: Callable[[int], Path],
        ids: Sequence[str],
        labels: Callable[[int], tuple[int, ...]] | None,
        source: str,
    ) -> None:
        self.code, self.file, self.ids, self.labels, self.source = code, file, ids, labels, source
        self._refusal: str | None = None

    def read(self, i: int) -> NDArray[np.uint8]:
        """Read image i's mask; see `MaskCode.read`.

        Raises:
            InputError: the mask cannot be read, or the masks contradict the image labels.
        """
        mask = self.code.read(self.file(i))
        if self._refusal is None:
            self._refusal = self._find_contradiction()
        if self._refusal:
            raise InputError(self._refusal)
        return mask

    def compute_digest(self, i: int) -> str:
        """Compute a digest of a mask file and of the meaning of its values.

        Raises:
            InputError: the file cannot be read.
        """
        of_file = make_file_digest(self.file(i), "mask")
        return make_digest([of_file, self.code.to_plain()]) if self.code.is_given else of_file

    def _find_contradiction(self) -> str:
        """Return an error message if none of a few masks shows a class of its image, else an empty text."""
        if self.code.is_given or self.labels is None:
            return ""
        first, compared = "", 0
        for i in range(0, len(self.ids), max(1, len(self.ids) // (4 * MAX_COMPARED))):
            try:
                labels, values = self.labels(i), np.unique(self.code.read(self.file(i))).tolist()
            except InputError:
                continue
            if not labels:
                continue
            if {c + 1 for c in labels} & set(values):
                return ""
            compared += 1
            first = first or self._describe_contradiction(self.ids[i], [self.code.classes[c] for c in labels], values)
            if compared == MAX_COMPARED:
                break
        if not compared:
            return ""
        of = f"none of {compared} masks shows" if compared > 1 else "the mask does not show"
        return f"{of} a class that its image is labelled with: {first}"

    def _describe_contradiction(self, name: str, labels: list[str], values: list[int]) -> str:
        meaning = {0: "background", IGNORE: "ignored"}
        names = [f"{v} ({meaning.get(v) or self.code.classes[v - 1]})" for v in values]
        value = IGNORE if IGNORE in values else next((v for v in values if v), "VALUE")
        example = f"{value}={labels[0]}"
        return (
            f"{name!r} is labelled {', '.join(labels)}, its mask holds {', '.join(names)}. Say what the values mean, "
            f"as in --mask-values {example} or '{self.source}?mask_values={example}', or mend classes.txt; "
            f"--mask-values {IGNORE}=ignore takes them as they are."
        )
