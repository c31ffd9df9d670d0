"""Which files belong to which scan: lists, folders and patterns of files, paired by name."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from metasynth.data_prep.naming.names import SUFFIXES, Named, listed, name_files, stem
from metasynth.data_prep.naming.pairing import Matches, beginnings, channels, common_name, match
from metasynth.data_prep.naming.patterns import find_matching

from metasynth.errors import UsageError
from metasynth.text import expanded, read_lines, shown, without_comment

LONGEST_PATH = 4096


@dataclass(frozen=True)
class Scan:
    """The files of one image of one subject; the files need not exist.

    Attributes
    ----------
    name : str
        Name of the scan, unique.
    labels, image, mask, transform : Path or None
        Its files.
    subject : str
        Name of the person; several scans of one person stay together when data are split.
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

    Attributes
    ----------
    scans : list of Scan
        Ordered by name.
    left_out : list of tuple (str, str)
        (name, reason) of what cannot be used.
    notes : list of str
        Other things to know, a line each.
    alone : dict of str to Path
        Files by name that were left out for want of a partner.
    """

    scans: list[Scan]
    left_out: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)
    alone: dict[str, Path] = field(default_factory=dict)


def find_files(given: Sequence[str], option: str, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Files of the given folders (not below them), patterns, files and text lists (a path a line, # for comments).

    Paths in a list may be in quotes, and are relative to the list's folder.

    Parameters
    ----------
    given : sequence of str
        What the user wrote.
    option : str
        Name of the option, for messages.
    suffixes : tuple of str
        Endings of the files that a folder or pattern may contribute.

    Raises
    ------
    UsageError
        Something given does not exist, or gives no file.
    """
    files: list[Path] = []
    for text in given:
        path = expanded(text)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if _ends(p.name, suffixes) and not p.name.startswith("."))
        elif path.is_file() and path.suffix in (".txt", ".lst", ".list") and ".txt" not in suffixes:
            found = _read_list(path, option)
        elif path.is_file():
            found = [path]
        elif glob.has_magic(text):
            found = [p for p in find_matching(str(path)) if _ends(p.name, suffixes)]
        else:
            raise UsageError(f"{option} {text}: there is no such file or folder")
        if not found:
            raise UsageError(f"{option} {text}: holds no file that ends in {', '.join(suffixes)}")
        files.extend(found)
    return list(dict.fromkeys(files))


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _read_list(path: Path, option: str) -> list[Path]:
    found = []
    for number, line in enumerate(read_lines(path, UsageError, f"{option} {path}"), 1):
        text = _unquoted(without_comment(line).strip(), path.parent)
        if len(text) > LONGEST_PATH:
            raise UsageError(f"{option} {path}, line {number}: expected a path, got {shown(text)}")
        if text:
            found.append(path.parent / expanded(text))
    return found


def _unquoted(text: str, folder: Path) -> str:
    """A path without the quotes that some programs write around it, unless they are of its name."""
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted and not (folder / text).exists() else text


def label_scans(labels: Sequence[Path]) -> Sources:
    """Label maps alone."""
    named = name_files(labels)
    return Sources(
        [Scan(name, named.files[name]) for name in sorted(named.files)], [*named.doubles.items()], named.notes
    )


def pair(images: Sequence[Path], labels: Sequence[Path], label: str = "label map", image: str = "image") -> Sources:
    """Images and label maps whose names belong together (see `metasynth.data_prep.naming.pairing`).

    So `s1.nii.gz` belongs to `s1.mgz`, `s1_T1w.nii.gz` to `s1_seg.nii.gz`, and one image to one label map.

    Parameters
    ----------
    images : sequence of Path
        Their files.
    labels : sequence of Path
        Those of the label maps.
    label : str
        What messages call one of these.
    image : str
        What they call one of those.
    """
    own, its = name_files(images), name_files(labels)
    several = channels(own.names, its.names)
    left_out = {
        case: f"has {len(found)} channels ({listed(found)}), and one image a case is read; name those of one channel, "
        "such as 'FOLDER/*_0000.nii.gz'"
        for case, found in several.items()
    }
    spread = {name for found in several.values() for name in found}
    names = [name for name in own.names if name not in spread]
    matches = match(names, [name for name in its.names if name not in left_out])
    called = _call(matches)
    scans = []
    alone = {}
    for name in names:
        partner = matches.pairs.get(name)
        if reason := own.doubles.get(name) or its.doubles.get(partner or ""):
            left_out[called.get(name, name)] = reason
        elif partner is not None:
            scans.append(Scan(called[name], its.files[partner], own.files[name]))
        elif name in matches.unclear:
            left_out[name] = f"{own.files[name]}: {matches.unclear[name].reason(label)}"
        else:
            alone[name] = own.files[name]
            left_out[name] = f"{own.files[name]}: has no {label}; {_none_called(name, its.names)}"
    spoken_for = matches.taken | several.keys()
    for name in its.names:
        if name in its.doubles and name not in spoken_for:
            left_out[name] = its.doubles[name]
        elif name not in spoken_for:
            alone[name] = its.files[name]
            left_out[name] = f"{its.files[name]}: has no {image}; {_none_called(name, own.names)}"
    notes = [*own.notes, *its.notes, *_only_ones(matches, own, its)]
    return Sources(scans, sorted(left_out.items()), notes, alone)


def _call(matches: Matches) -> dict[str, str]:
    """{name: what its pair is called}."""
    short = {name: common_name(name, partner) for name, partner in matches.pairs.items()}
    return short if len(set(short.values())) == len(short) else {name: name for name in short}


def _none_called(name: str, names: Sequence[str]) -> str:
    return f"none is called {name}; they are called {listed(names)}" if names else f"none is called {name}"


def _only_ones(matches: Matches, own: Named, its: Named) -> list[str]:
    if not matches.only:
        return []
    return [f"{own.files[a]} and {its.files[b]} belong together as the only ones" for a, b in matches.pairs.items()]


def with_files(sources: Sources, files: Sequence[Path], what: str, *, required: bool = True) -> Sources:
    """The scans with masks or transforms whose names belong to theirs.

    Parameters
    ----------
    sources : Sources
        The scans.
    files : sequence of Path
        The masks or transforms.
    what : str
        "mask" or "transform".
    required : bool
        A scan without one is left out; it stays as it is otherwise, unless several may belong to it.
    """
    named = name_files(files)
    own = {_full_name(scan): scan for scan in sources.scans}
    matches = match(sorted(own), named.names)
    scans, left_out = [], list(sources.left_out)
    for name, scan in own.items():
        partner = matches.pairs.get(name, "")
        if partner in named.files:
            scans.append(replace(scan, **{what: named.files[partner]}))
        elif partner in named.doubles:
            left_out.append((scan.name, named.doubles[partner]))
        elif name in matches.unclear:
            left_out.append((scan.name, matches.unclear[name].reason(what)))
        elif required:
            reason = f"has no {what}; none of the {len(files)} files given is called {name}; they are called "
            left_out.append((scan.name, reason + listed(named.names)))
        else:
            scans.append(scan)
    notes = _only_ones(matches, Named({name: _file(scan) for name, scan in own.items()}, {}, []), named)
    return Sources(scans, left_out, [*sources.notes, *named.notes, *notes])


def _full_name(scan: Scan) -> str:
    """The name of a scan's file where the scan has the beginning of it for a name."""
    full = stem(_file(scan))
    return full if scan.name in (full, *(start for start, _ in beginnings(full))) else scan.name


def _file(scan: Scan) -> Path:
    path = scan.image or scan.labels
    assert path is not None
    return path
