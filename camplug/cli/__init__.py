"""Command line, one thin file per command."""

from camplug.cli.app import main

__all__ = ["main"]
