"""The stages of a recipe as plain data, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from camplug.errors import InputError
from camplug.models import FILES
from camplug.settings import to_plain
from camplug.wsss.data import SegmentationData
from camplug.wsss.pseudo.refine import crf_settings
from camplug.wsss.recipe.recipe_settings import (
    OTSU,
    ClassifierSettings,
    NetworkSettings,
    Recipe,
    RefineSettings,
    chosen_on,
)
from camplug.wsss.store.identity import MISSING, make_photograph_table

# raised whenever a stage makes something else of the same settings
VERSIONS = {
    "classifier": 1,
    "seeds": 1,
    "affinities": 1,
    "maps": 1,
    "cut": 1,
    "labels": 1,
    "deeplab": 1,
    "predictions": 1,
    "evaluate": 1,
}
READS = {  # what stages use of their images
    "classifier": ("photographs", "labels"),
    "seeds": ("photographs", "labels"),
    "affinities": ("photographs",),
    "maps": ("photographs",),
    "cut": (),
    "labels": ("photographs",),
    "deeplab": ("photographs",),
    "predictions": ("photographs",),
    "evaluate": ("photographs", "masks"),
}
OF_MAPS = ("seeds", "maps")
Data = Mapping[str, SegmentationData]


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of the road.

    Attributes:
        name: its own among all of a recipe.
        kind: what it does; see `camplug.wsss.recipe.work`.
        settings: plain data, as in JSON.
        inputs: the stages that it takes something from, by what that is.
        part: the list of images that it goes through.
        files: weights that it reads, by what they are.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    part: str | None = None
    files: tuple[str, ...] = ()

    @property
    def scores(self) -> bool:
        """Whether it opens masks."""
        return self.kind == "evaluate"


def stages_of(recipe: Recipe, data: Data) -> list[Stage]:
    """All stages, each behind those that it takes something from.

    Args:
        recipe: the settings.
        data: the lists of images that are on disk.

    Raises:
        InputError: a threshold is to be chosen on images that are reported, or that have no masks.
    """
    return _Road(recipe, data).stages


def shared_photographs(one: SegmentationData, other: SegmentationData) -> int:
    """Return how many photographs are in both lists, whatever their names."""
    tables = (set(make_photograph_table(data).values()) - {MISSING} for data in (one, other))
    return len(set.intersection(*tables))


class _Road:
    def __init__(self, recipe: Recipe, data: Data) -> None:
        self.recipe, self.data = recipe, data
        self.stages: list[Stage] = []
        self.pictured = "val" if "val" in recipe.evaluate.products_on else self.scored("train")
        self.truth = False  # whether a stage draws it already
        self.source = self.classifier(recipe.classifier, "classifier")
        seeds = {part: self.seeds(part) for part in self.places()}
        self.evaluate_maps(seeds, recipe.seeds.threshold if self.walks else self.cut)
        maps = seeds
        if self.walks:
            heads = self.affinities(seeds["train"])
            maps = {part: self.maps(part, seeds[part], heads) for part in seeds}
            self.evaluate_maps(maps, self.cut)
        labels = {part: self.labels(part, maps) for part in recipe.evaluate.products_on}
        for part, stage in labels.items():
            self.evaluate(stage, self.scored(part))
        if recipe.deeplab is not None:
            self.deeplab(labels["train"])

    @property
    def walks(self) -> bool:
        return self.recipe.refine.walk is not None

    @property
    def cut(self) -> float | str | None:
        return self.recipe.pseudo_labels.threshold

    def add(self, stage: Stage) -> Stage:
        self.stages.append(stage)
        return stage

    def places(self) -> list[str]:
        """The lists on which seeds are made: those of the products, and those that thresholds are chosen on."""
        recipe = self.recipe
        places = list(recipe.evaluate.products_on)
        for value in (recipe.seeds.threshold, self.cut):
            part = chosen_on(value)
            if part is not None and self.holder(part) not in places:
                places.append(self.holder(part))
        self.check_choice()
        return places

    def check_choice(self) -> None:
        """Refuse to choose a threshold on what is reported, unless that is said to be meant."""
        part = chosen_on(self.cut)
        if part is None or part not in self.data:
            return
        if not self.data[part].has_masks:
            raise InputError(
                f"pseudo_labels.threshold = {self.cut!r}: data.{part} has no masks to choose on; give a number, or a "
                "list of images with masks."
            )
        if self.recipe.pseudo_labels.optimistic:
            return
        for other in self.reported():
            shared = shared_photographs(self.data[part], self.data[other]) if other in self.data else 0
            if shared:
                raise InputError(
                    f"pseudo_labels.threshold = {self.cut!r}: {shared} of these images are reported in "
                    f"data.{other}, and figures on masks that a threshold was chosen on are optimistic; choose on "
                    "other images, or say pseudo_labels.optimistic: true."
                )

    def reported(self) -> list[str]:
        """The lists that figures are told of."""
        found = [self.scored(part) for part in self.recipe.evaluate.products_on]
        return found + ["val"] * ("val" in self.recipe.data and "val" not in found)

    def scored(self, part: str) -> str:
        """The list that the products of another one are scored on."""
        return "score_on" if part == "train" and "score_on" in self.recipe.data else part

    def holder(self, part: str) -> str:
        """The list among whose products those of another one are found: train, if it holds all its images."""
        this, train = self.recipe.data[part], self.recipe.data["train"]
        if (this.data, this.options) != (train.data, train.options):
            return part
        if part in self.data and "train" in self.data:
            return "train" if set(self.data[part].ids) <= set(self.data["train"].ids) else part
        return "train" if part == "score_on" else part

    def network(self, source: NetworkSettings | Stage) -> dict[str, Any]:
        """How a stage names a network: by its text and its files, or by the stage that trains it."""
        if isinstance(source, Stage):
            return {"settings": {}, "inputs": {"network": source}, "files": ()}
        files = [source.checkpoint, source.model if source.model.endswith(FILES) else None]
        named = {"network": to_plain(source)}
        return {"settings": named, "inputs": {}, "files": tuple(file for file in files if file)}

    def classifier(self, what: NetworkSettings | ClassifierSettings, name: str) -> NetworkSettings | Stage:
        if isinstance(what, NetworkSettings):
            return what
        begins = self.network(self.classifier(what.start, f"{name} start"))
        settings = {
            "method": {"name": what.method.name, **to_plain(what.method)},
            "learning": to_plain(what.learning),
            "span": to_plain(what.span),
            "head": what.head,
            "output_stride": what.output_stride,
            "keep": what.keep,
            "validation": what.validation,
        }
        return self.add(
            Stage(name, "classifier", settings | begins["settings"], begins["inputs"], "train", begins["files"])
        )

    def seeds(self, part: str) -> Stage:
        seeds, net = self.recipe.seeds, self.network(self.source)
        settings = {k: v for k, v in to_plain(seeds).items() if k != "threshold"} | net["settings"]
        return self.add(Stage(f"seeds {part}", "seeds", settings, net["inputs"], part, net["files"]))

    def affinities(self, seeds: Stage) -> Stage:
        refine = self.recipe.refine
        net = self.network(self.backbone(refine.backbone))
        settings = {"kind": refine.kind, "layers": to_plain(refine.layers), "training": to_plain(refine.training)}
        inputs = {"seeds": seeds, **net["inputs"]}
        return self.add(Stage("affinities", "affinities", settings | net["settings"], inputs, "train", net["files"]))

    def backbone(self, own: NetworkSettings | None) -> NetworkSettings | Stage:
        return self.source if own is None else own

    def maps(self, part: str, seeds: Stage, heads: Stage) -> Stage:
        refine: RefineSettings = self.recipe.refine
        net = self.network(self.backbone(refine.backbone))
        stored = {"dtype": refine.dtype, "scale": refine.scale}
        settings = {"kind": refine.kind, "walk": to_plain(refine.walk), **stored} | net["settings"]
        inputs = {"seeds": seeds, "heads": heads, **net["inputs"]}
        return self.add(Stage(f"maps {part}", "maps", settings, inputs, part, net["files"]))

    def labels(self, part: str, maps: Mapping[str, Stage]) -> Stage:
        how = self.recipe.pseudo_labels
        settings = {"threshold": how.threshold, "crf": to_plain(crf_settings(how.crf)), "certainty": how.certainty}
        inputs = {"maps": maps[part]}
        chosen = self.choice(maps, how.threshold)
        if chosen is not None:
            inputs["choice"] = chosen
        return self.add(Stage(f"labels {part}", "labels", settings, inputs, part))

    def evaluate_maps(self, maps: Mapping[str, Stage], threshold: float | str | None) -> None:
        for part in self.recipe.evaluate.products_on:
            self.evaluate(maps[part], self.scored(part), threshold=threshold, chosen=self.choice(maps, threshold))

    def choice(self, maps: Mapping[str, Stage], threshold: float | str | None) -> Stage | None:
        """The stage that chooses a threshold, if it is to be chosen."""
        part = chosen_on(threshold)
        if part is None and threshold != OTSU:
            return None
        product = maps["train" if part is None else self.holder(part)]
        name = f"cut {product.kind}" if part is None else f"choose {product.kind} {part}"
        known = [stage for stage in self.stages if stage.name == name]
        if known:
            return known[0]
        if part is None:
            return self.add(Stage(name, "cut", {}, {"maps": product}, "train"))
        return self.evaluate(product, part, name=name)

    def evaluate(
        self,
        product: Stage,
        scored: str,
        *,
        threshold: float | str | None = None,
        chosen: Stage | None = None,
        name: str | None = None,
    ) -> Stage | None:
        """Score a product, where there are masks."""
        if scored in self.data and not self.data[scored].has_masks:
            return None
        how = self.recipe.evaluate
        settings: dict[str, Any] = {"convention": how.convention, "classes": to_plain(how.classes)}
        if product.kind in OF_MAPS:
            settings |= {"threshold": threshold}
        if scored == self.pictured and not self.truth and how.pictures:
            self.truth = True
            settings["truth"] = how.pictures
        inputs = {"product": product} | ({} if chosen is None else {"choice": chosen})
        return self.add(Stage(name or f"evaluate {product.name}", "evaluate", settings, inputs, scored))

    def deeplab(self, labels: Stage) -> None:
        how = self.recipe.deeplab
        assert how is not None
        net = self.network(self.backbone(how.backbone))
        settings = {"training": to_plain(how.training), "saliency": how.saliency} | net["settings"]
        inputs = {"labels": labels, **net["inputs"]}
        trained = self.add(Stage("deeplab", "deeplab", settings, inputs, "train", net["files"]))
        if self.pictured != "val" and self.recipe.evaluate.pictures:
            self.predictions(trained, self.pictured, {"only": self.recipe.evaluate.pictures}, "pictures")
        if "val" not in self.recipe.data:
            return
        for crf in dict.fromkeys((None, "crf" if crf_settings(self.recipe.segment.crf) else None)):
            name = "val" if crf is None else "crf val"
            self.evaluate(self.predictions(trained, "val", {}, name, crf is not None), "val")

    def predictions(self, trained: Stage, part: str, more: dict[str, Any], name: str, crf: bool = False) -> Stage:
        how = self.recipe.segment
        settings = to_plain(how) | {"crf": to_plain(crf_settings(how.crf)) if crf else None} | more
        return self.add(Stage(f"predictions {name}", "predictions", settings, {"deeplab": trained}, part))
