"""Chains of `camplug` commands over the VOC 2012 animals subset, resumable, and what a table says of an evaluation."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLASSES = "cat,cow,dog,horse,person,sheep"
LISTS = Path("tests/voc12_animals_train.txt"), Path("tests/voc12_animals_val.txt")


class Chain:
    """Runs `camplug` commands, each once; what they said is kept in the cache.

    Args:
        data: VOCdevkit/VOC2012.
        cache: folder for all files.
    """

    def __init__(self, data: Path, cache: Path) -> None:
        self.data, self.cache = data, cache
        self.commands: list[str] = []
        self.said = self.cache / "said"
        self.said.mkdir(parents=True, exist_ok=True)

    def camplug(self, *words: Any) -> dict[str, Any]:
        """What the command says with --json."""
        command = [str(word) for word in words]
        line = shlex.join(["camplug", *command])
        if line not in self.commands:
            self.commands.append(line)
        kept = self.said / f"{hashlib.sha256(line.encode()).hexdigest()[:20]}.json"
        if not kept.exists():
            print(f"+ {line}", file=sys.stderr, flush=True)
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "camplug", *command, "--json"], stdout=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"exit code {done.returncode}: {line}")
            said = json.loads(done.stdout) | {"command": line, "seconds": time.perf_counter() - start}
            kept.write_text(json.dumps(said))
        return json.loads(kept.read_text())  # type: ignore[no-any-return]

    def keep_every(self, every: int, ids: list[str], split: str) -> list[str]:
        """Every n-th of the images, as the list `split`.txt in the cache."""
        kept = ids[::every]
        (self.cache / f"{split}.txt").write_text("\n".join(kept) + "\n")
        return kept

    def on(self, split: str) -> list[Any]:
        """Options that name a part of the data: train, val, or a list `split`.txt in the cache."""
        lists = {"train": LISTS[0], "val": LISTS[1], "some": self.cache / "some_of_train.txt"}
        return ["--data", f"voc:{self.data}", "--split", lists.get(split, self.cache / f"{split}.txt")]

    def evaluate(self, folder: Path, split: str, *options: Any) -> dict[str, Any]:
        return self.camplug("evaluate", folder, *self.on(split), "--classes", CLASSES, *options)


def scores(report: dict[str, Any], chosen: float | None = None) -> dict[str, Any]:
    """What a table says of one evaluation: mIoU, and mean precision and recall of the objects."""
    rows = [
        row for name, row in report["per_class"].items() if name in report["averaged_over"] and name != "background"
    ]
    called = [row["precision"] for row in rows if row["precision"] is not None]  # None: no pixel was called so
    return {
        "miou": 100 * report["miou"]["present"],
        "precision": 100 * sum(called) / len(called) if called else None,
        "recall": 100 * sum(r["recall"] for r in rows) / len(rows),
        "threshold": report.get("threshold", chosen),
    }
