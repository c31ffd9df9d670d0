"""A run that is whole, and two that were interrupted."""

import shutil

import pytest
from support.changed_runs import (
    invoke,
    stopped,
)
from support.tiny_noise import arguments, make_cache


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache") / "c.h5")


@pytest.fixture(scope="session")
def whole(tmp_path_factory, cache):
    run = tmp_path_factory.mktemp("whole") / "run"
    assert invoke(arguments(run, cache, seed=3)).exit_code == 0
    return run


@pytest.fixture(scope="session")
def begun(tmp_path_factory, cache):
    return stopped(tmp_path_factory.mktemp("begun") / "run", cache)


@pytest.fixture(scope="session")
def other(tmp_path_factory, cache):
    return stopped(tmp_path_factory.mktemp("other") / "run", cache, seed=4)


@pytest.fixture
def run(tmp_path, begun):
    return shutil.copytree(begun, tmp_path / "run")
