"""A folder in which the commands of the documentation find what they name."""

import shutil
from pathlib import Path

import pytest
from docs.stock import fill

from metasynth.augment import table
from metasynth.segment import table as networks
from metasynth.sinks import table as sinks


@pytest.fixture(scope="session")
def _stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fill(folder)
    return folder


@pytest.fixture
def stocked(_stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stock as the working folder; what a program registers is gone after it."""
    for one in (table, networks, sinks):
        monkeypatch.setattr(one.TABLE, "_registered", {})
    folder = tmp_path / "work"
    shutil.copytree(_stock, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder
