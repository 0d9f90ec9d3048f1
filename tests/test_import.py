"""What `import camplug` brings in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import camplug

HEAVY = ("matplotlib", "cv2", "timm", "torchvision", "lightning", "pytorch_lightning", "scipy", "PIL", "typer", "rich")

CODE = """
import sys
import torch
before = set(sys.modules)
import camplug
new = sorted(m for m in set(sys.modules) - before if not m.startswith("camplug"))
print(",".join(sorted({m.split(".")[0] for m in sys.modules})))
print(",".join(new))
print(",".join(m for m in sys.modules if m.startswith(("camplug.wsss", "pycocotools"))))
import camplug.wsss.affinity, camplug.wsss.irn.losses, camplug.wsss.irn.paths, camplug.wsss.fpr
camplug.wsss.fpr.FPR()
print(",".join(sorted({m.split(".")[0] for m in sys.modules} & {"lightning", "pytorch_lightning", "sklearn"})))
"""


def test_imports_bring_in_torch_and_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    loaded, new, optional, trainers = (line.split(",") for line in done.stdout.split("\n")[:4])
    assert not set(HEAVY) & set(loaded)
    assert [m for m in new if m] == [], "import camplug must cost what import torch costs"
    assert optional == [""], "import camplug must leave the pipeline alone"
    assert trainers == [""], "affinities, losses, paths and settings must work without Lightning"


@pytest.mark.parametrize(
    "room,allowed",
    [("images", {"images"}), ("plug", {"plug"}), ("models", {"images", "models", "options", "plug", "plugins"})],
)
def test_rooms_at_the_bottom_know_little(room, allowed):
    """Imports at the top of modules; `models` loads a classifier of the pipeline on demand."""
    taken = set()
    for path in (Path(camplug.__file__).parent / room).glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("camplug"):
                taken |= {(node.module or "").split(".")[1]}
    assert taken <= allowed | {"errors"}


def test_public_names_exist():
    assert [n for n in camplug.__all__ if not hasattr(camplug, n)] == []


def test_tab_completion_knows_every_public_name():
    assert {"Explanation", "Preprocess", "load_model", "sample_photo"} <= set(camplug.__all__) <= set(dir(camplug))
