"""benchmarks/gpu.py: all steps at toy size, and what it says of a step that fails, hangs or no longer fits."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import runpy
import sys
import traceback
from pathlib import Path

import pytest
from benchmark_modules import forget_benchmarks

ROOT = Path(__file__).parent.parent
pytest.importorskip("lightning", reason="trainings come with the extra train")
pytest.importorskip("skimage", reason="the photographs come with the extra train")


@pytest.fixture
def gpu(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("camplug_gpu", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "camplug_gpu", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def in_process(gpu, monkeypatch):
    """Scripts run in this process: new ones would load torch and Lightning again, half of the time of all steps."""
    execute = gpu.execute

    def run_script(command, log, limit, one_thread):
        if not command[1].endswith(".py"):
            return execute(command, log, limit, one_thread)
        threads, seed = gpu.torch.get_num_threads(), gpu.torch.random.get_rng_state()
        with monkeypatch.context() as patch, log.open("w") as out, contextlib.redirect_stdout(out):
            patch.setattr(sys, "argv", command[1:])
            patch.setattr(sys, "path", list(sys.path))
            patch.chdir(ROOT)
            try:
                runpy.run_path(command[1], run_name="__main__")
            except Exception:
                out.write(traceback.format_exc())
                return 1
            finally:
                gpu.torch.set_num_threads(threads)
                gpu.torch.random.set_rng_state(seed)
        return 0

    monkeypatch.setattr(gpu, "execute", run_script)
    with forget_benchmarks():
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_steps_run_at_toy_size(gpu, in_process, tmp_path):
    gpu.main(["--smoke", "--out", str(tmp_path)])
    data = json.loads((tmp_path / "gpu.json").read_text())
    states = {(step, name): task["status"] for step, tasks in data["steps"].items() for name, task in tasks.items()}
    assert set(states.values()) == {"done"}, (states, data)
    assert list(data["steps"]) == ["tests", "explainers", "refinement", "seeds", "training", "plan", "papers"]
    tests = data["steps"]["tests"]["tests"]["result"]
    assert tests["passed"] > 0
    assert tests["failed"] == []
    assert data["commit"] is None or len(data["commit"]) >= 7
    labels = [row["labels_differing"] for row in data["steps"]["refinement"]["refinement"]["result"]["rows"]]
    assert labels == [0, 0, 0, 0]
    trainings = data["steps"]["training"]["training"]["result"]["rows"]
    assert [row["training"] for row in trainings] == [
        "classifier", "atm", "rpnet", "fpr", "irn", "affinitynet", "deeplab"
    ]  # fmt: skip
    assert all(row["finite"] and row["weights_finite"] for row in trainings)
    rows = data["steps"]["papers"]["papers"]["result"]["rows"]
    assert [row["row"] for row in rows] == ["start", "ordinary"]
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "gpu.md").read_text())
    gpu.main(["--load", str(tmp_path / "gpu.json"), "--markdown", str(page)])
    assert "| dense CRF" in page.read_text()


def test_a_step_that_fails_or_hangs_stops_no_other(gpu, tmp_path, monkeypatch, capsys):
    def tasks(_):
        python = [sys.executable, "-c"]
        write = "import sys, pathlib; pathlib.Path('{json}').write_text('[1]'); "
        yield gpu.Task("good", [*python, write + "print('fine')"], 60)
        yield gpu.Task("bad", [*python, write + "1 / 0"], 60)
        yield gpu.Task("hangs", [*python, "import time; print('waiting', flush=True); time.sleep(600)"], 3)
        yield gpu.Task("late", [*python, "print()"], 60, least=1e9)

    monkeypatch.setattr(gpu, "STEPS", {"tests": tasks})
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--smoke", "--out", str(tmp_path), "--steps", "tests", "--seconds", "1000"])
    assert ended.value.code == 1
    found = json.loads((tmp_path / "gpu.json").read_text())["steps"]["tests"]
    assert (found["good"]["status"], found["good"]["result"]) == ("done", [1])
    assert found["bad"]["status"] == "failed, exit code 1"
    assert found["bad"]["says"][-1] == "ZeroDivisionError: division by zero"
    assert found["bad"]["result"] == [1]
    assert found["hangs"]["status"] == "stopped at its limit"
    assert found["hangs"]["says"] == ["waiting"]
    assert found["late"]["status"].startswith("left out: ")
    assert "late: left out" in capsys.readouterr().out


def test_without_a_gpu_it_says_what_else_runs(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])
    assert "--device cpu" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()
