"""From the options of a ``metasynth prep`` command to a cache: what they mean together, and the work itself."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metasynth.errors import UsageError
from metasynth.lines import tell
from metasynth.sizes import cores, require_processes
from metasynth.text import shortened, whole_number

if TYPE_CHECKING:
    from metasynth.data_prep.labels import LabelMapping
    from metasynth.data_prep.options import Options
    from metasynth.data_prep.sources import Sources


def implied(given: dict[str, Any], transforms: tuple[str, ...]) -> dict[str, Any]:
    """The options, with the alignment that giving transforms implies."""
    if transforms and given["align"] not in ("none", "transforms"):
        raise UsageError(f"--align {given['align']}: cannot go with --transforms")
    if given["align"] == "transforms" and not transforms:
        raise UsageError("--align transforms: needs --transforms PATH")
    return {**given, "align": "transforms"} if transforms else given


def completed(sources: "Sources", given: dict[str, Any], transforms: tuple[str, ...], person: str | None) -> "Sources":
    """Images and label maps with their masks and transforms, and the people they are of.

    The masks are taken out of the options.
    """
    from metasynth.data_prep.naming.people import by_person
    from metasynth.data_prep.sources import find_files, with_files

    masks = given.pop("masks")
    if masks and given["no_strip"]:
        raise UsageError("--masks: cannot go with --no-strip, as images of whole heads need no mask")
    if masks:
        sources = with_files(sources, find_files(masks, "--masks"), "mask")
    return by_person(transformed(sources, transforms), person)


def transformed(sources: "Sources", transforms: tuple[str, ...]) -> "Sources":
    """The scans with the transforms of their names."""
    from metasynth.data_prep.sources import find_files, with_files

    if not transforms:
        return sources
    return with_files(sources, find_files(transforms, "--transforms", (".xfm", ".txt", ".mat")), "transform")


def _options(given: dict[str, Any], own: "LabelMapping | None") -> "Options":
    """Options of the preparation from those of a command."""
    from metasynth.data_prep.mappings import load_mapping
    from metasynth.data_prep.options import Options
    from metasynth.data_prep.slicing import SliceChoice
    from metasynth.data_prep.structures import require_head, with_structures
    from metasynth.data_prep.volumes.align import require_simpleitk

    mapping = own if own is not None and given["mapping"] is None else load_mapping(given["mapping"])
    maps = given.get("head", False)
    head = maps or given.get("no_strip", False)
    if given.get("generate"):
        mapping = with_structures(mapping, given["generate"], given["unknown"], head=head)
    if maps:
        require_head(mapping)
    named = {"mapping": mapping, "unknown": given["unknown"], "flat": given.get("flat", False)}
    if named["flat"]:
        return Options(**named, unit="mm")  # affines do not matter
    if given["align"] in ("rigid", "affine"):
        require_simpleitk()
    if not 0 < given["every_mm"] < float("inf"):
        raise UsageError(f"--every: expected a number of mm above 0, got {given['every_mm']:g}")
    several, spacing = "," in given["axis"], _spacing(given["spacing"])
    if several and given["volumes"]:
        raise UsageError(f"--axis {given['axis']}: expected one axis with --volumes")
    if several and spacing and len({*spacing}) > 1:
        raise UsageError(f"--spacing {given['spacing']}: expected one number with slices of several axes")
    return Options(
        **named,
        **{key: given[key] for key in ("axis", "every_mm", "min_content", "volumes", "interpolation", "align", "unit")},
        slices=SliceChoice.parse(given["slices"]),
        spacing_mm=spacing,
        strip=not head,
        resample_labels=given.get("resample_labels", False),
    )


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(0 < n < float("inf") for n in numbers):
        raise UsageError(f"--spacing {shortened(text)}: expected one number of mm above 0, or three with commas")
    x, y, z = numbers * 3 if len(numbers) == 1 else numbers
    return x, y, z


def _size(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    numbers = [number for part in parts if (number := whole_number(part)) is not None and number >= 0]
    if len(parts) not in (2, 3) or len(numbers) != len(parts):
        raise UsageError(f"--size {shortened(text)}: expected H,W or D,H,W")
    return tuple(numbers)


def make(command: str, sources: "Sources", origin: str, own: "LabelMapping | None" = None, **given: Any) -> None:
    """Make a cache and say what became of it.

    ``own`` is the mapping that the label maps come with, for where the user names none.
    """
    from metasynth.data_prep.collect import make_cache
    from metasynth.data_prep.job import Job, outputs
    from metasynth.data_prep.slicing import Frame
    from metasynth.outputs import check_outputs
    from metasynth.running.progress import Progress

    out: Path = given["out"]
    job = Job(
        out=out,
        options=_options(given, own),
        frame=Frame(given.get("margin", 0.0), _size(given["size"]), given["divisor"]),
        command=command,
        source="; ".join(part for part in (origin, given["source"]) if part),
        processes=given["jobs"] or max(1, cores() // 2),
        keep_work=given["keep_work"],
        draw=not given["no_montage"],
    )
    read = [path for scan in sources.scans for path in scan.files]
    read += [Path(given["mapping"])] if given["mapping"] else []
    check_outputs(outputs(job, given["overwrite"]), read)
    require_processes(job.processes, "--jobs")
    progress = Progress(given["quiet"])
    try:
        with progress.counter("subjects") as follow:
            report = make_cache(sources, job, follow)
    except KeyboardInterrupt:
        progress.say("What was prepared is kept; the same command goes on from there.")
        raise
    for name, reason in report.left_out:
        progress.say(f"Left out: {name}: {' '.join(reason.split())}")
    for note in report.notes:
        progress.say(f"Note: {' '.join(note.split())}")
    items = "volumes" if job.options.volumes else "slices"
    scans = f" ({len(report.used)} scans)" if len(report.used) != report.people else ""
    tell(f"Subjects: {report.people} used{scans}, {len(report.left_out)} left out", sys.stdout)
    tell(f"Cache: {out} ({sum(n for _, n in report.used)} {items} of {' x '.join(map(str, report.shape))})", sys.stdout)
    if job.draw:
        tell(f"Montage: {job.picture}", sys.stdout)
