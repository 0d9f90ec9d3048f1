"""The code blocks of README and docs: found, and run on stand-ins for what a test cannot have (weights, VOC)."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import timm
import torch
import typer
from commands import good
from PIL import Image
from torch import nn

import camplug
from camplug.cli.app import app
from camplug.wsss.classifier import LearningSettings, SpanSettings
from camplug.wsss.data import VOC_CLASSES, Scenes
from camplug.wsss.train import ScheduleSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "reference" not in p.parts)]
VOC_ROOT = Path("VOCdevkit/VOC2012")
TRAIN = ("2007_000032", "2007_000039", "2007_000063", "2007_000068")
VOC_IDS = (*TRAIN, "2007_000033", "2007_000042")

# What makes a command of the docs short; appended, so that it counts.
TRAINING = "--epochs 1 --batch 2 --crop 32 --sides 32,48"
HEADS = "--epochs 1 --batch 2 --crop 64 --long-side 96"
SHORT = {
    "train classifier": TRAINING,
    "train atm": TRAINING,
    "train rpnet": f"{TRAINING} --images 2",
    "train fpr": f"{TRAINING} --clusters 2",
    "train irn": f"{HEADS} --width 16 --foreground 0.2 --background 0.1",
    "train affinitynet": f"{HEADS} --width 56",
    "train deeplab": f"{HEADS} --width 8",
    "seeds": "--long-side 64",
    "check": "--long-side 64 --steps 2",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, and why it is not run, if it is not."""

    line: int
    language: str
    text: str
    not_run: str | None


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    reason: str | None = None
    for number, line in enumerate(lines, 1):
        if start is None and (mark := re.fullmatch(r"<!-- not run: (.+) -->", line)):
            reason = mark[1]
        elif start is None and line.startswith("```"):
            start = number
        elif start is not None and line == "```":
            found.append(Block(start, lines[start - 1][3:], "\n".join(lines[start : number - 1]), reason))
            start = reason = None
        elif start is None and line:
            reason = None
    assert start is None, f"{page.name}: the block at line {start} has no end"
    return found


def shell_commands(text: str, variables: dict[str, str]) -> list[tuple[dict[str, str], list[str]]]:
    """The commands of a block with what stands before them (`RANK=0 camplug ...`), variables put in and kept."""
    commands: list[tuple[dict[str, str], list[str]]] = []
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.sub(r"\$(\w+)", lambda m: variables.get(m[1], m[0]), line).split(" && "):
            words = shlex.split(part, comments=True)
            before: dict[str, str] = {}
            while words and words[0] == "export":
                words.pop(0)
            while words and (given := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)):
                before[given[1]] = given[2]
                words.pop(0)
            if words:
                commands.append((before, words))
            else:
                variables |= before
    return commands


def arguments(words: list[str]) -> list[str] | None:
    """Those of `camplug`, also behind `torchrun ... -m camplug`; None for another command."""
    if words[0] == "camplug":
        return words[1:]
    if words[0] == "torchrun" and "camplug" in words:
        assert words[words.index("camplug") - 1] == "-m", words
        return words[words.index("camplug") + 1 :]
    return None


def leaf(words: list[str]) -> tuple[object, str, list[str]]:
    """The command that arguments name, its name, and what is left for it."""
    command, name = typer.main.get_command(app), []
    rest = list(words)
    while rest and hasattr(command, "commands"):
        if rest[0].startswith("-"):
            break
        found = command.get_command(typer.Context(command), rest[0])
        assert found is not None, f"there is no command `camplug {' '.join([*name, rest[0]])}`"
        command = found
        name.append(rest.pop(0))
    return command, " ".join(name), rest


def parse(words: list[str]) -> str:
    """Parse as the command line does, without running; the command's name."""
    command, name, rest = leaf(words)
    command.make_context(name, rest)
    return name


