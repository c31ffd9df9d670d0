"""Mappings of label ids to classes: named ones (ids in `label_tables`), and those of a file; `labels` applies them."""

import csv
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from metasynth.data_prep import label_tables as tables
from metasynth.data_prep.cohorts.template import CLASS_NAMES
from metasynth.data_prep.labels import LabelMapping, Structures, require_every_class
from metasynth.data_prep.mapping_names import catalogue
from metasynth.data_prep.naming.names import listed

from metasynth.errors import UsageError
from metasynth.text import read_lines, shown, whole_number, without_comment

MOST_CLASSES = 255
LONGEST_NAME = 200  # characters of a class name

_OUTSIDE = "the cerebellar cortex and all fluid outside the ventricles are background"
_STRUCTURES = "the 24 structures of neurite-OASIS's coronal slices, every other structure background"
MAPPINGS = {
    mapping.name: mapping
    for mapping in (
        LabelMapping(
            "freesurfer-4",
            CLASS_NAMES,
            tables.FREESURFER_4,
            f"freesurfer-4: FreeSurfer ids; {_OUTSIDE}",
            t1=tables.T1,
        ),
        LabelMapping(
            "freesurfer-5",
            tables.NAMES_5,
            tables.FREESURFER_5,
            "freesurfer-5: freesurfer-4 with the cerebellar cortex as a class",
            t1=tables.T1_5,
        ),
        LabelMapping(
            "freesurfer-4-reduced",
            CLASS_NAMES,
            tables.FREESURFER_4_REDUCED,
            f"freesurfer-4-reduced: freesurfer-4 with cerebellum, fourth ventricle, amygdala, accumbens and vessels "
            f"background; {_OUTSIDE}",
            t1=tables.T1,
        ),
        LabelMapping(
            "freesurfer-tissue",
            tables.TISSUE_NAMES,
            tables.FREESURFER_TISSUE,
            "freesurfer-tissue: FreeSurfer ids as surfa's tissue types: cerebellar cortex and lesions are subcortical "
            "grey, and all fluid, in and outside the ventricles, is one class",
            t1=tables.T1,
        ),
        LabelMapping(
            "freesurfer-24",
            tables.STRUCTURES_24,
            tables.FREESURFER_24,
            f"freesurfer-24: {_STRUCTURES}",
            t1=tuple(tables.T1[k] for k in tables.CLASSES_OF_24),
            unsided=tables.UNSIDED_WHITE,
            sides=tables.SIDES_24,
        ),
        LabelMapping("muse-4", CLASS_NAMES, tables.MUSE_4, f"muse-4: MUSE ids; {_OUTSIDE}", frozenset(), tables.T1),
        LabelMapping(
            "muse-5",
            tables.NAMES_5,
            tables.MUSE_5,
            "muse-5: muse-4 with the cerebellar cortex as a class",
            head=frozenset(),
            t1=tables.T1_5,
        ),
        LabelMapping(
            "oasis-4",
            CLASS_NAMES,
            tables.OASIS_4,
            "oasis-4: slice_seg24 of neurite-OASIS merged to four classes",
            head=frozenset(),
            t1=tables.T1,
        ),
        LabelMapping(
            "oasis-24",
            tables.STRUCTURES_24,
            tables.OASIS_24,
            f"oasis-24: slice_seg24 as it is; {_STRUCTURES}",
            head=frozenset(),
        ),
        LabelMapping(
            "oasis-tissue",
            tables.TISSUE_NAMES,
            tables.OASIS_TISSUE,
            "oasis-tissue: slice_seg4 of neurite-OASIS, classes in this project's order",
            head=frozenset(),
        ),
    )
}


