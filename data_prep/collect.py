"""From all subjects to one cache, written at the end, whole or not at all, with a report of who is in it and who not.

The subjects' parts are kept in a work folder beside the cache (see `parts`), which is removed when every subject is
in the cache. The cache comes to its place last: where it is, the report and the picture are.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from metasynth.data_prep.job import REPORT_KEYS, Job
from metasynth.data_prep.parts import Parts, load_part, prepare_axes, spacing_of
from metasynth.data_prep.slicing import GROWS_TO, IN_PLANE, cut, label_box
from metasynth.data_prep.sources import Scan, Sources
from metasynth.data_prep.volumes.align import atlas_grid
from metasynth.data_prep.volumes.resample import roughly
from metasynth.data_prep.volumes.units import scaled_note
from metasynth.data_prep.work_folder import mark_done, remove_work_folder

from metasynth import __version__
from metasynth.data.cache import CacheInfo, write_cache
from metasynth.errors import DataError, UsageError
from metasynth.files import write_atomically
from metasynth.lines import logger
from metasynth.sizes import require_memory
from metasynth.text import by

_LOG = logger(__name__)

SAME_SPACING = 1e-3


@dataclass(frozen=True)
class Report:
    """What became of the subjects.

    Attributes
    ----------
    used : list of tuple (str, int)
        (scan, number of items in the cache).
    left_out : list of tuple (str, str)
        (scan, reason).
    notes : list of str
        Other things to know.
    shape : tuple of int
        Shape S of the items.
    people : int
        How many people the scans are of.
    """

    used: list[tuple[str, int]]
    left_out: list[tuple[str, str]]
    notes: list[str]
    shape: tuple[int, ...]
    people: int


def make_cache(sources: Sources, job: Job, progress: Callable[[int, int], None] | None = None) -> Report:
    """Prepare every scan and write the cache and, beside it, the report.

    Parameters
    ----------
    sources : Sources
        The scans.
    job : Job
        What to make.
    progress : callable or None
        Called with (scans done, scans in all).

    Raises
    ------
    UsageError
        There is nothing to prepare, or the folder of the cache does not exist.
    DataError
        No scan could be used, or a file cannot be written; what was prepared stays in the work folder.
    RunError
        A worker process was killed.
    """
    if not job.out.parent.is_dir():
        raise UsageError(f"--out {job.out}: the folder {job.out.parent} does not exist")
    size, volumes = job.frame.size, job.options.volumes
    if size is not None and len(size) != 2 + volumes:
        kind = "three lengths for volumes" if volumes else "two lengths for slices"
        raise UsageError(f"--size {roughly(size)}: expected {kind}")
    _require_room(1, job.frame.least(2 + volumes), job)
    if job.options.align != "none" and job.options.spacing_mm:
        atlas_grid(job.options.spacing_mm)  # refuses one that is too large
    left_out = list(sources.left_out)
    if not sources.scans:
        raise DataError(_nothing(left_out))
    _LOG.info("preparing %d scans in %s, %d at a time", len(sources.scans), job.work, job.processes)
    parts, failed = prepare_axes(sources.scans, job.options, job.work, job.processes, progress)
    left_out.extend(failed.items())
    scans = [scan for scan in sources.scans if scan.name not in failed]
    scans, more = _of_one_spacing(scans, parts)
    left_out.extend(more)
    if not scans:
        with suppress(OSError):  # it holds what was prepared
            job.work.rmdir()
        raise DataError(_nothing(left_out))
    report = _write(scans, parts, sorted(left_out), sources.notes, job)
    if _is_done(job, left_out):
        remove_work_folder(job.work)
    return report


def _require_room(items: int, shape: tuple[int, ...], job: Job) -> None:
    """UsageError if so many items of that shape, at least, cannot be held in memory."""
    setting = "--size" if job.frame.size else "--margin, --divisor"
    require_memory(items * math.prod(shape), f"a cache of items of {roughly(shape)}", setting)


def _nothing(left_out: Sequence[tuple[str, str]]) -> str:
    name, reason = left_out[0] if left_out else ("", "there is none")
    more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
    return f"no subject could be used: {f'{name}: ' if name else ''}{reason}{more}"


def _of_one_spacing(scans: list[Scan], parts: Parts) -> tuple[list[Scan], list[tuple[str, str]]]:
    """The scans of the commonest spacing, and (name, reason) of the others; slices of several axes need cubes."""
    found = {scan.name: _spacing(scan, parts) for scan in scans}
    if not found:
        return [], []
    common = Counter(tuple(round(s, 3) for s in spacing) for spacing in found.values()).most_common(1)[0][0]
    most = f"most are {by(common)} mm"
    several = len({axis for scan in scans for axis in parts[scan.name]}) > 1
    if several and not np.allclose(common, common[0], rtol=SAME_SPACING, atol=1e-3):
        most, common = "slices of several axes need cubes", (math.nan,) * 3
    same = {name: bool(np.allclose(spacing, common, rtol=SAME_SPACING, atol=1e-3)) for name, spacing in found.items()}
    left_out = [
        (
            name,
            f"its voxels are {by(found[name])} mm (slicing axis, rows, columns), {most}; --spacing brings all to one",
        )
        for name in found
        if not same[name]
    ]
    return [scan for scan in scans if same[scan.name]], left_out


def _spacing(scan: Scan, parts: Parts) -> tuple[float, float, float]:
    """Of a scan's slices along the first axis that it has some of."""
    return spacing_of(next(iter(parts[scan.name].values())))


