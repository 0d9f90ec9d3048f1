"""Processes of torchrun meet and tell each other things: often, around and within a process group."""

from __future__ import annotations

import json

import pytest
from forked import run

from camplug.errors import InputError
from camplug.wsss.store.processes import exchange, wait_for_processes

MEETING = """
import json, sys, time
import torch, torch.distributed as dist
from camplug.wsss.store.processes import exchange, get_shard, wait_for_processes
rank, world = get_shard()
told = [exchange("first", f"r{rank}"), exchange("first", f"again {rank} \u00e4")]
dist.init_process_group("gloo")
told.append(exchange("within", str(rank)))
total = torch.tensor([rank + 1.0])
dist.all_reduce(total)
if rank == 0:
    time.sleep(0.5)
    open(sys.argv[1], "w").write("done")
wait_for_processes("file")
told.append([open(sys.argv[1]).read(), str(total.item())])
dist.destroy_process_group()
told.append(exchange("after"))
wait_for_processes("end", needed=False)
print(json.dumps(told))
"""


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.slow
def test_processes_meet_as_often_as_they_want(alone, tmp_path):
    """The words are left in the first process itself, which is harder than with torchrun's own store."""
    ended = run(tmp_path / "file", code=MEETING, processes=2)
    assert [code for code, _, _ in ended] == [0, 0], ended
    expected = [["r0", "r1"], ["again 0 \u00e4", "again 1 \u00e4"], ["0", "1"], ["done", "3.0"], ["", ""]]
    assert [json.loads(out) for _, out, _ in ended] == [expected] * 2


def test_one_process_waits_for_nobody(alone):
    assert exchange("alone", "text") == ["text"]
    wait_for_processes("alone")


def test_shares_without_torchrun_cannot_meet(alone):
    alone.setenv("RANK", "1")
    alone.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="not by torchrun, by which processes find each other"):
        wait_for_processes("work")
    wait_for_processes("work", needed=False)
