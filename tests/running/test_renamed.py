"""Settings that had another name: given on the command line, or recorded by runs of an earlier version."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from metasynth.errors import UsageError
from metasynth.running.grid import Grid
from metasynth.running.grid_folder import GridFolder
from metasynth.running.manifest import make_manifest
from metasynth.running.records import RunFolder
from metasynth.running.settings.config import apply_overrides, from_dict, to_dict
from metasynth.running.settings.renamed import Renamed, all_renewed, tell_renamed

DATA = {"path": "c.h5", "digest": "d", "given": False}


@dataclass(frozen=True)
class Inner:
    """Settings of which one had two other names."""

    words: tuple[str, ...] = ()
    n: int = 1

    RENAMED: ClassVar[dict[str, Renamed]] = {
        "word": Renamed("words", str, lambda before, given: (*before, given) if given else before),
        "many": Renamed("words", tuple[str, ...], lambda before, given: (*before, *given)),
    }


@dataclass(frozen=True)
class Config:
    """A group of them."""

    inner: Inner = Inner()
    m: int = 1


def manifest(config: dict[str, Any]) -> dict[str, Any]:
    return make_manifest("noise", "quick", 0, config, DATA)


OLD = {"inner": {"n": 1, "word": "a", "many": ["b", "c"]}, "m": 1}
NEW = Config(Inner(("a", "b", "c")))


def test_overrides_go_into_what_there_is_now(caplog):
    tell_renamed.cache_clear()
    for _ in range(2):
        assert apply_overrides(Config(), ["inner.word=a", "inner.many=b,c", "m=2"]) == Config(NEW.inner, 2)
    assert apply_overrides(NEW, ["inner.word="]) == NEW
    assert [record.getMessage() for record in caplog.records] == [
        f"inner.{name} is now inner.words; the old spelling goes in 0.3" for name in ("word", "many")
    ]


@dataclass(frozen=True)
class Later:
    """Settings of which one came later than the first version."""

    n: int
    word: str = "new runs"

    ADDED: ClassVar[dict[str, Any]] = {"word": "earlier runs"}


def test_a_setting_that_records_lack_is_what_it_means_for_them():
    assert from_dict(Later, {"n": 2}) == Later(2, "earlier runs")
    assert from_dict(Later, {"n": 2, "word": "x"}) == Later(2, "x")
    with pytest.raises(UsageError, match=r"^missing setting n$"):
        from_dict(Later, {"word": "x"})
    assert all_renewed(Later(2), {"n": 1}) == {"n": 1, "word": "earlier runs"}


def test_recorded_settings_are_read():
    assert from_dict(Config, OLD) == NEW
    assert from_dict(Config, to_dict(NEW)) == NEW
    with pytest.raises(UsageError, match=r"^inner.word: expected text, got 3$"):
        from_dict(Config, {**OLD, "inner": {"n": 1, "word": 3}})


def test_a_run_that_recorded_them_goes_on_and_keeps_its_record(tmp_path):
    RunFolder.create(tmp_path / "run", manifest(OLD)).close()
    before = (tmp_path / "run" / "config.json").read_bytes()
    RunFolder.resume(tmp_path / "run", manifest(to_dict(NEW)), config=NEW).close()
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    other = Config(Inner(("a",)))
    with pytest.raises(UsageError) as refused:
        RunFolder.resume(tmp_path / "run", manifest(to_dict(other)), config=other)
    told = "config.inner.words: ['a', 'b', 'c'] -> ['a']"
    assert str(refused.value) == f"{tmp_path / 'run'}: cannot resume with other settings: {told}"


def test_a_grid_with_runs_that_recorded_them_goes_on(tmp_path):
    grid = Grid("noise", "quick", (0,), {"inner.word": ("a",)}, overrides=("inner.many=b",))
    folder = GridFolder.create(tmp_path / "grid", grid)
    run = folder.path / grid.runs[0].name
    RunFolder.create(run, manifest({"inner": {"n": 1, "word": "a", "many": ["b"]}, "m": 1})).close()
    folder.check_runs([Config(Inner(("a", "b")))])
    with pytest.raises(UsageError) as refused:
        folder.check_runs([Config(Inner(("b", "a")))])
    folder.close()
    told = "config.inner.words: ['a', 'b'] -> ['b', 'a']"
    assert str(refused.value) == f"{run}: was begun with other settings: {told}"
