"""The sections of a recipe as settings; see `camplug.wsss.recipe.read`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from camplug.errors import InputError
from camplug.metrics import Convention
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.atm.method import ATM
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.settings import LearningSettings, SpanSettings
from camplug.wsss.crf import CRFSettings
from camplug.wsss.deeplab import DeepLabSettings
from camplug.wsss.fpr.method import FPR
from camplug.wsss.irn.settings import IRNSettings
from camplug.wsss.pseudo.refine import Threshold, crf_settings
from camplug.wsss.pseudo.walk_settings import AffinityNetWalkSettings, IRNWalkSettings
from camplug.wsss.recipe.data import ImageList
from camplug.wsss.rpnet.method import RPNet
from camplug.wsss.store.seed_folder import check_storage

METHODS: dict[str, type[Method]] = {m.name: m for m in (Method, ATM, RPNet, FPR)}
BEST = re.compile(r"best on (\w+)")
OTSU = "otsu"
HALF = 0.5  # where PSA's own background ends; see `AffinityNetWalk.maps`
PAPERS = 0.25  # of IRN's walked maps (Ahn, Cho & Kwak, CVPR 2019)


@dataclass(frozen=True)
class NetworkSettings:
    """A network by name.

    Args:
        model: as for `camplug.load_model`.
        checkpoint: a state dict to load into it.
        num_classes: of its head.
        pretrained: load the source's published weights; none does where no checkpoint is given.
        mean, std: of its normalisation, if it does not know its own: one number, or one for each colour.
    """

    model: str = "demo"
    checkpoint: str | None = None
    num_classes: int | None = None
    pretrained: bool | None = None
    mean: float | tuple[float, float, float] | None = None
    std: float | tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ClassifierSettings:
    """A classifier that is trained.

    Attributes:
        method: how, with its options.
        learning, span: see `camplug.wsss.classifier`.
        start: the network that it begins with, or another classifier.
        head: "keep" or "new"; none keeps a head that has the data's classes.
        output_stride: of the classifier.
        keep: "last", or "best" by the labels of the images of `validation`.
        validation: a list of the section data.
    """

    method: Method
    learning: LearningSettings
    span: SpanSettings
    start: NetworkSettings | ClassifierSettings
    head: Literal["keep", "new"] | None = None
    output_stride: int | None = None
    keep: Literal["last", "best"] = "last"
    validation: str | None = None


@dataclass(frozen=True)
class SeedSettings:
    """How the maps are made.

    Args:
        explainer: as for `camplug.create`.
        long_side: of the photographs as the model sees them.
        scale: of the stored maps.
        dtype: "uint8" or "float16".
        threshold: that they are scored at: a number, "best on" a list, or "otsu" (see `PseudoLabelling`); none is the
            best on the scored images, which the report calls optimistic. It cuts nothing.
    """

    explainer: str = "MultiView(CAM)"
    long_side: int | None = None
    scale: float = 1.0
    dtype: str = "uint8"
    threshold: float | str | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_storage(self.dtype, self.scale)


@dataclass(frozen=True)
class RefineSettings:
    """What the seeds become before they are cut.

    Attributes:
        kind: "none"; "crf", a dense CRF after the cut; "affinitynet" or "irn", a walk over learned affinities.
        backbone: what the heads stand on; none is the classifier.
        layers: that they read.
        training: of the heads.
        walk: its numbers.
        dtype: what the walked maps are stored in.
        scale: of the stored walked maps.
    """

    kind: Literal["none", "crf", "affinitynet", "irn"] = "none"
    backbone: NetworkSettings | None = None
    layers: str | tuple[str, ...] = "stages"
    training: IRNSettings | AffinityNetSettings | None = None
    walk: IRNWalkSettings | AffinityNetWalkSettings | None = None
    dtype: str = "uint8"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_storage(self.dtype, self.scale)


@dataclass(frozen=True)
class PseudoLabelSettings:
    """How maps become labels.

    Args:
        threshold: up to here a map is background: a number, "best on" a list of images with masks, or "otsu", which
            parts the values of all maps of train best into two, without a mask; see
            `camplug.wsss.seeds.compute_otsu_thresholds`.
        optimistic: the list may share images with those that are reported.
        crf: a name, settings, or none for no dense CRF.
        certainty: that the CRF begins with.
    """

    threshold: float | str | None = None
    optimistic: bool = False
    crf: CRFSettings | str | None = None
    certainty: float = 0.7

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        crf_settings(self.crf)
        if not 0 < self.certainty < 1:
            raise InputError(f"certainty={self.certainty:g}; give a probability between 0 and 1, such as 0.7.")


@dataclass(frozen=True)
class SegmentationSettings:
    """How the network that is trained at last is built and learns.

    Attributes:
        training: see `camplug.wsss.deeplab.DeepLabSettings`.
        backbone: what it is built on; none is the classifier.
        saliency: a folder, "contrast" or "spectral"; none goes without.
    """

    training: DeepLabSettings
    backbone: NetworkSettings | None = None
    saliency: str | None = None


@dataclass(frozen=True)
class PredictionSettings:
    """How its predictions are made; with a CRF they are made and scored without it, too.

    Args:
        scales: of the photographs.
        flip: also mirrored.
        fuse: "mean" or "max" over all views.
        crf: a name, settings, or none.
        long_side: photographs are first brought to this size.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    fuse: Literal["mean", "max"] = "mean"
    crf: CRFSettings | str | None = None
    long_side: int | None = None

    def __post_init__(self) -> None:
        crf_settings(self.crf)
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise InputError(f"scales={self.scales}; give at least one number, each above 0.")


