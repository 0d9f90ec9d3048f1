"""Runs the command line in this process, and checks how it ends."""

from __future__ import annotations

from typer.testing import CliRunner

from camplug.cli.app import app


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


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
    assert "Traceback" not in result.output
    assert result.stdout == ""
    *notes, sentence = result.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes), result.stderr  # a warning, given once per process
    assert sentence.startswith("error: ")
    assert sentence.endswith((".", "?"))
    return sentence
