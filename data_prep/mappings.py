"""The mappings from label ids to classes: the named ones, and those of a user's own file.

Which id makes which class stands in `metasynth.data_prep.label_tables`; `metasynth.data_prep.labels` applies a mapping
to a label map.
"""

import csv
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from metasynth.data_prep import label_tables as tables
from metasynth.data_prep.cohorts.template import CLASS_NAMES
from metasynth.data_prep.labels import LabelMapping
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
        LabelMapping(
            "muse-4",
            CLASS_NAMES,
            tables.MUSE_4,
            f"muse-4: MUSE ids; {_OUTSIDE}",
            head=frozenset(),
            t1=tables.T1,
        ),
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
    """A mapping from lines ``id,class``; a class is a number (0 is background) or a name.

    A first line without a number before the class is a heading; ``#`` at the beginning of a line or after a blank
    begins a comment, unless it is quoted. The first line says whether commas, semicolons or tabs stand between the two.
    Numbered classes must be 0..K-1 without a gap. Named classes are numbered in the order they appear, except that
    ``background`` is 0 and that names of `CLASS_NAMES` keep the order they have there.

    Raises
    ------
    UsageError
        The file cannot be read, or a line is no pair, names an id twice or gives a wrong class.
    """
    pairs: dict[int, str] = {}
    for i, (number, line, row) in enumerate(_rows(path)):
        key = whole_number(row[0])
        if i == 0 and not any(c.isdigit() for c in row[0]):
            continue
        if len(row) != 2 or key is None or key < 0 or not row[1]:
            raise UsageError(f"--mapping {path}, line {number}: expected 'id,class', got {shown(line.strip())}")
        if pairs.setdefault(key, row[1]) != row[1]:
            raise UsageError(f"--mapping {path}, line {number}: id {key} has a class already: {shown(pairs[key])}")
    if not pairs:
        raise UsageError(f"--mapping {path}: holds no line 'id,class'")
    _check_names(path, pairs.values())
    names, classes = _number_classes(path, pairs)
    if len(names) > MOST_CLASSES:
        raise UsageError(f"--mapping {path}: at most {MOST_CLASSES} classes are possible, got {len(names)}")
    t1 = tuple(tables.T1) if names == CLASS_NAMES else ()
    return LabelMapping(path.name, names, {0: 0} | classes, f"{path.name}: ids and classes of a file", t1=t1)


def _rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Number, text and cells of every line that is not empty."""
    lines = [(i, without_comment(line)) for i, line in enumerate(read_lines(path, UsageError, f"--mapping {path}"), 1)]
    lines = [(i, line) for i, line in lines if line.strip()]
    mark = next((mark for mark in ",;\t" if lines and mark in lines[0][1]), ",")
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
        if any(cells):
            yield number, line, cells if any(cells[2:]) else cells[:2]


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Require class names that can be printed, and kept in a cache."""
    wrong = next((name for name in names if not name.isprintable() or len(name) > LONGEST_NAME), None)
    if wrong is not None:
        raise UsageError(
            f"--mapping {path}: class names must be printable text of at most {LONGEST_NAME} characters, got "
            f"{shown(wrong)}"
        )


def _number_classes(path: Path, pairs: dict[int, str]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names, and {id: class}."""
    values = set(pairs.values())
    numbered = {i: k for i, value in pairs.items() if (k := whole_number(value)) is not None}
    if len(numbered) == len(pairs):
        found = sorted({0, *numbered.values()})
        top = found[-1]
        if top < 1 or found != list(range(len(found))):
            classes = listed([str(k) for k in sorted(set(numbered.values()))], 12)
            raise UsageError(f"--mapping {path}: classes must be 0 to K-1 without a gap, got [{classes}]")
        return ("background", *(f"class {k}" for k in range(1, top + 1))), numbered
    if values <= set(CLASS_NAMES):
        names = CLASS_NAMES
    else:
        names = ("background", *(name for name in dict.fromkeys(pairs.values()) if name != "background"))
    return names, {i: names.index(value) for i, value in pairs.items()}
