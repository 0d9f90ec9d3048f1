"""Dataclass settings from the command line and from files, by one set of rules."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from camplug.cli.options import add_options, read_options
from camplug.errors import InputError
from camplug.images.preprocess import repeat_channel
from camplug.settings import (
    apply_values,
    check_names,
    describe_type,
    find_fields,
    list_settings,
    prefix_errors,
    read_value,
    restore_settings,
    to_plain,
    update_settings,
)
from camplug.settings_files import read_settings_file, set_value

Colour = float | tuple[float, float, float]


@dataclass(frozen=True)
class Schedule:
    """Learning rate.

    Args:
        lr: learning rate of
            the first step.
        optimizer: "sgd" or `adamw`.
    """

    lr: float = 0.1
    optimizer: Literal["sgd", "adamw"] = "sgd"

    def __post_init__(self):
        if self.lr < 0:
            raise InputError(f"lr={self.lr}; give at least 0.")


@dataclass(frozen=True)
class Training:
    """A training.

    Args:
        epochs: passes through all images.
        sides: smallest and largest side.
        stride: pixels per position.
        flip: also mirrored.
        out: folder.
    """

    epochs: int = 5
    sides: tuple[int, int] = (320, 640)
    scales: tuple[float, ...] = (1.0,)
    stride: int | None = 16
    cut: int | str | None = None
    threshold: float | Literal["otsu"] = 0.3
    mean: Colour | None = None
    layers: tuple[str, ...] = ("stages",)
    flip: bool = False
    out: Path | None = None
    groups: dict[str, Any] | None = None
    schedule: Schedule = field(default_factory=Schedule)


READ = [
    (int, 3, 3),
    (int, "3", 3),
    (int, 2.0, 2),
    (float, 2, 2.0),
    (float, "1e-3", 0.001),
    (float, "inf", float("inf")),
    (bool, True, True),
    (str, "a", "a"),
    (Path, "a/b", Path("a/b")),
    (Path, Path("a"), Path("a")),
    (int | None, "none", None),
    (int | None, "None", None),
    (int | None, None, None),
    (Path | None, "none", None),
    (Path | None, Path("none"), Path("none")),
    (Literal["none", "irn"] | None, "none", "none"),
    (Literal["none", "irn"] | None, None, None),
    (int | str | None, "8", 8),
    (int | str | None, "layer3", "layer3"),
    (float | Literal["otsu"], "otsu", "otsu"),
    (float | Literal["otsu"], "0.3", 0.3),
    (tuple[int, int], "320,640", (320, 640)),
    (tuple[int, int], [320.0, "640"], (320, 640)),
    (tuple[float, ...], "0.5 1, 2", (0.5, 1.0, 2.0)),
    (tuple[float, ...], (0.5, "1", 2), (0.5, 1.0, 2.0)),
    (tuple[float, ...], 1, (1.0,)),
    (tuple[str, ...], "a,b", ("a", "b")),
    (Colour | None, "0.5", 0.5),
    (Colour | None, [0.485, 0.456, 0.406], (0.485, 0.456, 0.406)),
    (Literal["none", "given"], "none", "none"),
    (dict[str, Any], {"a": 1}, {"a": 1}),
    (Schedule, {"lr": "1"}, Schedule(1.0)),
    (str | Schedule | None, Schedule(2.0), Schedule(2.0)),
    (Any, "none", None),
    (Any, {1}, {1}),
]


@pytest.mark.parametrize("kind,value,wanted", READ)
def test_values(kind, value, wanted):
    found = read_value(kind, value, "x")
    assert found == wanted
    assert type(found) is type(wanted)
    if isinstance(wanted, tuple):
        assert [type(part) for part in found] == [type(part) for part in wanted]


REFUSED = [
    (int, 2.5, "x = 2.5 cannot be read; give a whole number."),
    (int, "2.5", "x = '2.5' cannot be read; give a whole number."),
    (int, True, "x = True cannot be read; give a whole number."),
    (int, float("inf"), "x = inf cannot be read; give a whole number."),
    (int, None, "x = None cannot be read; give a whole number."),
    (int, "none", "x = 'none' cannot be read; give a whole number."),
    (int | None, "x", "x = 'x' cannot be read; give a whole number or none."),
    (float, "fast", "x = 'fast' cannot be read; give a number."),
    (float, "nan", "x = 'nan' cannot be read; give a number."),
    (float, True, "x = True cannot be read; give a number."),
    (float, [1.0], "x = [1.0] cannot be read; give a number."),
    (bool, 1, "x = 1 cannot be read; give true or false."),
    (bool, "yes", "x = 'yes' cannot be read; give true or false."),
    (str, 7, "x = 7 cannot be read; give a text."),
    (Path, 7, "x = 7 cannot be read; give a path."),
    (tuple[int, int], (320.7, 640), "x = (320.7, 640) cannot be read; give 2 numbers separated by commas."),
    (tuple[int, int], "320", "x = '320' cannot be read; give 2 numbers separated by commas."),
    (tuple[float, ...], "a,b", "x = 'a,b' cannot be read; give numbers separated by commas."),
    (tuple[float, ...], [1, True], "x = [1, True] cannot be read; give numbers separated by commas."),
    (tuple[float, ...], "", "x = '' cannot be read; give numbers separated by commas."),
    (tuple[str, ...], ",", "x = ',' cannot be read; give names separated by commas."),
    (tuple[float, ...], {}, "x = {} cannot be read; give numbers separated by commas."),
    (Colour, "1,2", "x = '1,2' cannot be read; give 1 or 3 numbers separated by commas."),
    (float | Literal["otsu"] | None, "high", "x = 'high' cannot be read; give a number, otsu or none."),
    (Literal["sgd", "adamw"], "adam", "x='adam'; allowed are sgd, adamw."),
    (Literal["keep", "new"] | None, "old", "x='old'; allowed are keep, new or none."),
    (Literal["none", "given"], None, "x=None; allowed are none, given."),
    (dict[str, Any], [1], "x = [1] cannot be read; give a section of settings."),
    (Schedule, {"rate": 1}, "x.rate: there is no such setting; allowed are lr, optimizer."),
    (Schedule, {"lr": "a"}, "x.lr = 'a' cannot be read; give a number."),
    (str | Schedule | None, {"lr": -1}, "x: lr=-1.0; give at least 0."),
]


@pytest.mark.parametrize("kind,value,says", REFUSED)
def test_values_of_another_type(kind, value, says):
    with pytest.raises(InputError) as caught:
        read_value(kind, value, "x")
    assert str(caught.value) == says


def test_settings_within_settings():
    found = update_settings(Training(), {"epochs": "2", "lr": "1e-3", "stride": "none", "sides": [10, 20]})
    assert found == Training(2, (10, 20), stride=None, schedule=Schedule(0.001))
    assert list_settings(Training()) == [
        "epochs", "sides", "scales", "stride", "cut", "threshold", "mean", "layers", "flip", "out", "groups", "lr",
        "optimizer",
    ]  # fmt: skip
    assert apply_values(Training(), {"lr": 2, "unknown": 1}) == Training(schedule=Schedule(2.0))
    with pytest.raises(InputError, match=r"^deeplab\.epoch: there is no such setting; did you mean 'epochs'\?$"):
        update_settings(Training(), {"epoch": 1}, "deeplab")
    with pytest.raises(InputError, match=r"^deeplab\.sides = 'a' cannot be read"):
        update_settings(Training(), {"sides": "a"}, "deeplab")
    with pytest.raises(InputError, match=r"^deeplab: lr=-1\.0; give at least 0\.$"):
        update_settings(Training(), {"lr": -1}, "deeplab")
    with pytest.raises(InputError, match=r"^lr=-1\.0; give at least 0\.$"):
        update_settings(Training(), {"lr": -1})
    with pytest.raises(InputError, match=r"^size: there is no such section; allowed are a, b\.$"):
        check_names({"size": 1}, ("a", "b"), "")
    with pytest.raises(InputError, match=r"^part: wrong$"), prefix_errors("part"):
        raise InputError("wrong")


def test_plain_data_and_back():
    settings = Training(scales=(0.5, 1.0), mean=(0.1, 0.2, 0.3), groups={"a": [1]}, schedule=Schedule(1e-4, "adamw"))
    plain = to_plain(settings)
    assert plain["schedule"] == {"lr": 1e-4, "optimizer": "adamw"}
    assert restore_settings(Training, json.loads(json.dumps(plain))) == settings


def test_fields_and_their_help():
    found = find_fields(Training())
    assert (found["lr"].kind, found["lr"].default, found["lr"].help) == (float, 0.1, "learning rate of the first step.")
    assert found["optimizer"].help == '"sgd" or adamw.'
    assert found["scales"].help == ""
    assert describe_type(found["sides"].kind) == "2 numbers separated by commas"


@pytest.mark.parametrize(
    "name,text",
    [
        ("c.toml", "epochs = 2\nlr = '1e-3'\nsides = [10, 20]\nscales = '0.5,1'\nstride = 'none'\nflip = true\n"),
        ("c.yaml", "epochs: 2\nlr: 1e-3\nsides: 10, 20\nscales: [0.5, 1]\nstride: null\nflip: yes\n"),
        ("c.yml", "{epochs: 2.0, lr: 0.001, sides: [10.0, 20], scales: [0.5, 1], stride: none, flip: true}"),
    ],
)
def test_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    values = read_settings_file(tmp_path / name, Training())
    wanted = {"epochs": 2, "lr": 0.001, "sides": (10, 20), "scales": (0.5, 1.0), "stride": None, "flip": True}
    assert values == wanted
    assert type(values["epochs"]) is int
    assert apply_values(Training(), values).stride is None


@pytest.mark.parametrize(
    "name,text,says",
    [
        ("c.yaml", "epochs: 2.5", "epochs = 2.5 cannot be read; give a whole number."),
        ("c.toml", "sides = [320.7, 640]", "sides = [320.7, 640] cannot be read; give 2 numbers separated by commas."),
        ("c.yaml", "optimizer: adam", "optimizer='adam'; allowed are sgd, adamw."),
        ("c.toml", "epoch = 1", "has an unknown option 'epoch'; allowed are epochs, sides"),
        ("c.toml", "epochs = ", "this is not TOML (Invalid value"),
        ("c.yaml", "a: b: c", "this is not YAML (mapping values"),
        ("c.yaml", "- epochs", "holds no options; write"),
        ("c.json", "{}", "a configuration is a .toml, .yaml or .yml file."),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_settings_file(tmp_path / name, Training())
    assert str(caught.value).startswith(repr(str(tmp_path / name)))
    assert says in str(caught.value)


@dataclass(frozen=True)
class Own:
    """Options with a text of their own."""

    name: Annotated[str | None, typer.Option("--name", "-n", help="A name.", show_default="the usual")] = None
    size: Annotated[int, typer.Option(help="A size.")] = 3


def test_options_of_a_command(tmp_path):
    from typer.testing import CliRunner

    app, seen = typer.Typer(), {}

    @app.command()
    @add_options(Own(), Training())
    def command(config: Path | None = None, **given):
        seen.update(read_options(given, config, Own(), Training()))

    def run(*words):
        seen.clear()
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 0, result.output
        return dict(seen)

    assert run() == {}
    (tmp_path / "c.yaml").write_text("epochs: 7\nsize: 4\nscales: 1e-1\n")
    found = run("--config", str(tmp_path / "c.yaml"), "--epochs", "2", "-n", "me", "--stride", "none", "--no-flip")
    assert found == {"epochs": 2, "size": 4, "scales": (0.1,), "name": "me", "stride": "none", "flip": False}
    wanted = Training(2, scales=(0.1,), stride=None)
    assert (apply_values(Own(), found), apply_values(Training(), found)) == (Own("me", 4), wanted)
    shown = {p.name: (p.help, p.show_default) for p in typer.main.get_command(app).params}
    assert shown["name"] == ("A name.", "the usual")
    assert shown["size"] == ("A size.", "3")
    assert shown["lr"] == ("Learning rate of the first step.", "0.1")
    assert (shown["sides"][1], shown["stride"][1], shown["flip"][1]) == ("320,640", "16", "no")
    places = {p.name: p.metavar for p in typer.main.get_command(app).params}
    assert (places["sides"], places["stride"], places["cut"]) == ("NUMBERS", "INTEGER|none", "INTEGER|TEXT|none")
    assert (places["name"], places["size"]) == ("TEXT", None)
    assert (places["threshold"], places["optimizer"], places["layers"]) == ("NUMBER|otsu", "sgd|adamw", "NAMES")


def test_colours():
    assert repeat_channel(0.5) == (0.5, 0.5, 0.5)
    assert repeat_channel((0.1, 0.2, 0.3)) == (0.1, 0.2, 0.3)


def test_values_set_in_sections():
    sections = {"seeds": {"scale": 1.0}, "title": "a"}
    for change in (
        "seeds.explainer=CAM",
        "deeplab.lr=1e-3",
        "title.name=[1, 2]",
        "seeds.scale = 0.5",
        "segment.crf=: :",
    ):
        set_value(sections, change)
    assert sections == {
        "seeds": {"explainer": "CAM", "scale": 0.5},
        "deeplab": {"lr": "1e-3"},
        "title": {"name": [1, 2]},
        "segment": {"crf": ": :"},
    }
    for change in ("seeds.scale", "=1", "a..b=1"):
        with pytest.raises(InputError, match="cannot be read; write for instance --set seeds"):
            set_value(sections, change)
