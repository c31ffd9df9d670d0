"""What files are called: their names without endings, the folders that tell files of one name apart, and copies."""

import gzip
import os
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from metasynth.data_prep.naming.name_parts import shared

from metasynth.text import printable

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
VISIT = r"(?:(?:ses|session|visit|timepoint|tp)[._-]?\d+|ses-\w+|(?:base|baseline|followup)(?![._-]?\d))"
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Named:
    """Files by name.

    Attributes
    ----------
    files : dict of str to Path
        Those whose name is theirs alone.
    doubles : dict of str to str
        {name: reason} of names that several files have.
    notes : list of str
        Files that were left out as others hold the same.
    """

    files: dict[str, Path]
    doubles: dict[str, str]
    notes: list[str]

    @property
    def names(self) -> list[str]:
        """All names, ordered."""
        return sorted([*self.files, *self.doubles])


def as_name(text: str) -> str:
    """A name that can be printed and written anywhere; accents are one character, however the disk keeps them."""
    return printable(unicodedata.normalize("NFC", text))


def stem(path: Path) -> str:
    """Name of a file without its ending, .nii.gz taken as one."""
    ending = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), path.suffix)
    return as_name(path.name[: len(path.name) - len(ending)] or path.name)


def name_files(files: Sequence[Path]) -> Named:
    """Files by name: the file's without its ending or, where all files are called alike, that of a folder.

    That folder is the first, going up from the file, that is not called alike for all, with those above it as far as
    they are needed to tell the files apart. Files of one folder and name that hold the same, such as `s1.nii` and
    `s1.nii.gz`, count once.
    """
    kept, copies = without_copies(files)
    by_name: dict[str, list[Path]] = defaultdict(list)
    for name, path in zip(_names(kept), kept, strict=True):
        by_name[name].append(path)
    return Named(
        {name: paths[0] for name, paths in by_name.items() if len(paths) == 1},
        {
            name: f"{len(paths)} files have this name: {', '.join(map(str, paths))}"
            for name, paths in by_name.items()
            if len(paths) > 1
        },
        copies_note(copies),
    )


def without_copies(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files without those that hold what another of their folder and name holds, and the files left out.

    What is packed (.nii.gz, .mgz) is compared unpacked, and stays.
    """
    alike: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in files:
        alike[path.parent, stem(path)].append(path)
    copies: list[Path] = []
    for paths in alike.values():
        first, *others = sorted(paths, key=_preference)
        copies += [path for path in others if _hold_the_same(first, path)]
    left_out = set(copies)
    return [path for path in files if path not in left_out], copies


def copies_note(copies: Sequence[Path]) -> list[str]:
    """A line, or none, on what `without_copies` left out."""
    if not copies:
        return []
    files = "1 file holds" if len(copies) == 1 else f"{len(copies)} files hold"
    return [f"{files} what another of that name holds and count once: {listed([path.name for path in copies])}"]


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _preference(path: Path) -> int:
    return next((i for i, suffix in enumerate(SUFFIXES) if path.name.lower().endswith(suffix)), len(SUFFIXES))


def _hold_the_same(a: Path, b: Path) -> bool:
    if not (a.is_file() and b.is_file()):  # a pipe would wait for ever
        return False
    try:
        with _unpacked(a) as one, _unpacked(b) as other:
            while (block := one.read(_BLOCK)) == other.read(_BLOCK):
                if not block:
                    return True
    except (OSError, EOFError, zlib.error):
        pass  # whoever reads the file says what is wrong with it
    return False


@contextmanager
def _unpacked(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    with path.open("rb") as file:
        if file.peek(2)[:2] == _GZIP:
            with gzip.open(file) as content:
                yield content
        else:
            yield file


def _names(files: Sequence[Path]) -> list[str]:
    """A name for each file; those of one name are not told apart further."""
    stems = [stem(path) for path in files]
    folders = [Path(os.path.abspath(path)).parent.parts[1:] for path in files]
    if len(set(stems)) != 1 or len(set(folders)) < 2:
        return stems
    depths = {len(parts) for parts in folders}
    if len(depths) > 1:
        root = shared(*folders)
        return [as_name("_".join(parts[root:]) or stems[0]) for parts in folders]
    return [as_name(name) for name in _folder_names([parts[::-1] for parts in folders])]


def _folder_names(folders: Sequence[tuple[str, ...]]) -> list[str]:
    """Names from folders, each listed from the innermost: those that differ, until they tell all apart.

    Folders of visits (`ses-1`) do not name anyone, so those above them come before.
    """
    names = [""] * len(folders)
    visits = False
    for level in zip(*folders, strict=True):
        if len(set(level)) > 1 or visits:
            names = [f"{part}_{name}" if name else part for part, name in zip(level, names, strict=True)]
            visits = all(re.fullmatch(VISIT, part, re.IGNORECASE) for part in level)
            if len(set(names)) == len(set(folders)) and not visits:
                break
    return names
