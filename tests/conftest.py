"""Shared fixtures: the device, one thread (small tensors wait for each other on more), fixed seeds."""

from __future__ import annotations

import garbage
import pytest
import simulated
import torch


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="cpu",
        help="where the tests with the fixture `device` run: cpu, cuda, cuda:1, or simulated (a stand-in for a GPU); "
        "with anything but cpu only these tests run",
    )


def pytest_configure(config):
    name = config.getoption("--device")
    if name == simulated.NAME:
        simulated.register()
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise pytest.UsageError(f"--device {name}: {str(error).splitlines()[0]}") from None


def pytest_collection_modifyitems(config, items):
    if config.getoption("--device") == "cpu":
        return
    on_device = [item for item in items if "device" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(on_device)])
    items[:] = on_device


def pytest_collection_finish(session):
    """Leave what is loaded by now out of garbage collections, of which the tests for leaks force many."""
    garbage.collect()


@pytest.fixture
def device(request):
    """The device of `--device`. Make random tensors on the CPU, the same on any machine, and move them."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def trained_on(device):
    """The device of `--device`, for trainings by Lightning."""
    if device.type == simulated.NAME:
        pytest.skip("Lightning does not know this device")
    return device


@pytest.fixture(autouse=True)
def _steady():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """A cache of file hashes for the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPLUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
