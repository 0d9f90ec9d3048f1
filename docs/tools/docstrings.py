"""A griffe extension: equations (`.. math::`, `:math:`) and doctests of docstrings as the site's Markdown has them."""

from __future__ import annotations

import re
from typing import Any

import griffe

EQUATION = re.compile(r"^( *)\.\. math::[ \t]*(.*)\n((?:(?:\1 +.*)?\n)*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
APART = re.compile(r"(```.*?```|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]+\$)", re.DOTALL)  # what is no prose
SIGN = re.compile(r"(?<!\w)_|_(?!\w)|(?<=[\w.])\*(?=[\w.])")  # that Markdown would take for emphasis
DOCTEST = re.compile(r"^( *)>>> .*\n(?:\1.*\S.*\n)*", re.MULTILINE)


def as_markdown(text: str) -> str:
    r"""A docstring with equations and examples as Markdown.

    >>> as_markdown("Doubles.\n\n.. math:: y = 2 x,\n    x > 0\n\nFor :math:`x`, h*w of them.")
    'Doubles.\n\n$$\ny = 2 x,\nx > 0\n$$\n\nFor $x$, h\\*w of them.'
    """
    text = EQUATION.sub(_equation, text + "\n")
    text = INLINE.sub(r"$\1$", DOCTEST.sub(_example, text)).rstrip("\n")
    parts = APART.split(text)
    parts[::2] = [SIGN.sub(lambda found: "\\" + found[0], prose) for prose in parts[::2]]
    return "".join(parts)


def _equation(found: re.Match[str]) -> str:
    indent = found[1]
    lines = [line.strip() for line in [found[2], *found[3].splitlines()]]
    inside = "\n".join(indent + line for line in lines if line)
    return f"{indent}$$\n{inside}\n{indent}$$\n\n"


def _example(found: re.Match[str]) -> str:
    return f"{found[1]}```python\n{found[0]}{found[1]}```\n"


class Docstrings(griffe.Extension):
    """Rewrites every docstring that is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
