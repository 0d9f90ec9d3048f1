"""llms.txt and llms-full.txt (llmstxt.org) of the site, for readers that are language models."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

SUMMARY = "llms.txt"
WHOLE = "llms-full.txt"
_pages: dict[str, str] = {}  # Markdown by path, as the other hooks leave it


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> None:
    """Called by mkdocs for every page."""
    _pages[page.file.src_uri] = markdown


def on_post_build(config: Any) -> None:
    """Called by mkdocs at the end."""
    folder, address = Path(config["site_dir"]), config["site_url"] or ""
    title, about = config["site_name"], config["site_description"]
    summary = make_summary(title, about, config["nav"], _pages, address)
    (folder / SUMMARY).write_text(summary, encoding="utf-8")
    (folder / WHOLE).write_text(make_whole(config["nav"], _pages), encoding="utf-8")


def make_summary(title: str, about: str, nav: list[Any], pages: dict[str, str], address: str = "") -> str:
    """Return the list of all pages with one sentence on each.

    Args:
        title, about: name and description of the site.
        nav: the section of that name in mkdocs.yml.
        pages: Markdown by path.
        address: address of the site, before the paths.
    """
    parts, section = [f"# {title}\n\n> {about}\n"], ""
    for where, name, path in list_pages(nav):
        if where != section:
            section = where
            parts.append(f"\n## {section}\n")
        link = address + re.sub(r"\.md$", ".html", path)
        parts.append(f"- [{name}]({link}): {describe_page(pages[path])}")
    return "\n".join(parts) + "\n"


def make_whole(nav: list[Any], pages: dict[str, str]) -> str:
    """Return the text of all pages but the reference, which is made of docstrings."""
    texts = [pages[path].strip() for _, _, path in list_pages(nav) if not _list_modules(pages[path])]
    return re.sub(r"^<.*base64,.*$", "(a picture)", "\n\n---\n\n".join(texts), flags=re.MULTILINE) + "\n"


def list_pages(nav: list[Any], section: str = "Documentation") -> list[tuple[str, str, str]]:
    """Return section, name and path of every page.

    >>> list_pages([{"Start": "start.md"}, {"How to": ["howto.md", {"Own data": "data.md"}]}])
    [('Documentation', 'Start', 'start.md'), ('How to', 'How to', 'howto.md'), ('How to', 'Own data', 'data.md')]
    """
    found = []
    for entry in nav:
        name, below = (section, entry) if isinstance(entry, str) else next(iter(entry.items()))
        found += [(section, name, below)] if isinstance(below, str) else list_pages(below, name)
    return found


def describe_page(markdown: str) -> str:
    """Return the first sentence of a page, or of the module that it documents.

    >>> describe_page("# Seeds\\n\\n![a](b.png)\\n\\nMaps of *whole*\\ndata sets, see [there](x.md). And more.")
    'Maps of *whole* data sets, see there.'
    """
    modules = _list_modules(markdown)
    text = str(importlib.import_module(modules[0]).__doc__) if modules else markdown
    plain = re.sub(r"^```.*?^```$|<!--.*?-->", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = [" ".join(p.split()) for p in plain.split("\n\n")]
    first = next((p for p in paragraphs if p and not p.startswith(("#", "!", "|", ":::", "-", "*"))), "")
    sentence = re.match(r".+?\.(?= |$)", first)
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", sentence[0] if sentence else first)


def _list_modules(markdown: str) -> list[str]:
    return re.findall(r"^::: (camplug[\w.]*)$", markdown, re.MULTILINE)
