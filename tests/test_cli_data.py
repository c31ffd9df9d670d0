"""The commands that make and show caches."""

import os
from collections.abc import Callable

import numpy as np
import pytest
from click.testing import CliRunner, Result

from metasynth.cli.main import main
from metasynth.data.cache import CacheInfo, write_cache


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


def test_inspect_refuses_what_is_no_cache(cli, tmp_path):
    (tmp_path / "a.h5").write_bytes(b"text")
    os.mkfifo(tmp_path / "pipe.h5")  # nobody writes into it: reading would never end
    for name in ("a.h5", "absent.h5", "pipe.h5"):
        result = cli("inspect", name)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {name}: ")
        assert result.stderr.count("\n") == 1
