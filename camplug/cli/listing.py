"""`camplug methods` and `camplug models`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from camplug.cli import common
from camplug.errors import InputError
from camplug.explain import list_methods
from camplug.explain.base import LayerExplainer
from camplug.explain.registry import method
from camplug.models import list_models


def methods(
    pattern: Annotated[str, typer.Argument(help="A wildcard pattern.")] = "*", as_json: common.AsJson = False
) -> None:
    """List the methods, with what each does and where it looks by default."""
    from rich.table import Table

    with common.plain_errors():
        rows = []
        for name in list_methods(pattern):
            cls = method(name)
            layers = str(cls.default_layers) if issubclass(cls, LayerExplainer) else ""
            rows.append((name, layers, (cls.__doc__ or "").strip().splitlines()[0]))
        if not rows:
            raise InputError(f"no method matches {pattern!r}; available are {', '.join(list_methods())}.")
        if as_json:
            common.print_json([{"name": n, "layers": la, "about": about} for n, la, about in rows])
            return
        table = Table("method", "layers", "what it does")
        for row in rows:
            table.add_row(*map(common.escaped, row))
        common.out.print(table)


def models(
    pattern: Annotated[str, typer.Argument(help='A wildcard pattern, for instance "timm:resnet*".')] = "demo",
    as_json: common.AsJson = False,
) -> None:
    """List the models that `--model` understands; without a pattern, the kinds of names."""
    with common.plain_errors():
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
            common.out.print("import:PACKAGE.MODULE:CALLABLE: a model of your own", soft_wrap=True)
