"""The tiny study for processes of their own: installed for them in a folder, and held up while a file is there."""

import os
import time
from pathlib import Path

from support.tiny_study import tiny_experiment

HOLD = "METASYNTH_TEST_HOLD"
TESTS = Path(__file__).parents[1]


class Hold:
    """A `tiny_study.Stop` that lets three steps pass, then waits for as long as the file exists."""

    def __init__(self) -> None:
        self._looks = 0

    @property
    def at(self) -> None:
        self._looks += 1
        while self._looks > 3 and Path(os.environ.get(HOLD, "/nowhere")).exists():
            time.sleep(0.01)


EXPERIMENT = tiny_experiment(Hold())  # type: ignore[arg-type]


def install(folder: Path) -> Path:
    """Make the study, as 'tiny', and sinks known to processes with the folder and that of the tests in PYTHONPATH."""
    info = folder / "grid_study-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: grid-study\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[metasynth.experiments]\ntiny = support.grid_study:EXPERIMENT\n"
        "[metasynth.sinks]\nnoting = support.noting_sink:NOTING\nrefusing = support.noting_sink:REFUSING\n"
    )
    return folder
