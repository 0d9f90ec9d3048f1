"""Notebooks of the site: `examples/notebooks/*.py`, run when the site is built, as pages and as .ipynb files."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
_made: dict[str, tuple[str, str]] = {}  # page and .ipynb by source: `mkdocs serve` builds after every change


@dataclass
class Cell:
    """Cell of a notebook.

    Attributes:
        kind: "markdown" or "code".
        source: text without the marks of comments.
        printed: what it printed.
        shown: value of its last line by media type.
    """

    kind: str
    source: str
    printed: str = ""
    shown: dict[str, str] = field(default_factory=dict)


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs with all files of the site; adds two for each notebook."""
    from mkdocs.structure.files import File

    for path in list_notebooks():
        source = path.read_text(encoding="utf-8")
        if source not in _made:
            cells = read_cells(source)
            try:
                with work_elsewhere():
                    run_cells(cells)
            except ModuleNotFoundError as error:  # of an extra
                cells.append(Cell("markdown", f"*Not run for this page: {error}.*"))
            _made[source] = make_page(cells, path.stem), make_ipynb(cells)
        for suffix, content in zip((".md", ".ipynb"), _made[source], strict=True):
            files.append(File.generated(config, f"notebooks/{path.stem}{suffix}", content=content))
    return files


def list_notebooks() -> list[Path]:
    """Return the paths of all notebooks."""
    return sorted(FOLDER.glob("*.py"))


def read_cells(text: str) -> list[Cell]:
    r"""Return the cells of a script in the percent format.

    >>> [(cell.kind, cell.source) for cell in read_cells("# %% [markdown]\n# # Title\n# Text.\n\n# %%\nx = 1\nx\n")]
    [('markdown', '# Title\nText.'), ('code', 'x = 1\nx')]
    """
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        source = re.sub(r"^# ?", "", body, flags=re.MULTILINE) if kind == "markdown" else body
        cells.append(Cell(kind, source.strip()))
    return cells


def run_cells(cells: list[Cell]) -> dict[str, Any]:
    """Run the code of cells, keep in them what they print and show, and return the names that they define."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell.kind != "code":
            continue
        tree = ast.parse(cell.source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"<cell {number}>", "exec"), names)
            value = (
                None if last is None else eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), names)
            )
        cell.printed, cell.shown = printed.getvalue(), describe_value(value)
    return names


def describe_value(value: Any) -> dict[str, str]:
    """Return a value by media type as Jupyter does: text, and HTML or a PNG if it has one."""
    if value is None:
        return {}
    found = {"text/plain": re.sub(r" at 0x\w+", "", repr(value))}
    if hasattr(value, "_repr_html_"):
        found["text/html"] = value._repr_html_()
    elif hasattr(value, "_repr_png_"):
        found["image/png"] = base64.b64encode(value._repr_png_()).decode()
    return found


def make_page(cells: list[Cell], name: str) -> str:
    """Return the Markdown of a notebook with what its cells printed and showed."""
    parts = []
    for cell in cells:
        parts.append(cell.source if cell.kind == "markdown" else f"```python\n{cell.source}\n```")
        text = cell.printed if len(cell.shown) != 1 else cell.printed + cell.shown["text/plain"]
        if text.strip():
            parts.append(f"```text\n{text.rstrip()}\n```")
        if "text/html" in cell.shown:
            parts.append(f"<div>{cell.shown['text/html']}</div>")
        elif "image/png" in cell.shown:
            parts.append(f'<img alt="{name}" src="data:image/png;base64,{cell.shown["image/png"]}">')
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n*[As a notebook]({name}.ipynb), or `python examples/notebooks/{name}.py`.*\n\n{rest.strip()}\n"


def make_ipynb(cells: list[Cell]) -> str:
    """Return a notebook as JSON of Jupyter's format 4.5."""
    made = []
    for number, cell in enumerate(cells):
        entry: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell{number}", "metadata": {}}
        entry["source"] = cell.source.splitlines(keepends=True)
        if cell.kind == "code":
            outputs: list[dict[str, Any]] = []
            if cell.printed:
                outputs.append(
                    {"output_type": "stream", "name": "stdout", "text": cell.printed.splitlines(keepends=True)}
                )
            if cell.shown:
                outputs.append(
                    {"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": cell.shown}
                )
            entry |= {"execution_count": None, "outputs": outputs}
        made.append(entry)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def work_elsewhere() -> Iterator[None]:
    """Work in an empty folder for a while."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
