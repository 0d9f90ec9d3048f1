"""What mkdocs does beside its plugins: the reference of the commands and the page of examples, from their sources."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import typer

from camplug.cli.app import app

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def on_config(config: Any) -> Any:
    """Called by mkdocs at the start: takes the addresses of pyproject.toml once they are no placeholders."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    if not any(url.startswith("https://example.org") for url in urls.values()):
        config["site_url"], config["repo_url"] = urls["Documentation"], urls["Repository"]
    return config


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Called by mkdocs for every page."""
    for name, made in (("commands", commands), ("examples", examples)):
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return markdown


def examples() -> str:
    """All example scripts, as Markdown."""
    parts: list[str] = []
    for path in sorted(EXAMPLES.glob("*.py")):
        code = path.read_text(encoding="utf-8")
        told = ast.get_docstring(ast.parse(code)) or ""
        parts += [f"## {path.stem}", told, f"`python examples/{path.name}`", f"```python\n{code.rstrip()}\n```"]
    return "\n\n".join(parts)


def commands() -> str:
    """All commands with their arguments and options, as Markdown."""
    return "\n\n".join(_commands(typer.main.get_command(app), "camplug"))


def _commands(command: Any, name: str) -> list[str]:
    if hasattr(command, "commands"):
        return [part for below, child in command.commands.items() for part in _commands(child, f"{name} {below}")]
    rows = [_row(command, p) for p in command.params if not p.hidden and p.name != "help"]
    table = "\n".join(["| | | default |", "|---|---|---|", *rows])
    first, _, rest = (command.help or "").strip().partition("\n")
    told = "  \n".join(line.strip() for line in rest.strip().splitlines())
    return [part for part in (f"## {name}", first, told, table) if part]


def _row(command: Any, option: Any) -> str:
    with command.make_context(command.name, [], resilient_parsing=True) as context:
        names, _ = option.get_help_record(context) or (option.name, "")
    default = option.show_default if isinstance(option.show_default, str) else option.default
    shown = "required" if option.required else "" if default in (None, False, True) else f"`{default}`"
    if isinstance(option.show_default, str):
        shown = option.show_default
    return "| " + " | ".join(_cell(text) for text in (f"`{names}`", option.help or "", shown)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if not text.startswith("`") else text.replace("|", "\\|")
