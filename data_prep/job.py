"""What a cache is made with, and the files that come of it."""

from dataclasses import dataclass
from pathlib import Path

from metasynth.data_prep.options import Options
from metasynth.data_prep.slicing import Frame
from metasynth.data_prep.work_folder import WORK_SUFFIX, finish_work, foreign_work

from metasynth.data.schema import CACHE
from metasynth.errors import UsageError
from metasynth.outputs import PICTURE, Kind, Output
from metasynth.text import parse_json

REPORT_KEYS = ("cache", "command", "shape", "used", "left_out", "notes")


@dataclass(frozen=True)
class Job:
    """What to make.

    Attributes
    ----------
    out : Path
        The cache.
    options : Options
        What is done to every subject.
    frame : Frame
        How items are cut to one shape.
    command : str
        Name of the command, for the cache.
    source : str
        Where the data come from, for the cache.
    processes : int
        Subjects prepared side by side.
    keep_work : bool
        Keep the work folder though every subject is in the cache.
    draw : bool
        Draw a picture of the cache too.
    """

    out: Path
    options: Options
    frame: Frame
    command: str
    source: str
    processes: int = 1
    keep_work: bool = False
    draw: bool = False

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.out.with_name(f"{self.out.name}{WORK_SUFFIX}")

    @property
    def picture(self) -> Path:
        """Where the picture is drawn, beside the cache."""
        return self.out.with_name(f"{self.out.stem}.png")

    @property
    def report(self) -> Path:
        """Where the report is written, beside the cache."""
        return self.out.with_name(f"{self.out.stem}.report.json")


def outputs(job: Job, overwrite: bool) -> list[Output]:
    """What is written for a job. The report and picture of one that was stopped are its own, and replaced.

    The work folder of one that was killed at its very end is removed.

    Raises
    ------
    UsageError
        Its work folder is something else.
    """
    problem = foreign_work(job.work)
    if problem:
        raise UsageError(f"--out {job.out}: {job.work} {problem}")
    finish_work(job.work)
    said = f"--out {job.out}:"
    unfinished = job.work.is_dir() and not job.out.exists()
    beside = [(job.report, REPORT), *([(job.picture, PICTURE)] if job.draw else [])]
    return [
        Output(said, job.out, CACHE, overwrite, make_folder=False),
        *(Output(f"{said} {path}", path, kind, overwrite or unfinished, make_folder=False) for path, kind in beside),
    ]


def is_report(path: Path) -> bool:
    """Whether a file is a report on a cache."""
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and set(REPORT_KEYS) <= found.keys()


REPORT = Kind("report", (), is_report)
