"""Release: one version everywhere, links that work on PyPI, addresses in one place."""

from __future__ import annotations

import doctest
import importlib.util
import re
import tomllib
from pathlib import Path

import camplug

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "camplug"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIG["project"]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def release():
    spec = importlib.util.spec_from_file_location("camplug_release", ROOT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version():
    assert re.search(r"^version: (.+)$", read("CITATION.cff"), re.MULTILINE)[1] == camplug.__version__
    assert re.search(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)[1] == camplug.__version__


def test_the_readme_has_no_relative_link_on_pypi():
    module = release()
    assert doctest.testmod(module).failed == 0
    text = module.make_links_absolute(read("README.md"), PROJECT["urls"]["Repository"])
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20
    assert all(link.startswith(("https://", "#")) for link in links), links


def test_addresses_stand_in_one_place():
    assert set(PROJECT["urls"]) == {"Documentation", "Repository"}
    pages = ["README.md", "CITATION.cff", "mkdocs.yml", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]
    for url in PROJECT["urls"].values():
        assert [page for page in pages if url in read(page)] == []


def test_the_wheel_has_every_file_of_the_package():
    listed = {
        file for pattern in CONFIG["tool"]["setuptools"]["package-data"]["camplug"] for file in PACKAGE.glob(pattern)
    }
    here = {file for file in PACKAGE.rglob("*.*") if file.suffix not in (".py", ".pyc") and file.is_file()}
    assert here == listed


def test_classifiers_follow_the_oldest_python():
    versions = re.findall(r":: 3\.(\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert PROJECT["requires-python"] == f">=3.{versions[0]}"
    assert [int(v) for v in versions] == list(range(int(versions[0]), int(versions[-1]) + 1))


def test_the_quick_tests_of_a_release_exist():
    assert [name for name in release().FAST if not list((ROOT / "tests" / name).rglob("test_*.py"))] == []
