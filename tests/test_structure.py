"""Lengths of files and functions: short enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import camplug

PACKAGE, TESTS = Path(camplug.__file__).parent, Path(__file__).parent


def count_lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def list_long_files(folder, most):
    return {str(p.relative_to(folder)): n for p in sorted(folder.rglob("*.py")) if (n := count_lines(p)) > most}


def list_long_functions(source, most):
    """Every function of a module and its lines, from `def` to its last one, that has more than `most`."""
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    lines = {f.name: f.end_lineno - f.lineno + 1 for f in functions}
    return {name: n for name, n in lines.items() if n > most}


def test_lines_are_counted():
    source = "@cache\ndef one():\n    return 1\nclass A:\n    async def two(self):\n        return [\n            2]\n"
    assert list_long_functions(source, 1) == {"one": 2, "two": 3}
    assert list_long_functions(source, 2) == {"two": 3}


@pytest.mark.parametrize(("folder", "most"), [(PACKAGE, 300), (TESTS, 400)], ids=["package", "tests"])
def test_files_are_short(folder, most):
    assert list_long_files(folder, most) == {}


def test_functions_are_short():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        long = list_long_functions(path.read_text(encoding="utf-8"), 60)
        found |= {f"{path.relative_to(PACKAGE)}:{name}": n for name, n in long.items()}
    assert found == {}
