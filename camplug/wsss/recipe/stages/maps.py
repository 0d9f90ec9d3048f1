"""Stage that spreads maps by a random walk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from typing_extensions import override

from camplug.settings import restore_part, to_plain
from camplug.wsss.pseudo import WalkedMapSettings, prepare_walked_seeds
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.graph import NamedNetwork, RecipeGraph
from camplug.wsss.recipe.stage import Inputs, Stage
from camplug.wsss.recipe.stages.base import ImageStage
from camplug.wsss.recipe.stages.cut import evaluate_maps
from camplug.wsss.recipe.walks import find_walk
from camplug.wsss.seeds import SeedFolder
from camplug.wsss.store.jobs import Report


class MapsStage(ImageStage):
    """Maps after a random walk."""

    name = "maps"
    inputs: ClassVar[Inputs] = {"seeds": ("maps",), "heads": ("network",), "network": ("network",)}
    output = "maps"
    panel = "refined maps"
    cost_note = "disk: maps of no training"

    @override
    def add_stages(self, graph: RecipeGraph) -> None:
        refine = graph.recipe.refine
        if refine.walk is None:
            return
        network = NamedNetwork() if graph.heads is None else graph.name_network(refine.backbone)
        heads = {} if graph.heads is None else {"heads": graph.heads}
        settings = {"kind": refine.kind, "walk": to_plain(refine.walk), "dtype": refine.dtype, "scale": refine.scale}
        settings |= refine.describe_size()
        walk = find_walk(refine.kind)
        if walk is not None and walk.version != 1:
            settings["version"] = walk.version
        for part, seeds in graph.maps.items():
            inputs = {"seeds": seeds, **heads, **network.inputs}
            stage = Stage(f"maps {part}", self.name, settings | network.settings, inputs, part, network.files)
            graph.maps[part] = graph.add(stage)
        evaluate_maps(graph, graph.recipe.pseudo_labels.threshold)

    @override
    def prepare(self, stage: Stage, context: StageContext) -> Callable[..., Report]:
        kind, options = stage.settings["kind"], stage.settings["walk"]
        heads = context.load_input(stage, "heads") if "heads" in stage.inputs else None
        kind_of_walk = find_walk(kind)
        assert kind_of_walk is not None
        walk = kind_of_walk.make(heads, **options)
        made_of: dict[str, Any] = {"kind": kind, "walk": options}
        if heads is not None:
            made_of["heads"] = context.digest_input(stage, "heads")
            made_of["network"] = context.describe_network(stage, heads.backbone.model)
        return prepare_walked_seeds(
            walk,
            restore_part(WalkedMapSettings, stage.settings),
            context.view(stage),
            SeedFolder(context.get_input(stage, "seeds")),
            partial(context.prepare_folder, stage, SeedFolder, made_of=made_of),
        )
