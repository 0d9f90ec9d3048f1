"""Super-classes, which exclude negatives that may show a similar class."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence

from camplug.errors import InputError

UNGROUPED = -1
SHOWN = 5  # classes named in a sentence

VOC_GROUPS: dict[str, tuple[str, ...]] = {
    "person": ("person",),
    "animal": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "vehicle": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    "indoor": ("bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor"),
}

COCO_GROUPS: dict[str, tuple[str, ...]] = {
    "person": ("person",),
    "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    "outdoor": ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "accessory": ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    "sports": (
        "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
        "surfboard", "tennis racket",
    ),
    "kitchen": ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    "food": (
        "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
    ),
    "furniture": ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    "electronic": ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    "appliance": ("microwave", "oven", "toaster", "sink", "refrigerator"),
    "indoor": ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
}  # fmt: skip

_NAMED = {"voc": VOC_GROUPS, "coco": COCO_GROUPS}


def get_group_numbers(classes: Sequence[str], groups: Mapping[str, Sequence[str]] | str | None) -> list[int]:
    """Return the number of every class's super-class.

    Args:
        classes: class names, in the order of the class numbers.
        groups: classes of every super-class; "voc" or "coco"; or None for no super-classes. It may contain classes
            that are not among `classes`.

    Returns:
        Numbers from 0 in the order of `groups`; -1 for all classes if `groups` is None.

    Raises:
        InputError: the groups are unknown, or a class is in no group or in two.

    >>> get_group_numbers(["cat", "dog", "train"], "voc")
    [1, 1, 2]
    """
    if groups is None:
        return [UNGROUPED] * len(classes)
    if isinstance(groups, str):
        if groups not in _NAMED:
            raise InputError(
                f"there are no groups {groups!r}{_hint(groups.lower(), _NAMED)}; give "
                f"{' or '.join(map(repr, _NAMED))}, a mapping of group names to class names, or None."
            )
        groups = _NAMED[groups]
    numbers: dict[str, int] = {}
    for number, (group, members) in enumerate(groups.items()):
        for name in [members] if isinstance(members, str) else members:
            if numbers.setdefault(name, number) != number:
                raise InputError(
                    f"class {name!r} is in two groups, {list(groups)[numbers[name]]!r} and {group!r}; leave it in one."
                )
    for name in classes:
        if name not in numbers:
            raise InputError(f"class {name!r} is in no group{_hint(name, numbers)}; every class needs one group.")
    return [numbers[name] for name in classes]


def find_known_groups(classes: Collection[str]) -> str | None:
    """Return "voc" for the 20 classes of VOC, "coco" for the 80 of COCO, None for others.

    >>> find_known_groups(["cat", "dog"])
    """
    for name, groups in _NAMED.items():
        if sorted(classes) == sorted(member for members in groups.values() for member in members):
            return name
    return None


def is_usable(negative_class: int, present_classes: Iterable[int], groups: Sequence[int]) -> bool:
    """Return whether a false positive of a class can represent the background of this class.

    It can if no class present in its image has the same super-class (a wheel of a bus is not background of cars; the
    trimmed prototypes of eq. 8 of the paper) and if this super-class has other classes. So person, alone in its group,
    has no usable negatives in VOC and in COCO, as in the authors' code.

    Args:
        negative_class: absent class with the false positive.
        present_classes: classes present in the image.
        groups: super-class of every class, from `get_group_numbers`; -1 is no super-class and makes all usable.

    >>> numbers = get_group_numbers(["bus", "car", "cat", "dog", "person"], "voc")
    >>> is_usable(1, [0], numbers), is_usable(1, [2, 4], numbers), is_usable(4, [2], numbers)
    (False, True, False)
    """
    group = groups[negative_class]
    if group == UNGROUPED:
        return True
    return list(groups).count(group) > 1 and all(groups[c] != group for c in present_classes)


def describe_unusable(classes: Sequence[str], counts: Sequence[int], usable: Sequence[bool]) -> str:
    """Describe the classes of a data set that pixel rectification has no effect on.

    Args:
        classes: class names.
        counts: number of images that show each class; a class that none shows is not named.
        usable: True for classes with usable negatives.

    Returns:
        One sentence with the classes, the most frequent first, and their share of all labels; "" if there are none.

    >>> describe_unusable(["cat", "dog", "car"], [10, 20, 10], [False, False, True])[:60]
    'pixel rectification leaves out dog, cat (75 % of the labels)'
    """
    left_out = [c for c, use in enumerate(usable) if counts[c] and not use]
    if not left_out:
        return ""
    left_out.sort(key=lambda c: -counts[c])
    names = ", ".join(classes[c] for c in left_out[:SHOWN]) + (" ..." if len(left_out) > SHOWN else "")
    share = 100 * sum(counts[c] for c in left_out) / sum(counts)
    return (
        f"pixel rectification leaves out {names} ({share:.0f} % of the labels): their maps light up falsely in no "
        "image, or only in images with a class of their group; give groups none to use these images, too, or weight 0."
    )


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
