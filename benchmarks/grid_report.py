"""How long the report of a grid takes: many copies of a finished run, each with a seed of its own.

python benchmarks/grid_report.py runs/noise --runs 64
"""

import argparse
import tempfile
import time
from pathlib import Path

from metasynth.cli.grid import report_grid
from metasynth.run import execute
from metasynth.running.grid import Grid
from metasynth.running.grid_folder import GridFolder
from metasynth.running.manifest import make_manifest
from metasynth.running.records import RunFolder
from metasynth.running.study import load_experiment

SMALL = ["steps=3", "inner_steps=3", "problems=1"]
"""Of the study 'ridge', of which a run is made where none is given."""


WRITTEN = ("config.json", "environment.json", "split.json", "metrics.jsonl", "results.json", ".lock")
"""What each run has of its own."""


def copy_with_seed(run: RunFolder, path: Path, seed: int) -> None:
    """Write a run's records, results and files again, as those of another seed."""
    found = run.manifest
    manifest = make_manifest(found["experiment"], found["preset"], seed, found["config"], found["data"])
    with RunFolder.create(path, manifest, {"device": "cpu"}) as copy:
        if (run.path / "split.json").is_file():
            copy.keep_split(run.read_json("split.json"))
        for record in run.read_metrics():
            copy.append(record)
        for file in [*run.path.glob("*.*"), *run.path.glob("models/*")]:
            if file.name not in WRITTEN and file.is_file():
                copy.write_bytes(str(file.relative_to(run.path)), file.read_bytes())
        copy.sync()
        copy.write_json("results.json", {**run.results, "seed": seed})


def main() -> None:
    """Print the seconds of one report, those that a core was busy with it, and how many records it read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a finished run; by default a small one of 'ridge'")
    parser.add_argument("--runs", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.run
        if path is None:
            path = Path(folder) / "run"
            execute(load_experiment("ridge"), path, overrides=SMALL, device="cpu", threads=1, quiet=True)
        run = RunFolder.open(path)
        name, preset = run.manifest["experiment"], run.manifest["preset"]
        grid = GridFolder.create(Path(folder) / "grid", Grid(name, preset, tuple(range(options.runs))))
        for each in grid.grid.runs:
            copy_with_seed(run, grid.path / each.name, each.seed)
        begun, begun_at_work = time.perf_counter(), time.process_time()
        report_grid(load_experiment(name), GridFolder.open(grid.path))
        seconds, at_work = time.perf_counter() - begun, time.process_time() - begun_at_work
        grid.close()
        size = (grid.path / "report.html").stat().st_size
        records = len(run.read_metrics()) * options.runs
        print(f"{name}: {options.runs} runs, {records} records: {seconds:.1f} s, {at_work:.1f} s of one core, ", end="")
        print(f"a page of {size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
