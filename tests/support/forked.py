"""Processes for the command line and for code, forked from one that has loaded torch and Lightning: that takes longest.

The server that they are forked from has run nothing, so that nothing of a test's process is in them.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LOADED = ["torch", "timm", "lightning.pytorch", "camplug.cli.app"]


def work(arguments: list[str], code: str | None, environment: dict[str, str], folder: str, written: str) -> None:
    """What the forked process does: `python -m camplug` with these arguments, or `python -c code`."""
    import torch
    from lightning_utilities.core.rank_zero import rank_zero_only

    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{written}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    rank_zero_only.rank = int(environment.get("RANK", "0"))  # read from the environment when Lightning was loaded
    torch.set_num_threads(1)
    sys.path.insert(0, folder)
    sys.argv = ["camplug", *arguments]
    try:
        if code is None:
            runpy.run_module("camplug", run_name="__main__", alter_sys=True)
        else:
            exec(code, {"__name__": "__main__"})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


@dataclass
class Running:
    """A process, and the files that hold what it writes."""

    process: BaseProcess
    written: str

    def wait(self, timeout: float = 300) -> tuple[int, str, str]:
        """Return code, standard output and standard error."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it does not end"
        out, err = (Path(f"{self.written}.{name}").read_text(encoding="utf-8") for name in ("out", "err"))
        return self.process.exitcode, out, err


def start(*arguments: Any, code: str | None = None, **environment: Any) -> Running:
    """Start `camplug`, or code, in the working folder, with variables besides those of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    written = str(Path(tempfile.mkdtemp()) / "camplug")
    given = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    process = context.Process(target=work, args=([str(a) for a in arguments], code, given, os.getcwd(), written))
    process.start()
    return Running(process, written)


def run(*arguments: Any, processes: int = 1, code: str | None = None) -> list[tuple[int, str, str]]:
    """Run `camplug`, or code, in one process, or in several that find each other as those of torchrun do."""
    if processes == 1:
        return [start(*arguments, code=code).wait()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [start(*arguments, code=code, **shared, RANK=rank, LOCAL_RANK=rank) for rank in range(processes)]
    return [one.wait() for one in running]
