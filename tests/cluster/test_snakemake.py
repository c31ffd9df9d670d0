"""The Snakefile of the guide, carried out: `make cluster`, which installs Snakemake in an environment of its own."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from docs.blocks import blocks
from support import tiny_grid
from support.processes import wait_for
from support.tiny_grid import GRID, RUNS, found, lines

from metasynth.cli.main import main

pytestmark = pytest.mark.cluster
BIN = Path(sys.executable).parent
SNAKEMAKE = shutil.which("snakemake", path=f"{BIN.parent / 'snakemake' / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_the_snakefile_of_the_guide_carries_a_grid_out(tmp_path, monkeypatch):
    """One of its runs was begun, and interrupted, before."""
    hold = tiny_grid.install(monkeypatch, tmp_path)
    (snakefile,) = (block for block in blocks("docs/guides/cluster.md") if block.saved == "Snakefile")
    Path("Snakefile").write_text(snakefile.text)
    printed = CliRunner().invoke(main, ["run", "tiny", *GRID, "--out", "runs/grid", "--print-commands"])
    Path("commands.txt").write_text(printed.stdout)
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    hold.touch()
    begun = subprocess.Popen(shlex.split(printed.stdout.splitlines()[0]))
    wait_for(lambda: lines(Path("runs/grid") / RUNS[0]) == 3, 600)
    begun.kill()
    begun.wait()
    hold.unlink()
    assert SNAKEMAKE, "snakemake is not installed"
    subprocess.run([SNAKEMAKE, "--cores", "2", "--quiet"], check=True)
    assert Path("runs/grid/report.html").is_file()
    assert found(Path("runs/grid")) == tiny_grid.undisturbed(tmp_path / "undisturbed")
