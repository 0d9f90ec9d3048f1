"""Command `camplug methods` and `camplug models`: lists of names."""

from __future__ import annotations

from typing import Annotated

import typer

from camplug.cli import common
from camplug.errors import InputError
from camplug.explain import list_methods, list_wrappers
from camplug.explain.base import Explainer, LayerExplainer
from camplug.explain.registry import get_method, get_wrapper
from camplug.models import list_models


def methods(
    pattern: Annotated[str, typer.Argument(help="A wildcard pattern.")] = "*", as_json: common.AsJson = False
) -> None:
    """List the methods, with what each does and where it looks by default, and the wrappers around them.

    A wrapper is written around what it wraps, as in --method "MultiView(FullyCAM, flip=False)".
    """
    from rich.table import Table

    with common.report_errors():
        rows = [describe_method(name, "method", get_method(name)) for name in list_methods(pattern, fitted=True)]
        rows += [describe_method(name, "wrapper", get_wrapper(name)) for name in list_wrappers(pattern)]
        if not rows:
            known = ", ".join([*list_methods(fitted=True), *list_wrappers()])
            raise InputError(f"no method matches {pattern!r}; available are {known}.")
        if as_json:
            common.print_json(rows)
            return
        table = Table("name", "kind", "layers", "what it does")
        for entry in rows:
            table.add_row(*map(common.escape_markup, entry.values()))
        common.out.print(table)


def describe_method(name: str, kind: str, cls: type[Explainer]) -> dict[str, str]:
    """Return name, kind, default layers and summary of a method or wrapper."""
    layers = str(cls.default_layers) if issubclass(cls, LayerExplainer) else ""
    about = (cls.__doc__ or "").strip().partition("\n")[0]
    return {"name": name, "kind": kind, "layers": layers, "about": about}


def models(
    pattern: Annotated[str, typer.Argument(help='A wildcard pattern, for instance "timm:resnet*".')] = "demo",
    as_json: common.AsJson = False,
) -> None:
    """List the models that `--model` understands; without a pattern, the kinds of names."""
    with common.report_errors():
        found = list_models(pattern)
        if not found:
            raise InputError(f'no model matches {pattern!r}; try "torchvision:*" or "timm:resnet*".')
        if as_json:
            common.print_json(found)
            return
        for name in found:
            common.out.print(name, soft_wrap=True)
        if pattern == "demo":
            common.out.print('timm:NAME, torchvision:NAME: camplug models "timm:*" lists them', soft_wrap=True)
            common.out.print("hf:ORG/NAME, hf:FOLDER, open_clip:ARCH/TAG: Hugging Face and open_clip", soft_wrap=True)
            common.out.print("import:PACKAGE.MODULE:CALLABLE: a model of your own", soft_wrap=True)
