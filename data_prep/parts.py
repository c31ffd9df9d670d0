"""The subjects' parts of a cache: prepared side by side and kept one by one, so that an interrupted run goes on.

Each part lies in a work folder under a name that holds a hash of the subject's files (path, size, time of change,
content) and of the options; a run that finds it, whole by its seal (see `metasynth.sealed`), does not make it again.
"""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from metasynth.data_prep.options import Options
from metasynth.data_prep.prepare import Prepared, prepare
from metasynth.data_prep.slicing import AXIS_INDEX
from metasynth.data_prep.sources import Scan
from metasynth.data_prep.volumes.files import read_header
from metasynth.data_prep.work_folder import make_work_folder

from metasynth.errors import DataError
from metasynth.files import first_line, write_atomically
from metasynth.interrupts import check
from metasynth.lines import logger
from metasynth.sealed import read_zip, seal
from metasynth.workers import as_done, as_run_errors

_LOG = logger(__name__)
Parts = dict[str, dict[int, Path]]
"""Files of every scan's parts by its name and the index of the slicing axis."""
RECIPE = 3  # raise it whenever the same files and options would give other slices


def prepare_axes(
    scans: Sequence[Scan],
    options: Options,
    folder: Path,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Parts, dict[str, str]]:
    """Files of every scan's parts, and why scans are left out, by their names.

    A scan of one plane is a slice along one axis, and has no others. Parameters and what is raised are those of
    `prepare_all`.
    """
    parts: Parts = {scan.name: {} for scan in scans}
    failed: dict[str, str] = {}
    before = 0
    plane = {scan.name: None if options.volumes or options.flat else plane_axis(scan) for scan in scans}
    sliced = [(view, [s for s in scans if plane[s.name] in (None, view.axis)]) for view in options.by_axis]
    total = sum(len(wanted) for _, wanted in sliced)

    def follow(done: int, _: int) -> None:
        if progress is not None:
            progress(before + done, total)

    for index, (view, wanted) in enumerate(sliced):
        with closing(prepare_all(wanted, view, folder, processes, follow)) as outcomes:
            for scan, outcome in outcomes:
                if isinstance(outcome, str):
                    failed.setdefault(scan.name, outcome)
                else:
                    _LOG.debug("%s: prepared (%s)", scan.name, view.axis)
                    parts[scan.name][index] = outcome
        before += len(wanted)
    for scan in scans:
        if not parts[scan.name] and scan.name not in failed:
            axis = plane[scan.name]
            failed[scan.name] = (
                f"{_read_first(scan)}: is one {axis} plane, and has none along --axis {options.axis}; use --axis {axis}"
            )
    return parts, failed


def plane_axis(scan: Scan) -> str | None:
    """The axis along which a scan is one plane thick; None of all others, and of files that cannot be read."""
    path = _read_first(scan)
    try:
        header = None if path is None else read_header(path)
    except DataError:  # said when the scan is prepared
        return None
    if header is None or header.shape[:3].count(1) != 1:
        return None
    across = header.affine[:3, header.shape.index(1)]
    return next(axis for axis, index in AXIS_INDEX.items() if index == np.abs(across).argmax())


def _read_first(scan: Scan) -> Path | None:
    return scan.image or scan.labels


def prepare_all(
    scans: Sequence[Scan],
    options: Options,
    folder: Path,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[tuple[Scan, Path | str], None, None]:
    """(scan, file of its part, or why it is left out) of every scan, in the order they are done.

    Parameters
    ----------
    scans : sequence of Scan
        The scans.
    options : Options
        What is done to each, along one axis.
    folder : Path
        The work folder; made where absent.
    processes : int
        Subjects prepared side by side; 1 prepares them in this process.
    progress : callable or None
        Called with (scans done, scans in all).

    Raises
    ------
    UsageError
        The folder is not one that this program works in.
    DataError
        The folder or a part cannot be written.
    RunError
        A worker process was killed.
    Interrupted
        The process was asked to end; parts that are done are kept.
    """
    make_work_folder(folder)
    places = {scan.name: folder / _part_name(scan, options) for scan in scans}
    kept = [scan for scan in scans if _is_part(places[scan.name])]
    missing = [scan for scan in scans if scan not in kept]
    done = len(kept)
    yield from ((scan, places[scan.name]) for scan in kept)
    with closing(_run(missing, options, processes)) as outcomes:
        for scan, outcome in outcomes:
            if isinstance(outcome, Prepared):
                _save(places[scan.name], outcome)
            done += 1
            if progress is not None:
                progress(done, len(scans))
            yield scan, outcome if isinstance(outcome, str) else places[scan.name]


def _run(scans: Sequence[Scan], options: Options, processes: int) -> Generator[tuple[Scan, Prepared | str], None, None]:
    """(scan, its part or why it is left out), prepared by this process or by several."""
    if processes == 1 or len(scans) < 2:
        for scan in scans:
            check()
            yield scan, _attempt(scan, options)
        return
    # Fresh processes: a fork would copy the threads' locks of progress bars and libraries.
    attempt, workers = partial(_attempt, options=options), min(processes, len(scans))
    with as_run_errors("a subject could not be prepared"):
        yield from as_done(attempt, scans, workers=workers, prepare=_nothing, method="spawn")


def _nothing() -> None:
    """What is to be done in a worker before its first subject."""


def _attempt(scan: Scan, options: Options) -> Prepared | str:
    """The scan's part, or why there is none."""
    try:
        return prepare(scan, options)
    except DataError as error:
        return str(error)
    except MemoryError:
        return "is too large for the memory"


def _part_name(scan: Scan, options: Options) -> str:
    """File name of a scan's part: its name and a hash of all that decides about it."""
    files = [(os.path.realpath(path), *_state(path), _content(path)) for path in scan.files]  # of a link to itself, too
    described = asdict(options) | {"mapping": options.mapping.decides()}
    key = json.dumps([RECIPE, files, described], sort_keys=True, default=str)
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", scan.name)[:80]
    return f"{plain}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change, zeros where the file cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _content(path: Path) -> str:
    """A digest of the file's bytes, empty where it cannot be read: size and time of two files may be the same."""
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _is_part(path: Path) -> bool:
    """Whether a part is there and whole."""
    try:
        read_zip(path, sealed=True)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return True


def _save(path: Path, part: Prepared) -> None:
    arrays: dict[str, Any] = {"labels": part.labels, "slice_index": part.slice_index, "spacing": part.spacing}
    arrays["scaled_from"] = np.array(part.scaled_from, dtype=str)
    if part.images is not None:
        arrays["images"] = part.images
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, seal(buffer), failure=DataError, make_folder=False)


def load_part(path: Path) -> Prepared:
    """The part in a file; DataError if it was damaged since it was found whole."""
    try:
        content = read_zip(path, sealed=True)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is damaged ({first_line(error)}); run the same command again") from error
    with np.load(content) as arrays:
        images = arrays["images"] if "images" in arrays.files else None
        a, b, c = (float(s) for s in arrays["spacing"])
        return Prepared(
            arrays["labels"], images, arrays["slice_index"], (a, b, c), tuple(arrays["scaled_from"].tolist())
        )


def spacing_of(path: Path) -> tuple[float, float, float]:
    """The spacing of the part in a file; its arrays are not read."""
    with np.load(path) as arrays:
        a, b, c = (float(s) for s in arrays["spacing"])
    return a, b, c
