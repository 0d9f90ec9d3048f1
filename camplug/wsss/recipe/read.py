"""Read a recipe from YAML or TOML, with values set on the command line, and check it before anything runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from camplug.errors import InputError
from camplug.plugins import import_plugin
from camplug.settings import check_names, prefix_errors, to_plain, update_settings
from camplug.settings_files import parse_config, set_value
from camplug.wsss.recipe.data import VARIABLE, ImageList
from camplug.wsss.recipe.recipe import Recipe
from camplug.wsss.recipe.sections import read_section
from camplug.wsss.recipe.stages import list_kinds

PARTS = ("train", "val", "threshold", "score_on")
EXAMPLE = "for instance data: {train: {data: 'voc:PATH', split: train_aug}}"


def list_recipes() -> dict[str, str]:
    """Return the recipes that come with camplug: their names and titles."""
    import yaml

    folder = resources.files("camplug.wsss.recipe") / "recipes"
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".yaml"))
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in found}
    return {name.removesuffix(".yaml"): str(yaml.safe_load(text).get("title", "")) for name, text in texts.items()}


def read_recipe(
    path: str | os.PathLike[str], changes: Sequence[str] = (), data_root: str | os.PathLike[str] | None = None
) -> Recipe:
    """Read the recipe of a file, or one that comes with camplug.

    Args:
        path: .yaml, .yml or .toml file, or a name of `list_recipes`.
        changes: "section.setting=value", each in place of the file's value; values are read as YAML.
        data_root: replacement of every ${NAME} in the section data; None takes environment variables.

    Raises:
        InputError: no such file or recipe; a missing section; an unknown setting, with the nearest known one; a value
            out of its range.
    """
    name, sections = _read_file(Path(path))
    for change in changes:
        set_value(sections, change)
    root = None if data_root is None else str(data_root)
    return make_recipe(_expand_variables(sections, "", root), name)


def make_recipe(sections: Mapping[str, Any], name: str = "recipe") -> Recipe:
    """Return the recipe of sections, as YAML gives them.

    Raises:
        InputError: as `read_recipe`.
    """
    _import_plugins(sections.get("plugins"))
    check_names(sections, list_sections(), "")
    settings: dict[str, Any] = {"data": _read_data(read_section(sections.get("data"), "data", EXAMPLE))}
    for kind in list_kinds():
        if kind.section is not None:
            settings[kind.section] = kind.read_settings(sections.get(kind.section), settings)
    known = {entry.name for entry in fields(Recipe)}
    return Recipe(
        name=name,
        title=str(sections.get("title", "")),
        text=to_plain(dict(sections)),
        others={section: value for section, value in settings.items() if section not in known},
        **{section: value for section, value in settings.items() if section in known},
    )


def _import_plugins(modules: Any) -> None:
    """Import the modules under "plugins", which register stages, walks and more."""
    listed = [modules] if isinstance(modules, str) else modules or []
    if not isinstance(listed, list) or not all(isinstance(module, str) for module in listed):
        raise InputError(f"plugins = {modules!r}; give a list of modules: [mypackage.stages].")
    for module in listed:
        import_plugin(module)


def list_sections() -> list[str]:
    """Return the names of the sections that a recipe may have."""
    return ["title", "plugins", "data", *(kind.section for kind in list_kinds() if kind.section is not None)]


def _read_file(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a recipe and its sections."""
    names = list(list_recipes())
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
        folder = str(path).removeprefix("folder:")
        if Path(folder).is_dir():
            raise InputError(
                f"{str(path)!r} is a folder and no recipe; `camplug wsss init {shlex.quote(folder)}` writes one for "
                "its photographs."
            )
        raise InputError(
            f"there is no recipe {str(path)!r}; give a .yaml or .toml file, or one of those that come with camplug: "
            f"{', '.join(names)}."
        )
    with prefix_errors(repr(str(path))):
        found = parse_config(text, suffix, "a recipe")
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} holds no sections; a recipe has {', '.join(list_sections())}.")
    return path.name.removesuffix(suffix), found


def _expand_variables(value: Any, where: str, root: str | None) -> Any:
    """Return values with ${NAME} replaced; a variable that is not set stays, since it may not be needed."""
    if isinstance(value, dict):
        return {k: _expand_variables(v, f"{where}.{k}".lstrip("."), root) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand_variables(v, where, root) for v in value]
    if not isinstance(value, str):
        return value
    replacement = root if where.startswith("data.") else None
    return VARIABLE.sub(lambda m: replacement if replacement is not None else os.environ.get(m[1], m[0]), value)


def _read_data(section: dict[str, Any]) -> dict[str, ImageList]:
    check_names(section, PARTS, "data")
    if "train" not in section:
        raise InputError("data.train is missing; write for instance train: {data: 'voc:PATH', split: train_aug}.")
    parts = {}
    for name, value in section.items():
        part = read_section(value, f"data.{name}")
        if "data" not in part:
            raise InputError(f"data.{name}.data is missing; write for instance 'voc:VOCdevkit/VOC2012'.")
        parts[name] = update_settings(ImageList(""), part, f"data.{name}")
    return parts
