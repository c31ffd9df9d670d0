"""The commands that make and show caches."""

import os
from collections.abc import Callable

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.caches import FINE_INFO, make

from metasynth.cli.main import main
from metasynth.data.cache import Cache, CacheInfo, write_cache
from metasynth.interrupts import Interrupted


@pytest.fixture
def cli(monkeypatch, tmp_path) -> Callable[..., Result]:
    """The command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def test_prep_template_copies_and_never_overwrites(cli, tmp_path, monkeypatch):
    from metasynth.data_prep.cohorts import cohort

    kept = tmp_path / "kept.h5"
    kept.write_bytes(b"cache")

    def ensure(spec, progress, notice):
        progress(1, 2)
        progress(2, 2)
        return kept

    monkeypatch.setattr(cohort, "ensure_cohort", ensure)
    result = cli("prep", "template")
    assert result.stdout == f"Cohort: {kept}\n"
    assert "template-64: 2/2" in result.stderr
    assert cli("prep", "template", "--cohort", "template-96", "--out", "copies/a.h5").stdout == "Cohort: copies/a.h5\n"
    assert (tmp_path / "copies" / "a.h5").read_bytes() == b"cache"
    refused = cli("prep", "template", "--out", "kept.h5")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "Error: --out kept.h5: exists already; give another name" + "\n",
    )


def test_inspect_says_what_a_cache_holds(cli, tmp_path):
    info = CacheInfo(("background", "brain"), "none", (1.0, 1.0), "coronal", "IR", "made up", "a test")
    labels = np.tile(np.array([[0, 1], [1, 0]], np.uint8).repeat(8, 0).repeat(8, 1), (4, 1, 1))
    images = (labels / 2).astype(np.float32)
    write_cache(
        tmp_path / "a.h5",
        labels=labels,
        images=images,
        subject=[0, 0, 1, 1],
        subjects=["one", "two"],
        slice_index=[0, 1, 0, 1],
        info=info,
    )
    result = cli("inspect", "a.h5", "--montage", "a.png")
    assert result.exit_code == 0, result.output
    assert "coronal" in result.stdout
    assert "brain" in result.stdout
    assert result.stdout.endswith("Montage: a.png\n")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_prep_remap(cli, tmp_path):
    make(tmp_path / "a.h5", info=FINE_INFO)
    result = cli("prep", "remap", "a.h5", "--curve", "inverted", "--out", "b.h5")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Cache: b.h5 (15 slices of 6 x 7), REMAPPED\n"
    assert result.stderr == "items: 15/15, 0 s\n"
    with Cache("a.h5") as a, Cache("b.h5") as b:
        inverted = (1 - a.read_images(range(15)).astype(float)).astype(np.float32)
        np.testing.assert_array_equal(b.read_images(range(15)), inverted)
    assert "images       yes, REMAPPED\n" in cli("inspect", "b.h5").stdout
    refused = cli("prep", "remap", "a.h5", "--curve", "bent", "--out", "b.h5")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "Error: --out b.h5: exists already; give another name or --overwrite\n",
    )
    assert cli("prep", "remap", "a.h5", "--curve", "bent", "--out", "b.h5", "--overwrite").exit_code == 0


def test_prep_remap_on_a_full_disk_is_one_line(cli, tmp_path, full_disk):
    make(tmp_path / "a.h5")
    with full_disk():
        result = cli("prep", "remap", "a.h5", "--curve", "bent", "--out", "b.h5", "--quiet")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: b.h5: cannot be written: No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_prep_remap_can_be_interrupted(cli, tmp_path, monkeypatch):
    from metasynth.data_prep.remapping import remap

    def stop():
        raise Interrupted

    make(tmp_path / "a.h5")
    monkeypatch.setattr(remap, "check", stop)
    result = cli("prep", "remap", "a.h5", "--curve", "bent", "--out", "b.h5")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "Interrupted.")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_inspect_refuses_what_is_no_cache(cli, tmp_path):
    (tmp_path / "a.h5").write_bytes(b"text")
    os.mkfifo(tmp_path / "pipe.h5")  # nobody writes into it: reading would never end
    for name in ("a.h5", "absent.h5", "pipe.h5"):
        result = cli("inspect", name)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {name}: ")
        assert result.stderr.count("\n") == 1