def check_options(words: list[str]) -> None:
    """The options of a command in running text, which need not be whole, exist."""
    command, name, rest = leaf([w for w in words if w != "..."])
    known = {"--help", "-h"} | {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    unknown = [w for w in rest if re.match(r"--?[a-z]", w) and w.partition("=")[0] not in known]
    assert not unknown, f"`camplug {name}` has no {unknown}"


def check_other(words: list[str]) -> None:
    """What stands in the docs beside `camplug`: scripts that exist and know their options, extras that exist."""
    if words[0] == "python":
        script = ROOT / words[1]
        assert script.is_file(), f"there is no {words[1]}"
        text = script.read_text(encoding="utf-8")
        text += "".join(p.read_text(encoding="utf-8") for p in script.parent.glob("*.py") if p.stem in text)
        unknown = [w for w in words[2:] if w.startswith("--") and f'"{w}"' not in text]
        assert not unknown, f"{words[1]} has no {unknown}"
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = [e for w in words for found in re.findall(r"\[(.+)\]", w) for e in found.split(",")]
        assert set(wanted) <= set(extras), wanted
    else:
        assert words[0] in ("pytest", "mkdocs", "torchrun"), f"{words[0]} is no command that the tests know"


def run_shell(block: Block, variables: dict[str, str], monkeypatch) -> None:
    """Run a block's `camplug` commands, made short, in this process; check the others."""
    for before, words in shell_commands(block.text, variables):
        given = arguments(words)
        if given is None:
            check_other(words)
            continue
        name = parse(given)
        if block.not_run:
            continue
        with monkeypatch.context() as context:
            for variable, value in before.items():
                context.setenv(variable, value)
            few = [re.sub(r"^scenes:\d+", f"scenes:{len(TRAIN)}", word) for word in given]
            good(*few, *shlex.split(SHORT.get(name, "")))


def lay_out(place: Path) -> None:
    """Photographs, a folder of one's own, label pictures, and a VOC tree of drawn scenes, in the working folder."""
    scenes = Scenes(len(VOC_IDS), (48, 64), classes=3)
    below = [VOC_ROOT / name for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in (*below, Path("photos/images"), Path("irn_labels")):
        (place / folder).mkdir(parents=True)
    for i, name in enumerate(VOC_IDS):
        scenes.photo(i).save(place / below[0] / f"{name}.jpg")
        objects = "".join(f"<object><name>{VOC_CLASSES[c]}</name></object>" for c in scenes.labels(i))
        (place / below[1] / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        for folder in (below[2], Path("irn_labels")):
            Image.fromarray(scenes.mask(i)).save(place / folder / f"{name}.png")
        scenes.photo(i).save(place / "photos/images" / f"{'abcdef'[i]}.jpg")
    for split, names in {"train": TRAIN, "train_aug": TRAIN, "val": VOC_IDS[len(TRAIN) :]}.items():
        (place / below[3] / f"{split}.txt").write_text("\n".join(names))
    (place / "photos/labels.csv").write_text("image,labels\na.jpg,cat;dog\nb.jpg,cat\nc.jpg,dog\nd.jpg,\n")
    for name in ("cat.jpg", "photo.jpg"):
        scenes.photo(0).resize((96, 64)).save(place / name)
    torch.manual_seed(0)
    torch.save(standing_in("resnet50", num_classes=20).state_dict(), place / "voc20.pth")


_create_model = timm.create_model


def standing_in(name: str, pretrained: bool = False, **options: object) -> nn.Module:
    """timm's model of that name, small and untrained."""
    small: dict[str, object] = {}
    if name.startswith("resnet"):
        small = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
    elif name.startswith("vit"):
        small = {"embed_dim": 12, "num_heads": 2}
    return _create_model(name, pretrained=False, **small, **options)


class MyBody(nn.Sequential):
    """A network of one's own that puts out its last feature map."""

    pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.25,) * 3}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(*(nn.Sequential(nn.Conv2d(a, 8, 3, 2, 1), nn.ReLU()) for a in (3, 8, 8)))


def short_preset(name: str) -> tuple[LearningSettings, SpanSettings]:
    """In place of `camplug.wsss.classifier.get_preset`."""
    return LearningSettings(ScheduleSettings("adamw", 1e-3), cut=None, batch_norm="train"), SpanSettings(
        1, 2, 32, (32, 48)
    )


def namespace() -> dict[str, object]:
    """What the blocks of a page may take as given."""
    torch.manual_seed(0)
    return {
        "camplug": camplug,
        "model": standing_in("resnet50").eval(),
        "x": torch.rand(3, 3, 64, 64),
        "vit_images": torch.rand(1, 3, 224, 224),
        "MyBody": MyBody,
    }


def run_page(page: Path, place: Path, monkeypatch) -> None:
    """Run all blocks of a page, in their order, in one folder and one namespace."""
    lay_out(place)
    names, variables = namespace(), {}
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}, line {block.line}"
        try:
            if block.language in ("sh", "bash"):
                run_shell(block, variables, monkeypatch)
            elif block.language == "python":
                code = compile(block.text, where, "exec")
                if not block.not_run:
                    exec(code, names)
            elif block.language == "toml":
                tomllib.loads(block.text)
            elif block.language == "yaml":
                (place / "recipe.yaml").write_text(block.text)
            else:
                assert block.language == "text", f"blocks are python, sh, toml, yaml or text, not {block.language}"
        except BaseException as error:
            error.add_note(f"in {where}")
            raise
    for variable in ("RANK", "WORLD_SIZE"):
        assert variable not in os.environ


def load_tool(name: str) -> ModuleType:
    """Import a module of docs/tools, which is no package."""
    spec = importlib.util.spec_from_file_location(f"camplug_docs_{name}", ROOT / "docs" / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
