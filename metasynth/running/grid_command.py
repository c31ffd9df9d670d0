"""What a run of a grid is started as, and what its log says of how it ended."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metasynth.running.grid import GridRun
    from metasynth.running.grid_folder import GridFolder


def words_of(folder: "GridFolder", run: "GridRun", *, resume: bool) -> list[str]:
    """The command of a run as words, 'metasynth' first.

    Parameters
    ----------
    folder : GridFolder
        The run is in a folder of its own inside; its path is said as the grid's is.
    run : GridRun
    resume : bool
        Go on with what is there. As every setting is said, it begins where nothing is.

    Returns
    -------
    list of str
    """
    grid = folder.grid
    words = ["metasynth", *_verbosity(), "run", grid.experiment]
    words += ["--out", str(folder.path / run.name), "--preset", grid.preset, "--seed", str(run.seed)]
    words += ["--data", str(grid.data)] if grid.data else []
    words += ["--device", grid.device, "--threads", str(grid.threads), "--quiet"]
    words += ["--log", grid.log] if grid.log else []
    words += ["--resume"] if resume else []
    return words + [word for override in grid.overrides_of(run.settings) for word in ("--set", override)]


def last_error(log: Path, offset: int, code: int) -> str:
    """What a process that failed said at last, in one line.

    Parameters
    ----------
    log : Path
        What it wrote.
    offset : int
        Bytes of the log before its first; earlier sessions wrote these.
    code : int
        The status it ended with, which is told where it wrote nothing.

    Returns
    -------
    str
        The last line that tells an error, without 'Error: '; else the last line.
    """
    with log.open("rb") as file:
        file.seek(offset)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("Error: ")] or lines[-1:] or [f"exit code {code}"]
    return told[-1].removeprefix("Error: ")


def _verbosity() -> list[str]:
    """The runs write into their logs as much as this process says."""
    level = logging.getLogger("metasynth").getEffectiveLevel()
    return ["-vv"] if level <= logging.DEBUG else ["-v"] if level <= logging.INFO else []
