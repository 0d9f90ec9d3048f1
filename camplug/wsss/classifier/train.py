"""Training of a classifier by any method, from image-level labels to a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import Unpack, override

from camplug.errors import InputError
from camplug.plug import unwrap
from camplug.wsss.class_names import renumber_data
from camplug.wsss.classifier.checkpoint import CLASSIFIER_FILE
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.label_checks import Keep, choose_keep, warn_about_constant_classes
from camplug.wsss.classifier.lightning_module import VALIDATION
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.network import Classifier, build_classifier, get_classifier_settings
from camplug.wsss.classifier.settings import LearningSettings, SpanSettings
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.identity import Inputs, hash_names, hash_weights
from camplug.wsss.train.fit import check_batch
from camplug.wsss.train.folder import compute_tables
from camplug.wsss.train.options import TrainOptions
from camplug.wsss.train.result import TrainingResult
from camplug.wsss.train.task import FitInputs, NetworkTask
from camplug.wsss.train.unreadable import find_readable


def train_classifier(
    model: nn.Module,
    data: SegmentationData,
    out: str | Path,
    *,
    method: Method | None = None,
    learning: LearningSettings | None = None,
    span: SpanSettings | None = None,
    validation: SegmentationData | None = None,
    keep: Keep = "last",
    output_stride: int | None = None,
    keep_head: bool | None = None,
    **options: Unpack[TrainOptions],
) -> TrainingResult[Classifier]:
    """Train a multi-label classifier on image-level labels and write `out`/classifier.pt. Masks are never read.

    After an interruption, the same call resumes after the last full epoch and gives the same classifier. Training runs
    on the model's device, on a copy of the model. Under torchrun every process makes the same call.

    Args:
        model: base network of the classifier; see `build_classifier`.
        data: photographs with labels.
        out: folder for checkpoints, losses and the classifier.
        method: `Method()` for ordinary training, or `ATM`, `RPNet` or `FPR` with their options.
        learning: optimizer, frozen layers and loss; by default as in IRN's code.
        span: epochs, batch and crops; by default as in IRN's code.
        validation: labelled images for the mean average precision after every epoch, which the losses contain, too.
        keep: "last" keeps the weights of the last epoch, "best" those with the best mean average precision on the
            validation images; if these images cannot rank epochs, the last ones with a warning. Both rules use
            image-level labels only.
        output_stride: see `Classifier`.
        keep_head: keep the model's trained head; by default where it has the data's classes, in any order; see
            `build_classifier`.
        options: see `TrainOptions`.

    Raises:
        InputError: `out` holds a training of other settings, no image or too few are readable, or an option is out of
            range.
        ModelError: the model cannot be cut at its last map, or has no trained head where the method needs one, or the
            loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    plan = ClassifierPlan(method or Method(), learning or LearningSettings(), span or SpanSettings(), validation, keep)
    return ClassifierTask(model, data, out, plan, output_stride, keep_head, options).run()


@dataclass(frozen=True)
class ClassifierPlan:
    """Method and settings of a training; see `train_classifier`.

    Raises:
        InputError: `keep` is unknown or lacks validation images, or the batch holds no whole groups of the method.
    """

    method: Method
    learning: LearningSettings
    span: SpanSettings
    validation: SegmentationData | None
    keep: Keep

    def __post_init__(self) -> None:
        if self.keep not in ("last", "best"):
            raise InputError(f"keep={self.keep!r}; allowed are last and best.")
        if self.keep == "best" and self.validation is None:
            raise InputError("keep='best' chooses by validation images; give some, or keep the last weights.")
        if self.span.batch % self.method.group:
            group = self.method.group
            raise InputError(f"batch={self.span.batch}: a batch holds groups of {group} images; give a multiple.")

    @property
    def batch(self) -> int:
        """Items per step."""
        return self.span.batch // self.method.group


class ClassifierTask(NetworkTask[Classifier]):
    """Training of a classifier; see `train_classifier`."""

    name = "classifier"
    span = "span"
    format = CLASSIFIER_FILE

    def __init__(  # noqa: PLR0917
        self,
        model: nn.Module,
        data: SegmentationData,
        out: str | Path,
        plan: ClassifierPlan,
        output_stride: int | None,
        keep_head: bool | None,
        options: TrainOptions,
    ) -> None:
        super().__init__(model, data, out, options)
        self.plan, self.training = plan, plan.span
        self.is_steady = plan.learning.schedule.is_steady and not getattr(plan.method, "ramp", 0)
        self.validation = plan.validation
        if self.validation is not None:
            self.validation = renumber_data(self.validation, self.data.classes, "the data to train on")
        self.allow_missing = self.options["allow_missing"]
        self.indices, self.missing = find_readable(self.data, labels=True, allow_missing=self.allow_missing)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.span.seed)
            self.network = build_classifier(
                model,
                self.data.classes,
                neck=plan.method.get_neck_settings(),
                output_stride=output_stride,
                keep_head=True if plan.method.needs_trained else keep_head,
                preprocess=self.options["preprocess"],
            )
        self.crops = self._make_crops(self.data, seed=plan.span.seed, indices=self.indices)
        self.crops.substitutes.leave_out(self.indices)
        self.items = plan.method.make_items(self.crops)
        check_batch(self.items, plan.batch)

    def _make_crops(self, data: SegmentationData, **options: Any) -> ClassifierCrops:
        span, mean = self.plan.span, self.network.preprocess.mean
        return ClassifierCrops(
            data, crop=span.crop, sides=span.sides, mean=mean, allow_missing=self.allow_missing, **options
        )

    @override
    def describe(self) -> dict[str, Any]:
        plan, held_out = self.plan, None
        if self.validation is not None:
            digests = Inputs(compute_tables(self.validation)).make_digests()
            held_out = {"list_sha256": hash_names(self.validation), "keep": plan.keep, **digests}
        return {
            "classes": list(self.data.classes),
            "validation": held_out,
            "method": {"name": plan.method.name, **asdict(plan.method)},
            "learning": asdict(plan.learning),
            "span": asdict(plan.span),
            "model": dict(self.made_with),
            "start": hash_weights(unwrap(self.model)),
            "network": get_classifier_settings(self.network),
        }

    @override
    def compute_tables(self) -> dict[str, dict[str, str]]:
        return compute_tables(self.data)

    @override
    def prepare(self) -> FitInputs:
        plan, crops = self.plan, self.crops
        warn_about_constant_classes(self.data, self.indices)
        unreadable = [(crops.substitutes, self.missing)]
        options: dict[str, Any] = {}
        if self.validation is not None:
            shown, missing = find_readable(self.validation, labels=True, allow_missing=self.allow_missing)
            held_out = self._make_crops(self.validation, indices=shown, deterministic=True)
            keep = choose_keep(plan.keep, self.validation, shown)
            options = {"validation": held_out, "best": VALIDATION if keep == "best" else None}
            unreadable.append((held_out.substitutes, missing))
        torch.manual_seed(plan.span.seed)  # for modules of the method
        module = plan.method.make_module(self.network, plan.learning, crops)
        return FitInputs(module, self.items, len(crops), plan.batch, unreadable, options)

    @override
    def describe_network(self, network: Classifier) -> str:
        return f"a classifier of {len(network.classes)} classes"
