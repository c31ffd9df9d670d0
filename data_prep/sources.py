"""Which files belong to which subject: lists, folders and patterns of files, and the layouts of data sets."""

import glob
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metasynth.data_prep.patterns import find_matching

from metasynth.errors import UsageError

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")


@dataclass(frozen=True)
class Scan:
    """The files of one image of one subject; the files need not exist.

    Attributes:
        name: Name of the scan, unique.
        labels, image, mask, transform: Its files.
        subject: Name of the person; several scans of one person stay together when data are split.

    """

    name: str
    labels: Path | None
    image: Path | None = None
    mask: Path | None = None
    transform: Path | None = None
    subject: str = ""

    @property
    def person(self) -> str:
        """The subject, by default the scan."""
        return self.subject or self.name

    @property
    def files(self) -> list[Path]:
        """The files that it has."""
        return [path for path in (self.labels, self.image, self.mask, self.transform) if path is not None]


@dataclass(frozen=True)
class Sources:
    """What was found.

    Attributes:
        scans: Ordered by name.
        left_out: (name, reason) of what cannot be used.

    """

    scans: list[Scan]
    left_out: list[tuple[str, str]]


def find_files(given: Sequence[str], option: str, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Files of the given folders (not below them), patterns, files and text lists (a path a line, # for comments).

    Paths in a list are relative to the list's folder.

    Args:
        given: What the user wrote.
        option: Name of the option, for messages.
        suffixes: Endings of the files that a folder or pattern may contribute.

    Raises:
        UsageError: Something given does not exist, or gives no file.

    """
    files: list[Path] = []
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.name.endswith(suffixes) and not p.name.startswith("."))
        elif path.is_file() and path.suffix in (".txt", ".lst", ".list") and ".txt" not in suffixes:
            found = _read_list(path, option)
        elif path.is_file():
            found = [path]
        elif glob.has_magic(text):
            found = [p for p in find_matching(str(path)) if p.name.endswith(suffixes)]
        else:
            raise UsageError(f"{option} {text}: there is no such file or folder")
        if not found:
            raise UsageError(f"{option} {text}: holds no file that ends in {', '.join(suffixes)}")
        files.extend(found)
    return list(dict.fromkeys(files))


def _read_list(path: Path, option: str) -> list[Path]:
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path}: cannot be read as a list of paths: {error}") from error
    return [path.parent / Path(line).expanduser() for line in lines if line]


def stem(path: Path) -> str:
    """Name of a file without its ending, .nii.gz taken as one."""
    name = path.name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.endswith(suffix)), path.stem)


def name_files(files: Sequence[Path]) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Files by subject name, and (name, reason) of names that several files have.

    The name is the file's without its ending; where all files are called alike (one folder a subject), it is that of
    the folder.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    same = len(files) > 1 and len({stem(path) for path in files}) == 1
    for path in files:
        by_name[path.parent.name if same else stem(path)].append(path)
    doubles = [
        (name, f"{len(paths)} files have this name: {', '.join(map(str, paths))}")
        for name, paths in by_name.items()
        if len(paths) > 1
    ]
    return {name: paths[0] for name, paths in by_name.items() if len(paths) == 1}, doubles


def label_scans(labels: Sequence[Path]) -> Sources:
    """Label maps alone."""
    named, doubles = name_files(labels)
    return Sources([Scan(name, path) for name, path in sorted(named.items())], doubles)


def pair(images: Sequence[Path], labels: Sequence[Path]) -> Sources:
    """Images and label maps that have one name, as it is or without the endings their lists have in common.

    So `s1.nii.gz` belongs to `s1.mgz`, and `s1_T1w.nii.gz`, `s2_T1w.nii.gz` to `s1_seg.nii.gz`, `s2_seg.nii.gz`.
    """
    by_image, image_doubles = name_files(images)
    by_label, label_doubles = name_files(labels)
    if not by_image.keys() & by_label.keys():
        by_image, by_label = _without_common_end(by_image), _without_common_end(by_label)
    doubled = dict([*label_doubles, *image_doubles])
    scans, left_out = [], list(doubled.items())
    for name in sorted(by_image.keys() | by_label.keys()):
        if name in doubled:
            continue
        if name not in by_label:
            left_out.append((name, f"{by_image[name]}: has no label map; none is called {name}"))
        elif name not in by_image:
            left_out.append((name, f"{by_label[name]}: has no image; none is called {name}"))
        else:
            scans.append(Scan(name, by_label[name], by_image[name]))
    return Sources(scans, left_out)


def _without_common_end(named: dict[str, Path]) -> dict[str, Path]:
    """The same files, their names cut at the last _, - or . of the ending that all share."""
    names = list(named)
    if len(names) == 1:
        end = max((names[0].rfind(mark) for mark in "_-."), default=-1)
        return {names[0][:end] if end > 0 else names[0]: named[names[0]]}
    length = 0
    while all(len(n) > length and n[-1 - length] == names[0][-1 - length] for n in names):
        length += 1
    starts = [i for i in range(1, length + 1) if names[0][-i] in "_-."]
    cut = max(starts, default=0)
    shorter = {name[: len(name) - cut]: path for name, path in named.items()}
    return shorter if len(shorter) == len(named) and "" not in shorter else named


def with_files(sources: Sources, files: Sequence[Path], what: str) -> Sources:
    """The scans with masks or transforms of their names; a scan without one is left out.

    Args:
        sources: The scans.
        files: The masks or transforms.
        what: "mask" or "transform".

    """
    named, doubles = name_files(files)
    names = {scan.name for scan in sources.scans}
    if not named.keys() & names:
        named = _without_common_end(named)
    scans, left_out = [], [*sources.left_out, *(double for double in doubles if double[0] in names)]
    for scan in sources.scans:
        if scan.name in named:
            scans.append(Scan(**{**scan.__dict__, what: named[scan.name]}))
        elif scan.name not in dict(doubles):
            left_out.append((scan.name, f"has no {what}; none of the {len(files)} files given is called {scan.name}"))
    return Sources(scans, left_out)
