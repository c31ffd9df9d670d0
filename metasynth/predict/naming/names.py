"""What the numbers of label maps stand for, in files that programs read: names and colours.

A FreeSurfer colour table (for Freeview), an ITK-SNAP label description file, a colour table of 3D Slicer and
the look-up table of BIDS. Colours are those of the pictures.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metasynth.data_prep.labels import ids_of
from metasynth.data_prep.volumes.volumes import Volume
from metasynth.errors import DataError
from metasynth.pictures import colours
from metasynth.predict.naming.freesurfer_ids import freesurfer_ids
from metasynth.text import printable

Ids = Literal["classes", "freesurfer"]
"""What numbers label maps hold: the indices of classes, or FreeSurfer's ids."""

ITKSNAP_HEAD = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
"""


@dataclass(frozen=True)
class Label:
    """A number of a label map.

    Attributes
    ----------
    index : int
        The number.
    name : str
        Of the class; printable, in one line.
    colour : tuple of int
        Red, green and blue, 0 to 255; black for background.
    """

    index: int
    name: str
    colour: tuple[int, int, int]


def labels_of(class_names: Sequence[str], ids: Ids = "classes") -> tuple[Label, ...]:
    """The labels of classes, background first.

    Raises
    ------
    UsageError
        There is no such id for a class.
    """
    numbers = freesurfer_ids(class_names) if ids == "freesurfer" else range(len(class_names))
    shades = [(0, 0, 0), *(_bytes(shade) for shade in colours(len(class_names) - 1))]
    names = [" ".join(printable(name).split()) or f"class {k}" for k, name in enumerate(class_names)]
    return tuple(Label(*each) for each in zip(numbers, names, shades, strict=True))


def class_indices(volume: Volume, ids: Sequence[int]) -> NDArray[np.int64]:
    """The indices of classes (*S), in a label map (*S) of their ids.

    Raises
    ------
    DataError
        It holds another number.
    """
    indices = {number: k for k, number in enumerate(ids)}
    present, _, place = ids_of(volume.data)
    other = [int(number) for number in present if int(number) not in indices]
    if other:
        among = f"0 to {len(ids) - 1}" if max(ids) == len(ids) - 1 else ", ".join(map(str, sorted(ids)))
        raise DataError(f"{volume.where}: holds label {other[-1]}; the classes are {among}")
    return place(np.array([indices[int(number)] for number in present], dtype=np.int64))


def bids_table(labels: Sequence[Label]) -> str:
    """Tab-separated `index`, `name` and `color`: the look-up table of BIDS (`dseg.tsv`)."""
    lines = [f"{label.index}\t{label.name}\t#{bytes(label.colour).hex()}" for label in labels]
    return "\n".join(["index\tname\tcolor", *lines, ""])


def freesurfer_table(labels: Sequence[Label]) -> str:
    """Id, name, red, green, blue and 0 (opaque), as in FreeSurferColorLUT.txt; names are without blanks."""
    names = [label.name.replace(" ", "-") for label in labels]
    wide = max(map(len, names))
    head = f"#{'No.':<6} {'Label Name:':<{wide}}   R   G   B   A"
    lines = [
        f"{label.index:<7} {name:<{wide}} {' '.join(f'{part:3d}' for part in (*label.colour, 0))}"
        for label, name in zip(labels, names, strict=True)
    ]
    return "\n".join([head, *lines, ""])


def itksnap_table(labels: Sequence[Label]) -> str:
    """A label description file of ITK-SNAP, whose label 0 is always clear."""
    lines = []
    for label in labels:
        seen = int(label.index > 0)
        name = label.name.replace('"', "'") if seen else "Clear Label"
        red, green, blue = label.colour
        lines.append(f'{label.index:5d}  {red:4d} {green:4d} {blue:4d}  {seen:7d}  {seen}  {seen}    "{name}"\n')
    return ITKSNAP_HEAD + "".join(lines)


def slicer_table(labels: Sequence[Label]) -> str:
    """A colour table of 3D Slicer (.ctbl): names are without blanks, opacity is 0 to 255."""
    lines = [
        " ".join(map(str, (label.index, label.name.replace(" ", "_"), *label.colour, 255 if label.index else 0)))
        for label in labels
    ]
    return "\n".join(["# Color table file slicer-colors.ctbl", f"# {len(labels)} values", *lines, ""])


TABLES = {
    "dseg.tsv": bids_table,
    "freesurfer-lut.txt": freesurfer_table,
    "itksnap-labels.txt": itksnap_table,
    "slicer-colors.ctbl": slicer_table,
}
"""Name of a file beside label maps -> what is in it."""


def posterior_names(labels: Sequence[Label]) -> str:
    """JSON that names the volumes of a series of posteriors, in their order, as BIDS does."""
    return json.dumps({"LabelMap": [label.name for label in labels]}, indent=2, ensure_ascii=False) + "\n"


def _bytes(shade: tuple[float, ...]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in shade[:3])
    return red, green, blue