@dataclass(frozen=True)
class EvaluationSettings:
    """What is scored, and how.

    Args:
        classes: that means are taken over, with the background; none takes all.
        convention: of the mIoU that thresholds are chosen by and that comes first; all three are told.
        products_on: lists on which seeds, refined maps and pseudo-labels are made and scored; train, maybe val.
        pictures: images that the report shows.
    """

    classes: tuple[str, ...] | None = None
    convention: Convention = "present"
    products_on: tuple[str, ...] = ("train",)
    pictures: int = 10

    def __post_init__(self) -> None:
        unknown = [name for name in self.products_on if name not in ("train", "val")]
        if unknown or "train" not in self.products_on:
            raise InputError(f"products_on={list(self.products_on)}; give [train] or [train, val].")
        if self.pictures < 0:
            raise InputError(f"pictures={self.pictures}; give 0 or more.")


@dataclass(frozen=True)
class Recipe:
    """The road from image labels to a segmentation network.

    Attributes:
        name: of its file.
        title: what it is, in a line.
        data: lists of images: train, and maybe val, threshold and score_on.
        text: all sections as they were read, with what was set on the command line.
    """

    name: str
    title: str
    data: dict[str, ImageList]
    classifier: NetworkSettings | ClassifierSettings
    seeds: SeedSettings = field(default_factory=SeedSettings)
    refine: RefineSettings = field(default_factory=RefineSettings)
    pseudo_labels: PseudoLabelSettings = field(default_factory=PseudoLabelSettings)
    deeplab: SegmentationSettings | None = None
    segment: PredictionSettings = field(default_factory=PredictionSettings)
    evaluate: EvaluationSettings = field(default_factory=EvaluationSettings)
    text: Mapping[str, Any] = field(default_factory=dict)


def check_threshold(value: float | str | None) -> None:
    """Refuse what is neither a threshold nor says where to choose one.

    Raises:
        InputError: so it is.
    """
    if isinstance(value, str) and value != OTSU and BEST.fullmatch(value) is None:
        raise InputError(f'threshold={value!r}; give a number, otsu, or "best on" a list of the section data.')
    if isinstance(value, (int, float)):
        Threshold(value)


def chosen_on(value: float | str | None) -> str | None:
    """The list that a threshold is chosen on, if it is.

    >>> chosen_on("best on threshold"), chosen_on(0.3)
    ('threshold', None)
    """
    found = BEST.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else found[1]
