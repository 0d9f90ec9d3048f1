"""Equations of the site as MathML, made when the site is built: they need no script and no network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

EQUATION = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Called by mkdocs for the HTML of every page."""
    return EQUATION.sub(_typeset, content)


def _typeset(found: re.Match[str]) -> str:
    latex = html.unescape(found[2]).strip()
    markup = convert(latex, display="block" if found[1] == "div" else "inline")
    if "\\" in html.unescape(markup):
        raise ValueError(f"latex2mathml leaves a command in {latex!r}")
    return f'<{found[1]} class="arithmatex">{markup}</{found[1]}>'
