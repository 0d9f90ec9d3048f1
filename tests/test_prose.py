"""Docstrings: every public name has one, functions begin with a verb, and entries are noun phrases."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import camplug

ROOT = Path(camplug.__file__).parent
PLACES = (
    "app",
    "cli",
    "errors.py",
    "explain",
    "images",
    "metrics",
    "models",
    "plug",
    "settings.py",
    "settings_files.py",
    "show",
    "trust",
    "wsss/affinity",
    "wsss/affinitynet",
    "wsss/atm",
    "wsss/class_names.py",
    "wsss/classifier",
    "wsss/crf",
    "wsss/data",
    "wsss/deeplab",
    "wsss/exchange",
    "wsss/fpr",
    "wsss/irn",
    "wsss/pseudo",
    "wsss/recipe",
    "wsss/rpnet",
    "wsss/saliency.py",
    "wsss/saliency_network.py",
    "wsss/seeds",
    "wsss/store",
    "wsss/train",
)
"""Modules and packages that are checked."""

OPENINGS = set(
    """a all an any as at both by each every for how if in it its no nothing of one only some that the their there these
    they this those to two what when where whether which who whose why with""".split()
)
"""First words that no docstring may have: it should begin with a verb or, for classes and modules, a noun."""
ENTRIES = ("of", "that", "how", "as", "what", "whether", "who", "where", "why")
"""First words that no entry of Args or Attributes may have."""
FILES = [
    p for place in PLACES for p in ([ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py")))
]

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def list_nodes(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Node]]:
    """List the functions, classes and methods of a module by name."""
    for node in body:
        if isinstance(node, Node):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from list_nodes(node.body, f"{prefix}{node.name}.")


def is_private(name: str) -> bool:
    """Return whether a name, or a class around it, begins with an underscore (dunder methods count as private)."""
    return any(part.startswith("_") for part in name.split("."))


def is_function(node: Node) -> bool:
    """Return whether a node is called as a function; a property is read like an attribute."""
    decorators = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
    return not isinstance(node, ast.ClassDef) and not any("property" in d for d in decorators)


def list_entries(docstring: str) -> Iterator[str]:
    """List the descriptions in the sections Args and Attributes."""
    for section in re.findall(r"^ *(?:Args|Attributes):\n((?: .*\n?|\n)+)", docstring, re.MULTILINE):
        lines = section.splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        for line in lines:
            entry = re.match(rf" {{{indent}}}[\w, ]+: +(.*)", line)
            if entry and len(line) - len(line.lstrip()) == indent:
                yield entry[1]


def find_faults(source: str) -> list[str]:
    """List the violations in one module, each with the name it belongs to."""
    module = ast.parse(source)
    faults = [] if ast.get_docstring(module) else ["module: has no docstring"]
    for name, node in [("module", module), *list_nodes(module.body)]:
        text = ast.get_docstring(node)
        if text is None:
            if not is_private(name) and name != "module" and not needs_no_docstring(node):
                faults.append(f"{name}: has no docstring")
            continue
        first = re.split(r"[^\w']", text.strip(), maxsplit=1)[0]
        opening = first.lower()
        if opening in OPENINGS or not (first[:1].isupper() or first[:1].isdigit()):
            faults.append(f"{name}: begins with {first!r}")
        elif isinstance(node, ast.FunctionDef) and is_function(node) and re.search(r"(?<!s)s$", opening):
            faults.append(f"{name}: begins with {first!r}, not with an imperative")
        for entry in list_entries(text):
            word = re.split(r"\W", entry, maxsplit=1)[0]
            if word in ENTRIES:
                faults.append(f"{name}: the entry {entry!r} begins with {word!r}")
    return faults


def needs_no_docstring(node: ast.AST) -> bool:
    """Return whether a method inherits its docstring (`override`), or a function's stands elsewhere (`overload`)."""
    return any(ast.unparse(d) in ("override", "overload") for d in getattr(node, "decorator_list", []))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_follow_the_rules(path: Path):
    assert find_faults(path.read_text(encoding="utf-8")) == []


def test_every_place_exists():
    assert all((ROOT / place).exists() for place in PLACES)


HEAD = '"""Module."""\n'


def with_entry(line: str) -> str:
    """Return a module with a function whose Args hold one line."""
    return f'{HEAD}def f(x):\n    """Add.\n\n    Args:\n        {line}\n\n    Raises:\n        E: that.\n    """'


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x = 1", "module: has no docstring"),
        ('"""Who is told."""', "module: begins with 'Who'"),
        (f"{HEAD}def f():\n    pass", "f: has no docstring"),
        (f'{HEAD}class C:\n    """Class."""\n    def f(self):\n        pass', "C.f: has no docstring"),
        (f'{HEAD}def f():\n    """What it does."""', "f: begins with 'What'"),
        (f'{HEAD}def f():\n    """The sum."""', "f: begins with 'The'"),
        (f'{HEAD}def f():\n    """return it."""', "f: begins with 'return'"),
        (f'{HEAD}def f():\n    """Returns it."""', "f: begins with 'Returns', not with an imperative"),
        (f'{HEAD}def _f():\n    """Whether it is."""', "_f: begins with 'Whether'"),
        (with_entry("x: of numbers."), "f: the entry 'of numbers.' begins with 'of'"),
        (with_entry("x, y: how."), "f: the entry 'how.' begins with 'how'"),
    ],
)
def test_faults_are_found(source: str, fault: str):
    assert find_faults(source) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        with_entry("x: numbers\n            of a kind: that."),
        f'{HEAD}class C:\n    """Things."""\n    @property\n    def f(self):\n        """Groups."""',
        f'{HEAD}class C:\n    """Things."""\n    @override\n    def f(self):\n        pass',
        f'{HEAD}def f():\n    """Process it."""\ndef _g():\n    pass',
    ],
)
def test_plain_docstrings_pass(source: str):
    assert find_faults(source) == []
