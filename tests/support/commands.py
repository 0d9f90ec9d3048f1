"""Runs the command line in this process, and checks how it ends."""

from __future__ import annotations

import functools
from unittest import mock

import typer
from typer import testing

from camplug.cli.app import app

build = functools.cache(typer.main.get_command)  # takes longer than most commands


def run(*arguments):
    with mock.patch.object(testing, "_get_command", build):
        return testing.CliRunner().invoke(app, [str(a) for a in arguments])


def good(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def refused(*arguments):
    """The one sentence of a refusal."""
    result = run(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith((".\n", "?\n"))
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr.strip()
