import errno
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support.longest import LONGEST

settings.register_profile("metasynth", deadline=None)  # machines that run tests are shared
settings.load_profile("metasynth")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first; all else stays in its order."""
    place = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was collected stays to the end: the garbage collector, and tests that look at every object, pass it over.

    Where no test asks for a GPU, none is seen here or by what is started: tests are the same on every machine.
    """
    if not any(item.get_closest_marker("cuda") for item in session.items):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """One reason for all that are left out."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """What is held against the CPU: the CPU itself, so that the test is carried out everywhere, and a GPU."""
    return request.param


@pytest.fixture
def configured(device: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device, with torch as it is for a run."""
    from metasynth.running.device import configure_torch

    for flag in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, flag, getattr(torch.backends.cudnn, flag))
    return configure_torch(device, 1)[0]


@pytest.fixture(autouse=True, scope="session")
def _own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither use nor fill the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METASYNTH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk() -> Iterator[None]:
    """Nothing here is to outlive the machine, and a run brings its files onto the disk fifty times, for 4 ms each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, too
        yield


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """One thread, and denormals as IEEE 754 has them (hypothesis insists), whatever a test sets."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
    yield
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """A context in which nothing can be flushed to the disk."""

    @contextmanager
    def full() -> Iterator[None]:
        def refuse(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            yield

    return full


# Begun in the background, where a shell has interrupts ignored, the suite could not test them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def levels_of_loggers():
    """Programs of the docs and commands set them; each test begins as if there had been none."""
    loggers = [logging.getLogger(name) for name in ("metasynth", "metasynth.progress")]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)
