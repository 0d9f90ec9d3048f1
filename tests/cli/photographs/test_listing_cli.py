"""`camplug methods`, `camplug models`, the version and the help."""

from __future__ import annotations

import json
import re

from commands import build, good, refused

import camplug
from camplug.cli.app import app
from camplug.explain import list_methods, list_wrappers


def test_methods():
    rows = json.loads(good("methods", "--json").stdout)
    assert [r["name"] for r in rows] == [*list_methods(fitted=True), *list_wrappers()]
    assert [r["kind"] for r in rows] == ["method"] * len(list_methods(fitted=True)) + ["wrapper"] * len(list_wrappers())
    assert {r["name"]: r["layers"] for r in rows}["fully"] == "convs"
    assert all(r["layers"] == "" for r in rows if r["kind"] == "wrapper")
    assert all(len(r["about"]) > 20 for r in rows)
    about = {r["name"]: r["about"] for r in rows}["multiview"]
    assert about == camplug.MultiView.__doc__.strip().splitlines()[0]
    table = good("methods", "*grad*").stdout
    assert all(name in table for name in list_methods("*grad*"))
    assert "fully" not in table
    assert "wrapper" in good("methods", "multi*").stdout
    assert "no method matches 'nothing'; available are ablationcam, cam, " in refused("methods", "nothing")


def test_models():
    assert json.loads(good("models", "timm:resnet5*", "--json").stdout)[0].startswith("timm:resnet5")
    assert good("models").stdout.splitlines()[0] == "demo"
    assert "torchvision:resnet18" in good("models", "torchvision:resnet*").stdout.splitlines()
    assert "no model matches 'nothing'" in refused("models", "nothing")


def test_version_and_help():
    assert good("--version").stdout.strip() == camplug.__version__
    text = good("--help").stdout
    assert all(command in text for command in ("explain", "compare", "methods", "models"))
    assert "--checkpoint" in re.sub(r"\x1b\[[0-9;]*m", "", good("explain", "--help").stdout)


def list_commands(command, name):
    below = getattr(command, "commands", None)
    if below is None:
        return [(name, command)]
    return [pair for child in below for pair in list_commands(below[child], f"{name} {child}")]


def test_every_option_has_a_help_text():
    commands = list_commands(build(app), "camplug")
    assert len(commands) > 15
    lost = [(name, p.name) for name, command in commands for p in command.params if not p.help and p.name != "help"]
    assert lost == []
