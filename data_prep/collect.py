"""From all subjects to one cache, written at the end, whole or not at all, with a report of who is in it and who not.

The subjects' parts are kept in a work folder beside the cache (see `parts`), which is removed when every subject is
in the cache.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from metasynth.data_prep.parts import load_part, prepare_all, spacing_of
from metasynth.data_prep.prepare import Options
from metasynth.data_prep.slicing import GROWS_TO, IN_PLANE, Frame, cut, label_box
from metasynth.data_prep.sources import Scan, Sources

from metasynth.data.cache import CacheInfo, write_cache
from metasynth.errors import DataError, UsageError
from metasynth.files import write_atomically

SAME_SPACING = 1e-3


@dataclass(frozen=True)
class Job:
    """What to make.

    Attributes:
        out: The cache.
        options: What is done to every subject.
        frame: How items are cut to one shape.
        command: Name of the command, for the cache.
        source: Where the data come from, for the cache.
        processes: Subjects prepared side by side.
        keep_work: Keep the work folder though every subject is in the cache.

    """

    out: Path
    options: Options
    frame: Frame
    command: str
    source: str
    processes: int = 1
    keep_work: bool = False

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.out.with_name(f"{self.out.name}.work")

    @property
    def report(self) -> Path:
        """Where the report is written, beside the cache."""
        return self.out.with_name(f"{self.out.stem}.report.json")


@dataclass(frozen=True)
class Report:
    """What became of the subjects.

    Attributes:
        used: (scan, number of items in the cache).
        left_out: (scan, reason).
        notes: Other things to know.
        shape: Shape S of the items.
        people: How many people the scans are of.

    """

    used: list[tuple[str, int]]
    left_out: list[tuple[str, str]]
    notes: list[str]
    shape: tuple[int, ...]
    people: int


def make_cache(sources: Sources, job: Job, progress: Callable[[int, int], None] | None = None) -> Report:
    """Prepare every scan and write the cache and, beside it, the report.

    Args:
        sources: The scans.
        job: What to make.
        progress: Called with (scans done, scans in all).

    Raises:
        UsageError: There is nothing to prepare, or the folder of the cache does not exist.
        DataError: No scan could be used, or a file cannot be written; what was prepared stays in the work folder.
        RunError: A worker process was killed.

    """
    if not job.out.parent.is_dir():
        raise UsageError(f"--out {job.out}: the folder {job.out.parent} does not exist")
    size, volumes = job.frame.size, job.options.volumes
    if size is not None and len(size) != 2 + volumes:
        kind = "three lengths for volumes" if volumes else "two lengths for slices"
        raise UsageError(f"--size {_by(size)}: expected {kind}")
    left_out = list(sources.left_out)
    if not sources.scans:
        raise DataError(_nothing(left_out))
    parts: dict[str, Path] = {}
    with closing(prepare_all(sources.scans, job.options, job.work, job.processes, progress)) as outcomes:
        for scan, outcome in outcomes:
            if isinstance(outcome, str):
                left_out.append((scan.name, outcome))
            else:
                parts[scan.name] = outcome
    scans = [scan for scan in sources.scans if scan.name in parts]
    scans, more = _of_one_spacing(scans, parts)
    left_out.extend(more)
    if not scans:
        raise DataError(_nothing(left_out))
    report = _write(scans, parts, sorted(left_out), sources.notes, job)
    if not job.keep_work and not left_out:
        shutil.rmtree(job.work, ignore_errors=True)
    return report


def _nothing(left_out: Sequence[tuple[str, str]]) -> str:
    name, reason = left_out[0] if left_out else ("", "there is none")
    more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
    return f"no subject could be used: {f'{name}: ' if name else ''}{reason}{more}"


def _of_one_spacing(scans: list[Scan], parts: dict[str, Path]) -> tuple[list[Scan], list[tuple[str, str]]]:
    """The scans of the commonest spacing, and (name, reason) of the others."""
    found = {scan.name: spacing_of(parts[scan.name]) for scan in scans}
    if not found:
        return [], []
    common = Counter(tuple(round(s, 3) for s in spacing) for spacing in found.values()).most_common(1)[0][0]
    same = {name: bool(np.allclose(spacing, common, rtol=SAME_SPACING, atol=1e-3)) for name, spacing in found.items()}
    left_out = [
        (
            name,
            f"its voxels are {_by(found[name])} mm (slicing axis, rows, columns), most are {_by(common)} mm; --spacing "
            "brings all to one",
        )
        for name in found
        if not same[name]
    ]
    return [scan for scan in scans if same[scan.name]], left_out


def _write(
    scans: list[Scan], parts: dict[str, Path], left_out: list[tuple[str, str]], notes: list[str], job: Job
) -> Report:
    """Cut all items to one shape and write the cache and the report."""
    options = job.options
    spacing = spacing_of(parts[scans[0].name])
    item_spacing = spacing if options.volumes else spacing[1:]
    boxes = np.stack([label_box(load_part(parts[scan.name]).labels) for scan in scans])
    if options.align != "none":  # aligned brains keep their place
        boxes[:] = np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])
    if options.flat:  # one plane of aligned brains, and a field that is cut to them already
        field = np.array(load_part(parts[scans[0].name]).labels.shape[1:])
        boxes[:] = np.stack([np.zeros_like(field), field])
        shape = job.frame.size or tuple(int(n) for n in np.ceil(field / job.frame.divisor) * job.frame.divisor)
    else:
        shape = job.frame.shape(boxes[:, 1] - boxes[:, 0], item_spacing)
    labels, images, slice_index, used, notes = [], [], [], [], list(notes)
    for scan, box in zip(scans, boxes, strict=True):
        part = load_part(parts[scan.name])
        labels.append(cut(part.labels, box, shape))
        if part.images is not None:
            images.append(cut(part.images, box, shape))
        slice_index.append(part.slice_index)
        used.append((scan.name, len(part.labels)))
        lost = np.count_nonzero(part.labels) - np.count_nonzero(labels[-1])
        if lost:
            notes.append(f"{scan.name}: {lost} labelled voxels lie outside the size {_by(shape)}")
    people = sorted({scan.person for scan in scans})
    write_cache(
        job.out,
        labels=np.concatenate(labels),
        images=np.concatenate(images) if images else None,
        subject=np.repeat([people.index(scan.person) for scan in scans], [n for _, n in used]),
        subjects=people,
        slice_index=np.concatenate(slice_index),
        info=_info(job, spacing),
    )
    report = Report(used, left_out, notes, shape, len(people))
    _write_report(report, job)
    return report


def _info(job: Job, spacing: tuple[float, float, float]) -> CacheInfo:
    options = job.options
    plane = IN_PLANE[options.axis]
    return CacheInfo(
        class_names=options.mapping.class_names,
        mapping=options.mapping.text,
        spacing_mm=spacing if options.volumes else spacing[1:],
        axis="volume" if options.volumes else options.axis,
        orientation=GROWS_TO[options.axis] + plane if options.volumes else plane,
        source=job.source.encode(errors="backslashreplace").decode(),
        created_by=f"metasynth {version('metasynth')} {job.command}",
    )


def _write_report(report: Report, job: Job) -> None:
    """The report as JSON; without paths of the machine other than those in reasons."""
    content = {
        "cache": job.out.name,
        "command": job.command,
        "shape": report.shape,
        "people": report.people,
        "used": dict(report.used),
        "left_out": [{"name": name, "reason": reason} for name, reason in report.left_out],
        "notes": report.notes,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + os.linesep
    # Names of files may hold bytes that are no UTF-8; JSON has an escape for what stands for them.
    write_atomically(job.report, text.encode(errors="backslashreplace"), failure=DataError, make_folder=False)


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:g}" for n in numbers)
