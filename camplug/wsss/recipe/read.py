"""Read a recipe from YAML or TOML, with values set on the command line, and check all of it before anything runs."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.settings import check_names, list_settings, prefix_errors, restore_settings, to_plain, update_settings
from camplug.wsss.affinitynet.settings import AffinityNetSettings
from camplug.wsss.classifier.method import Method
from camplug.wsss.classifier.settings import get_preset
from camplug.wsss.deeplab import DeepLabSettings
from camplug.wsss.fpr.method import FPR
from camplug.wsss.irn.settings import IRNSettings
from camplug.wsss.pseudo import AffinityNetWalk, IRNWalk
from camplug.wsss.pseudo.refine import crf_settings
from camplug.wsss.pseudo.walk_settings import AffinityNetWalkSettings, IRNWalkSettings
from camplug.wsss.recipe.data import VARIABLE, ImageList
from camplug.wsss.recipe.recipe_settings import (
    HALF,
    METHODS,
    PAPERS,
    ClassifierSettings,
    EvaluationSettings,
    NetworkSettings,
    PredictionSettings,
    PseudoLabelSettings,
    Recipe,
    RefineSettings,
    SeedSettings,
    SegmentationSettings,
    chosen_on,
)

SECTIONS = ("title", "data", "classifier", "seeds", "refine", "pseudo_labels", "deeplab", "segment", "evaluate")
PARTS = ("train", "val", "threshold", "score_on")
OF_TRAINING = ("method", "preset", "start", "head", "output_stride", "keep", "validation")


def shipped() -> dict[str, str]:
    """The recipes that come with camplug: their names and titles."""
    import yaml

    folder = resources.files("camplug.wsss.recipe") / "recipes"
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".yaml"))
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in found}
    return {name.removesuffix(".yaml"): str(yaml.safe_load(text).get("title", "")) for name, text in texts.items()}


def read_recipe(
    path: str | os.PathLike[str], changes: Sequence[str] = (), data_root: str | os.PathLike[str] | None = None
) -> Recipe:
    """The recipe of a file, or of the name of a shipped one.

    Args:
        path: a .yaml, .yml or .toml file, or a name of `shipped`.
        changes: "section.setting=value", each in place of what the file says; values are read as YAML.
        data_root: what stands for every ${NAME} in the section data; None takes environment variables.

    Raises:
        InputError: no such file or recipe; a section that is missing, a setting that does not exist, with the nearest
            one that does, or a value that is out of its range.
    """
    name, sections = _opened(Path(path))
    for change in changes:
        _set(sections, change)
    root = None if data_root is None else str(data_root)
    return recipe_of(_expanded(sections, "", root), name)


def recipe_of(sections: Mapping[str, Any], name: str = "recipe") -> Recipe:
    """The recipe of sections, as YAML gives them.

    Raises:
        InputError: as `read_recipe`.
    """
    check_names(sections, SECTIONS, "")
    parts = _data(_section(sections, "data", needed="for instance data: {train: {data: 'voc:PATH', split: train_aug}}"))
    seeds: SeedSettings = update_settings(SeedSettings(), _section(sections, "seeds"), "seeds")
    refine = _refine(_section(sections, "refine"))
    evaluate: EvaluationSettings = update_settings(EvaluationSettings(), _section(sections, "evaluate"), "evaluate")
    given = sections.get("deeplab")
    recipe = Recipe(
        name=name,
        title=str(sections.get("title", "")),
        data=parts,
        classifier=_classifier(
            _section(sections, "classifier", needed="for instance classifier: {given: {model: demo}}"), "classifier"
        ),
        seeds=seeds,
        refine=refine,
        pseudo_labels=_pseudo_labels(_section(sections, "pseudo_labels"), refine.kind),
        deeplab=None if given in (None, "none", False) else _deeplab(_section(sections, "deeplab")),
        segment=update_settings(PredictionSettings(), _section(sections, "segment"), "segment"),
        evaluate=evaluate,
        text=to_plain(dict(sections)),
    )
    _check(recipe)
    return recipe


def _opened(path: Path) -> tuple[str, dict[str, Any]]:
    """The name of a recipe and its sections."""
    import yaml

    names = list(shipped())
    suffix = path.suffix.lower()
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise InputError(f"the recipe {str(path)!r} cannot be read as a text file.") from None
    elif str(path).removesuffix(".yaml") in names:
        file = resources.files("camplug.wsss.recipe") / "recipes" / f"{str(path).removesuffix('.yaml')}.yaml"
        text, suffix = file.read_text(encoding="utf-8"), ".yaml"
    else:
        raise InputError(
            f"there is no recipe {str(path)!r}; give a .yaml or .toml file, or one of those that come with camplug: "
            f"{', '.join(names)}."
        )
    try:
        if suffix == ".toml":
            found: Any = tomllib.loads(text)
        elif suffix in (".yaml", ".yml"):
            found = yaml.safe_load(text)
        else:
            raise InputError(f"{str(path)!r}: a recipe is a .yaml, .yml or .toml file.")
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({' '.join(str(error).split())}).") from None
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} holds no sections; a recipe has {', '.join(SECTIONS)}.")
    return path.name.removesuffix(suffix), found


def _set(sections: dict[str, Any], change: str) -> None:
    """Put "a.b=value" in place."""
    import yaml

    path, equals, text = change.partition("=")
    names = [name.strip() for name in path.split(".")]
    if not equals or not all(names):
        raise InputError(f"--set {change!r} cannot be read; write for instance --set seeds.explainer=CAM.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    place: Any = sections
    for name in names[:-1]:
        if not isinstance(place.get(name), dict):
            place[name] = {}
        place = place[name]
    place[names[-1]] = value


def _expanded(value: Any, where: str, root: str | None) -> Any:
    """Values with ${NAME} replaced; what is not set stays, to be told when it is needed."""
    if isinstance(value, dict):
        return {k: _expanded(v, f"{where}.{k}".lstrip("."), root) for k, v in value.items()}
    if isinstance(value, list):
        return [_expanded(v, where, root) for v in value]
    if not isinstance(value, str):
        return value
    of_data = root if where.startswith("data.") else None
    return VARIABLE.sub(lambda m: of_data if of_data is not None else os.environ.get(m[1], m[0]), value)


def _section(sections: Mapping[str, Any], name: str, needed: str | None = None) -> dict[str, Any]:
    found = sections.get(name)
    if found is None and needed is not None:
        raise InputError(f"the section {name} is missing; write {needed}.")
    if found is not None and not isinstance(found, Mapping):
        raise InputError(f"{name} = {found!r} is no section; write its settings below it, indented.")
    return dict(found or {})


def _data(section: dict[str, Any]) -> dict[str, ImageList]:
    check_names(section, PARTS, "data")
    if "train" not in section:
        raise InputError("data.train is missing; write for instance train: {data: 'voc:PATH', split: train_aug}.")
    parts = {}
    for name in section:
        part = _section(section, name)
        if "data" not in part:
            raise InputError(f"data.{name}.data is missing; write for instance 'voc:VOCdevkit/VOC2012'.")
        parts[name] = update_settings(ImageList(""), part, f"data.{name}")
    return parts


def _classifier(section: dict[str, Any], where: str) -> NetworkSettings | ClassifierSettings:
    check_names(section, ("given", "train"), where)
    if len(section) != 1:
        raise InputError(f"{where}: give either given (a trained one) or train (how to train it).")
    if "given" in section:
        return update_settings(NetworkSettings(), _section(section, "given"), f"{where}.given")
    return _training(_section(section, "train"), f"{where}.train")


def _training(section: dict[str, Any], where: str) -> ClassifierSettings:
    name = section.get("method", "classifier")
    if name not in METHODS:
        raise InputError(f"{where}.method = {name!r}; allowed are {', '.join(METHODS)}.")
    with prefix_errors(where):
        learning, span = get_preset(str(section.get("preset", "irn")))
    method: Method = METHODS[name]()
    groups: list[Any] = [method, learning, span]
    network = list_settings(NetworkSettings())
    of_groups = [n for group in groups for n in list_settings(group)]
    check_names(section, [*OF_TRAINING, *network, *of_groups], where)
    start: NetworkSettings | ClassifierSettings
    if "start" in section:
        idle = [n for n in network if n in section]
        if idle:
            raise InputError(f"{where}.{idle[0]} has no effect beside start, which names the network; leave it out.")
        start = _classifier(_section(section, "start"), f"{where}.start")
    else:
        start = update_settings(NetworkSettings(), {k: v for k, v in section.items() if k in network}, where)
    if isinstance(method, FPR) and "start" not in section:
        raise InputError(f"{where}: fpr goes on with a trained classifier; describe it in {where}.start.")
    made = [update_settings(g, {k: v for k, v in section.items() if k in list_settings(g)}, where) for g in groups]
    own = {k: v for k, v in section.items() if k in ("head", "output_stride", "keep", "validation")}
    base = ClassifierSettings(made[0], made[1], made[2], start)
    hints = {"head": ("keep", "new"), "keep": ("last", "best")}
    for key, allowed in hints.items():
        if own.get(key) is not None and own[key] not in allowed:
            raise InputError(f"{where}.{key} = {own[key]!r}; allowed are {', '.join(allowed)}.")
    return replace(base, **own)


def _refine(section: dict[str, Any]) -> RefineSettings:
    kind = section.get("kind") or "none"
    allowed = {"irn": IRNWalkSettings, "affinitynet": AffinityNetWalkSettings}
    if kind not in (*allowed, "none", "crf"):
        raise InputError(f"refine.kind = {kind!r}; allowed are none, crf, affinitynet, irn.")
    if kind not in allowed:
        idle = [name for name in section if name != "kind"]
        if idle:
            raise InputError(f"refine.{idle[0]} has no effect with kind: {kind}; leave it out.")
        return restore_settings(RefineSettings, {"kind": kind})
    check_names(section, ("kind", "backbone", "layers", "training", "walk", "dtype", "scale"), "refine")
    training: Any = IRNSettings() if kind == "irn" else AffinityNetSettings()
    walk = update_settings(allowed[kind](), _section(section, "walk"), "refine.walk")
    tried: Any = IRNWalk if kind == "irn" else AffinityNetWalk
    with prefix_errors("refine.walk"):
        tried(None, **to_plain(walk))  # refuses what is out of range
    own: dict[str, Any] = {k: section[k] for k in ("layers", "dtype", "scale") if k in section}
    base = update_settings(RefineSettings("irn" if kind == "irn" else "affinitynet"), own, "refine")
    return RefineSettings(
        base.kind,
        _backbone(section, "refine"),
        base.layers,
        update_settings(training, _section(section, "training"), "refine.training"),
        walk,
        base.dtype,
        base.scale,
    )


def _backbone(section: dict[str, Any], where: str) -> NetworkSettings | None:
    found = section.get("backbone", "classifier")
    if found == "classifier":
        return None
    if isinstance(found, str):
        found = {"model": found}
    if not isinstance(found, Mapping):
        raise InputError(f"{where}.backbone = {found!r}; give classifier, or a network: {{model: timm:resnet50}}.")
    return update_settings(NetworkSettings(), found, f"{where}.backbone")


def _pseudo_labels(section: dict[str, Any], kind: str) -> PseudoLabelSettings:
    usual: dict[str, Any] = {"crf": {"none": None, "affinitynet": "affinitynet"}.get(kind, "irn")}
    usual["threshold"] = {"irn": PAPERS, "affinitynet": HALF}.get(kind)
    found: PseudoLabelSettings = update_settings(PseudoLabelSettings(), usual | section, "pseudo_labels")
    if found.threshold is None:
        raise InputError(
            "pseudo_labels.threshold is missing: up to which value a map is background; give a number, or "
            '"best on threshold" and the list data.threshold.'
        )
    if kind == "crf" and crf_settings(found.crf) is None:
        raise InputError("pseudo_labels.crf = none leaves refine.kind: crf without one; set refine.kind: none.")
    return found


def _deeplab(section: dict[str, Any]) -> SegmentationSettings:
    training = DeepLabSettings()
    own = {k: v for k, v in section.items() if k not in ("backbone", "saliency")}
    check_names(section, ["backbone", "saliency", *list_settings(training)], "deeplab")
    saliency = section.get("saliency")
    saliency = None if saliency in (None, "none") else str(saliency)
    made = SegmentationSettings(update_settings(training, own, "deeplab"), _backbone(section, "deeplab"), saliency)
    if (made.training.network.refinement > 0) != (saliency is not None):
        raise InputError(
            "deeplab.refinement and deeplab.saliency go together: give both (saliency: contrast, spectral or a folder) "
            "or none."
        )
    return made


def _check(recipe: Recipe) -> None:
    """What concerns several sections."""
    import camplug

    with prefix_errors("seeds.explainer"):
        camplug.create(recipe.seeds.explainer, _example())
    for where, value in (("seeds", recipe.seeds.threshold), ("pseudo_labels", recipe.pseudo_labels.threshold)):
        part = chosen_on(value)
        if part is not None and part not in recipe.data:
            raise InputError(
                f"{where}.threshold = {value!r}: there is no list data.{part}; there are {', '.join(recipe.data)}."
            )
    if "val" in recipe.evaluate.products_on and "val" not in recipe.data:
        raise InputError("evaluate.products_on names val, and there is no data.val; give it, or leave val out.")
    classifier: NetworkSettings | ClassifierSettings = recipe.classifier
    while isinstance(classifier, ClassifierSettings):
        if classifier.validation is not None and classifier.validation not in recipe.data:
            raise InputError(
                f"classifier.train.validation = {classifier.validation!r}: the section data has "
                f"{', '.join(recipe.data)}."
            )
        if classifier.keep == "best" and classifier.validation is None:
            raise InputError("classifier.train.keep = best needs validation, a list of the section data.")
        classifier = classifier.start


def _example() -> Any:
    """The smallest classifier, to try an explainer's options on."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).eval()
