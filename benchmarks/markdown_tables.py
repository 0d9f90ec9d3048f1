"""Tables in Markdown, and their place in a file."""

from __future__ import annotations

import re
from pathlib import Path


def table(head: list[str], body: list[list[str]]) -> list[str]:
    """A Markdown table whose columns are aligned, so that it reads well in a terminal too."""
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return f"| {' | '.join([cells[0].ljust(widths[0]), *rest])} |"

    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return [line(head), f"| {' | '.join(rule)} |", *map(line, body), ""]


def renew(path: Path, section: str, lines: list[str]) -> None:
    """Replace what stands between `<!-- section -->` and `<!-- /section -->` in a file."""
    text = path.read_text()
    pattern = re.compile(rf"(<!-- {section} -->\n).*?(<!-- /{section} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{path} has no place for it: write <!-- {section} --> and <!-- /{section} --> there.")
    path.write_text(pattern.sub(lambda m: m[1] + "\n".join(lines) + m[2], text))
