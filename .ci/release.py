"""Build the wheel and the source distribution of the last commit, check both, and try the wheel in clean environments.

    pip install -e ".[release]"
    python .ci/release.py --python python3.11 --python python3.13

Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACEHOLDER = "https://example.org"
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s]+)")
FAST = ("images", "metrics", "show", "trust", "cli/photographs", "models", "wsss/data", "wsss/exchange", "wsss/recipe")
TRIAL = """
import camplug
assert "site-packages" in camplug.__file__, camplug.__file__
print(camplug.__version__, camplug.FullyCAM(camplug.load_model("demo")).explain(camplug.sample_photo()))
"""


def make_links_absolute(readme: str, repository: str) -> str:
    """Return the README with the repository's address before relative links, which lead nowhere on PyPI.

    >>> make_links_absolute("![a](docs/a.png) [b](docs/b.md#c) [d](https://e.org) [f](#g)", "https://e.org/r")
    '![a](https://e.org/r/raw/HEAD/docs/a.png) [b](https://e.org/r/blob/HEAD/docs/b.md#c) [d](https://e.org) [f](#g)'
    """

    def complete(found: re.Match[str]) -> str:
        kind = "raw" if found[2].endswith((".png", ".svg", ".jpg")) else "blob"
        return f"{found[1]}{repository}/{kind}/HEAD/{found[2]}"

    return LINK.sub(complete, readme)


def build(out: Path) -> list[Path]:
    """Build the last commit into a folder; return the files."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        unpack(tree)
        readme = tree / "README.md"
        readme.write_text(make_links_absolute(readme.read_text(encoding="utf-8"), urls["Repository"]), encoding="utf-8")
        call(sys.executable, "-m", "build", "--outdir", out, tree)
    files = sorted(out.glob("camplug-*"))
    call(sys.executable, "-m", "twine", "check", "--strict", *files)
    call(sys.executable, "-m", "check_wheel_contents", *out.glob("*.whl"))
    if any(url.startswith(PLACEHOLDER) for url in urls.values()):
        print(f"not ready for upload: the addresses below [project.urls] in pyproject.toml begin with {PLACEHOLDER}")
    return files


def unpack(place: Path, *paths: str) -> None:
    """Write files of the last commit to a folder; all without paths."""
    archive = subprocess.run(["git", "archive", "HEAD", *paths], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(place, filter="data")


def try_wheel(wheel: Path, python: str) -> None:
    """Install a wheel into a new environment, use it in Python and on the command line, and run quick tests on it.

    The tests are copied, so that they find no package but the installed one.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        call(python, "-m", "venv", place / "venv")
        programs = place / "venv" / "bin"
        call(programs / "pip", "install", "--quiet", f"{wheel}[demo,train,coco]", "pytest", "pytest-timeout")
        call(programs / "python", "-c", TRIAL, cwd=place)
        call(programs / "camplug", "explain", "--out", "map.png", cwd=place)
        assert (place / "map.png").stat().st_size > 10_000
        unpack(place, "tests", "benchmarks", "pyproject.toml")
        tests = [place / "tests" / name for name in FAST]
        call(programs / "python", "-P", "-m", "pytest", "-q", "-m", "not slow", *tests, cwd=place)


def call(*words: object, cwd: Path = ROOT) -> None:
    """Run a program, and print what is run."""
    line = [str(word) for word in words]
    print("+", *line, flush=True)
    subprocess.run(line, cwd=cwd, check=True, timeout=1800)


def main() -> None:
    """Build, check and try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the files; emptied of camplug's")
    parser.add_argument("--python", action="append", default=[], help="interpreter to try the wheel with; repeat")
    given = parser.parse_args()
    for old in given.out.glob("camplug-*"):
        old.unlink()
    files = build(given.out.resolve())
    (wheel,) = (file for file in files if file.suffix == ".whl")
    for python in given.python:
        try_wheel(wheel, python)


if __name__ == "__main__":
    main()
