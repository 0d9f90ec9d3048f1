"""Folders of instances: one JSON file with run lengths per image, and COCO files of all images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

from typing_extensions import override

from camplug.errors import InputError
from camplug.images.save import write_atomically
from camplug.wsss.data import SegmentationData
from camplug.wsss.data.coco import fill_outline
from camplug.wsss.data.run_lengths import encode_mask, import_pycocotools
from camplug.wsss.irn.instances import Instance
from camplug.wsss.store.identity import Inputs
from camplug.wsss.store.result_folder import ResultFolder

MADE_OF = "made_of"  # key of the text with the digests


@dataclass(frozen=True)
class ImageInstances:
    """Objects of one image.

    Attributes:
        instances: objects; their classes are those of the data, counted from 0.
        size: (height, width) of the photograph.
    """

    instances: tuple[Instance, ...]
    size: tuple[int, int]


class InstanceFolder(ResultFolder[ImageInstances]):
    """Folder of instances.

    Args:
        path: folder; `prepare` creates it.
    """

    what = "instances"
    suffix = ".rle.json"

    @override
    def prepare(self, settings: Mapping[str, Any], *, overwrite: bool = False, inputs: Inputs | None = None) -> Self:
        return super().prepare({"holds": self.what, **settings}, overwrite=overwrite, inputs=inputs)

    @override
    def is_whole(self, name: str) -> bool:
        try:
            return MADE_OF in self._read(name)
        except InputError:
            return False

    @override
    def read_digest_text(self, name: str) -> str | None:
        return str(self._read(name)[MADE_OF])

    @override
    def write(self, result: ImageInstances, file: IO[bytes], digest_text: str) -> None:
        found = [
            {"class": one.class_index, "score": one.score, "segmentation": encode_mask(one.mask)}
            for one in result.instances
        ]
        document = {"size": list(result.size), "instances": found, MADE_OF: digest_text}
        file.write((json.dumps(document) + "\n").encode())

    def load(self, name: str) -> ImageInstances:
        """Read the instances of an image.

        Raises:
            InputError: the file is missing or damaged.
        """
        document = self._read(name)
        height, width = document["size"]
        found = [
            Instance(one["class"], fill_outline(one["segmentation"], height, width), one["score"])
            for one in document["instances"]
        ]
        return ImageInstances(tuple(found), (height, width))

    def write_coco_files(self, data: SegmentationData, numbers: Iterable[int]) -> None:
        """Write instances to instances.json, a COCO data set, and to results.json, a list of COCO results.

        Args:
            data: images, with the classes of the folder.
            numbers: indices of the images; all must have a result.

        Raises:
            InputError: pycocotools is missing, or a file cannot be read or written.
        """
        document = self.make_coco_document(data, numbers)
        keys = ("image_id", "category_id", "segmentation", "score")
        results = [{key: one[key] for key in keys} for one in document["annotations"]]
        for name, content in (("instances.json", document), ("results.json", results)):
            text = (json.dumps(content) + "\n").encode()
            write_atomically(str(self.path / name), lambda file, text=text: file.write(text))

    def make_coco_document(self, data: SegmentationData, numbers: Iterable[int]) -> dict[str, Any]:
        """Return instances as a COCO data set, with the numbers of `SegmentationData.image_numbers` and classes."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in numbers:
            document, file = self._read(data.ids[i]), data.photo_file(i)
            height, width = document["size"]
            name = data.ids[i] if file is None else file.name
            images.append({"id": data.image_numbers[i], "file_name": name, "height": height, "width": width})
            for one in document["instances"]:
                known = {"id": len(annotations) + 1, "image_id": data.image_numbers[i], "iscrowd": 0}
                annotations.append(known | _describe_instance(one, data.class_numbers))
        categories = [{"id": c, "name": name} for c, name in zip(data.class_numbers, data.classes, strict=True)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _read(self, name: str) -> dict[str, Any]:
        path = self.get_path(name)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"there are no instances {str(path)!r}.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"the instances {str(path)!r} are damaged or cannot be read ({error}).") from None
        if not isinstance(document, dict):
            raise InputError(f"{str(path)!r} holds no instances.")
        return document


def _describe_instance(stored: Mapping[str, Any], class_numbers: Sequence[Any]) -> dict[str, Any]:
    """Return a stored instance as in COCO files."""
    coding, mask = import_pycocotools(), stored["segmentation"]
    return {
        "category_id": class_numbers[stored["class"]],
        "segmentation": mask,
        "area": int(coding.area(mask)),
        "bbox": coding.toBbox(mask).tolist(),
        "score": stored["score"],
    }