def load_mapping(name: str) -> LabelMapping:
    """The named mapping, or the one in a CSV file of that path.

    Raises
    ------
    UsageError
        There is no such mapping or file, or the file is no mapping.
    """
    if name in MAPPINGS:
        return MAPPINGS[name]
    if Path(name).is_file():
        return read_mapping(Path(name))
    near = get_close_matches(name, MAPPINGS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {catalogue()}"
    raise UsageError(f"--mapping {name}: there is no such mapping or file: {hint}")


def read_mapping(path: Path) -> LabelMapping:
    """A mapping from lines ``id,class`` or ``id,class,structure``; each is a number (0 is background) or a name.

    Images of the classes are synthesised from structures, where there are some; every structure is part of one class.
    A first line without a number before the class is a heading; it, or the first of the others, says how many columns
    there are, and whether commas, semicolons or tabs stand between them; of BIDS's table with a heading, ``index`` and
    ``name`` are read. ``#`` at the beginning of a line or after a
    blank begins a comment, unless it is quoted.
    Numbered classes must be 0..K-1 without a gap. Named classes are numbered in the order they appear, except that
    ``background`` is 0 and that names of `CLASS_NAMES` keep the order they have there. Likewise structures.

    Raises
    ------
    UsageError
        The file cannot be read, or a line is neither, names an id twice or gives a wrong class or structure.
    """
    pairs, parts = _columns(path)
    names, classes = _numbered(path, pairs, "class", "classes", CLASS_NAMES)
    t1 = tuple(tables.T1) if names == CLASS_NAMES else ()
    text, structures = f"{path.name}: ids and classes of a file", None
    if parts:
        own, labels = _numbered(path, parts, "structure", "structures", ())
        found = {labels[i]: classes[i] for i in parts}
        structures = Structures(own, labels, (0, *(found[g] for g in range(1, len(own)))))
        require_every_class(f"--mapping {path}", names, structures)
        text = f"{path.name}: ids, classes and {len(own) - 1} structures of a file"
    return LabelMapping(path.name, names, {0: 0} | classes, text, t1=t1, structures=structures)


def _columns(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """{id: class} and {id: structure}, as they are written; no structures in a file of two columns."""
    found: tuple[dict[int, str], dict[int, str]] = ({}, {})
    of: dict[str, tuple[str, int]] = {}  # structure -> its class, and an id that says so
    width, expected = 2, "'id,class'"
    for i, (number, line, row) in enumerate(_rows(path)):
        if i == 0 and len(row) == 3:
            width, expected = 3, "'id,class,structure'"
        key, where = whole_number(row[0]), f"--mapping {path}, line {number}:"
        if i == 0 and not any(c.isdigit() for c in row[0]):
            continue
        if len(row) != width or key is None or key < 0 or not all(row[1:]):
            raise UsageError(f"{where} expected {expected}, got {shown(line.strip())}")
        for what, own, value in zip(("class", "structure"), found, row[1:], strict=False):
            if own.setdefault(key, value) != value:
                raise UsageError(f"{where} id {key} has a {what} already: {shown(own[key])}")
        if width == 3:
            _check_part(where, key, row[1], row[2], of)
    if not found[0]:
        raise UsageError(f"--mapping {path}: holds no line {expected}")
    return found


def _check_part(where: str, key: int, name: str, structure: str, of: dict[str, tuple[str, int]]) -> None:
    """Require that a structure is part of one class, and what has no intensity of none."""
    known, other = of.setdefault(structure, (name, key))
    if known != name:
        raise UsageError(
            f"{where} structure {shown(structure)} is of two classes: id {other} is {shown(known)}, id {key} is "
            f"{shown(name)}; expected one"
        )
    if _is_background(structure) and not _is_background(name):
        raise UsageError(
            f"{where} id {key} of class {shown(name)} is of no structure; expected one, as classes are synthesised "
            "from structures"
        )


def _is_background(name: str) -> bool:
    return name == "background" or whole_number(name) == 0


def _rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Number, text and cells of every line that is not empty."""
    lines = [(i, without_comment(line)) for i, line in enumerate(read_lines(path, UsageError, f"--mapping {path}"), 1)]
    lines = [(i, line) for i, line in lines if line.strip()]
    mark = next((mark for mark in ",;\t" if lines and mark in lines[0][1]), ",")
    bids: list[int] = []
    for number, line in lines:
        if line.count('"') % 2:
            raise UsageError(
                f"--mapping {path}, line {number}: expected 'id,class', got {shown(line)}, with a double quote too "
                "many or too few"
            )
        try:
            cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
        except csv.Error as error:
            raise UsageError(f"--mapping {path}, line {number}: expected 'id,class', got {shown(line)}") from error
        cells = [cell.strip() for cell in cells]
        if number == lines[0][0] and {"index", "name"} <= {*cells} and "structure" not in cells:
            bids = [cells.index("index"), cells.index("name")]
        if any(cells):
            cells = [cells[at] for at in bids if at < len(cells)] or cells
            yield number, line, cells if any(cells[2:]) else cells[:2]


def _check_names(path: Path, names: Iterable[str], what: str) -> None:
    """Require names that can be printed, and kept in a cache."""
    wrong = next((name for name in names if not name.isprintable() or len(name) > LONGEST_NAME), None)
    if wrong is not None:
        raise UsageError(
            f"--mapping {path}: {what} names must be printable text of at most {LONGEST_NAME} characters, got "
            f"{shown(wrong)}"
        )


def _numbered(
    path: Path, pairs: dict[int, str], what: str, several: str, usual: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of classes or structures, and {id: class or structure}; ``usual`` is an order of names."""
    _check_names(path, pairs.values(), what)
    names, numbers = _in_order(path, pairs, what, several, usual)
    if len(names) > MOST_CLASSES:
        raise UsageError(f"--mapping {path}: at most {MOST_CLASSES} {several} are possible, got {len(names)}")
    return names, numbers


def _in_order(
    path: Path, pairs: dict[int, str], what: str, several: str, usual: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[int, int]]:
    values = set(pairs.values())
    numbered = {i: k for i, value in pairs.items() if (k := whole_number(value)) is not None}
    if len(numbered) == len(pairs):
        found = sorted({0, *numbered.values()})
        top = found[-1]
        if top < 1 or found != list(range(len(found))):
            given, most = listed([str(k) for k in sorted(set(numbered.values()))], 12), "K" if usual else "G"
            raise UsageError(f"--mapping {path}: {several} must be 0 to {most}-1 without a gap, got [{given}]")
        return ("background", *(f"{what} {k}" for k in range(1, top + 1))), numbered
    names = usual
    if not values <= set(usual):
        names = ("background", *(name for name in dict.fromkeys(pairs.values()) if name != "background"))
    return names, {i: names.index(value) for i, value in pairs.items()}