def _write(scans: list[Scan], parts: Parts, left_out: list[tuple[str, str]], notes: list[str], job: Job) -> Report:
    """Cut all items to one shape and write the report, the picture and the cache."""
    options = job.options
    spacing = _spacing(scans[0], parts)
    item_spacing = spacing if options.volumes else spacing[1:]
    classes_of = options.mapping.classes_of  # by these items are cut: fluid may reach down the spine
    shown = classes_of if options.strip else np.asarray
    own = [(scan.name, axis, path) for scan in scans for axis, path in parts[scan.name].items()]
    axes = np.array([axis for _, axis, _ in own])
    boxes = np.array([label_box(shown(load_part(path).labels)) for *_, path in own])
    if options.align != "none":  # aligned brains keep their place
        for axis in np.unique(axes):
            alike = axes == axis
            boxes[alike] = np.stack([boxes[alike, 0].min(axis=0), boxes[alike, 1].max(axis=0)])
    if options.flat:  # one plane of aligned brains, and a field that is cut to them already
        field = np.array(load_part(own[0][2]).labels.shape[1:])
        boxes[:] = np.stack([np.zeros_like(field), field])
        shape = job.frame.size or tuple(int(n) for n in np.ceil(field / job.frame.divisor) * job.frame.divisor)
    else:
        shape = job.frame.shape(boxes[:, 1] - boxes[:, 0], item_spacing)
    _require_room(len(scans), shape, job)
    labels, images, slice_index, view, scaled = [], [], [], [], []
    used, lost = Counter[str](), Counter[str]()
    for (name, axis, path), box in zip(own, boxes, strict=True):
        part = load_part(path)
        labels.append(cut(part.labels, box, shape))
        if part.images is not None:
            images.append(cut(part.images, box, shape))
        slice_index.append(part.slice_index)
        view += [axis] * len(part.labels)
        used[name] += len(part.labels)
        scaled += [(name, unit) for unit in part.scaled_from]
        lost[name] += int(np.count_nonzero(classes_of(part.labels)) - np.count_nonzero(classes_of(labels[-1])))
    outside = [f"{name}: {n} labelled voxels lie outside the size {roughly(shape)}" for name, n in lost.items() if n]
    people = sorted({scan.person for scan in scans})
    whole = job.work / job.out.name
    write_cache(
        whole,
        labels=np.concatenate(labels),
        images=np.concatenate(images) if images else None,
        subject=np.repeat([people.index(scan.person) for scan in scans], [used[scan.name] for scan in scans]),
        subjects=people,
        slice_index=np.concatenate(slice_index),
        view=view if "," in options.axis else None,
        info=_info(job, spacing),
    )
    told = [*scaled_note([*dict.fromkeys(scaled)]), *notes, *outside]
    report = Report([*used.items()], left_out, told, shape, len(people))
    _write_report(report, job)
    if job.draw:
        from metasynth.data_prep.montage import write_montage  # matplotlib takes a second

        write_montage(whole, job.picture)
    if _is_done(job, left_out):
        mark_done(job.work)
    try:
        whole.replace(job.out)
    except OSError as error:
        raise DataError(f"{job.out}: cannot be written: {error.strerror or error}") from error
    return report


def _is_done(job: Job, left_out: Sequence[tuple[str, str]]) -> bool:
    """Whether nothing of the work folder is needed once the cache is in its place."""
    return not (job.keep_work or left_out)


def _info(job: Job, spacing: tuple[float, float, float]) -> CacheInfo:
    options, structures = job.options, job.options.mapping.structures
    planes = ",".join(IN_PLANE[each.axis] for each in options.by_axis)
    return CacheInfo(
        class_names=options.mapping.class_names,
        mapping=options.mapping.text,
        spacing_mm=spacing if options.volumes else spacing[1:],
        axis="volume" if options.volumes else options.axis,
        orientation=GROWS_TO[options.axis] + planes if options.volumes else planes,
        source=job.source.encode(errors="backslashreplace").decode(),
        created_by=f"metasynth {__version__} {job.command}",
        generation_names=() if structures is None else structures.names,
        target=() if structures is None else structures.target,
        shows="brain" if options.strip else "head",
    )


def _write_report(report: Report, job: Job) -> None:
    """The report as JSON; without paths of the machine other than those in reasons."""
    left_out = [{"name": name, "reason": reason} for name, reason in report.left_out]
    values = (job.out.name, job.command, report.shape, dict(report.used), left_out, report.notes)
    content = {**dict(zip(REPORT_KEYS, values, strict=True)), "people": report.people}
    text = json.dumps(content, indent=2, ensure_ascii=False) + os.linesep
    # Names of files may hold bytes that are no UTF-8; JSON has an escape for what stands for them.
    write_atomically(job.report, text.encode(errors="backslashreplace"), failure=DataError, make_folder=False)
