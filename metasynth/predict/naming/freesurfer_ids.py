"""The ids that FreeSurferColorLUT.txt has for structures, by this project's names and by FreeSurfer's own.

A class has the id of a structure where it is one: on a side, or between the sides. Of structures on both sides
together FreeSurfer has ids for five alone.
"""

from collections.abc import Sequence

from metasynth.data_prep.naming.names import listed
from metasynth.errors import UsageError

SIDES = ("left", "right")

_SIDED = (  # name, FreeSurfer's name, ids on the left and on the right
    ("cerebral white matter", "Cerebral-White-Matter", 2, 41),
    ("cerebral cortex", "Cerebral-Cortex", 3, 42),
    ("lateral ventricle", "Lateral-Ventricle", 4, 43),
    ("inferior lateral ventricle", "Inf-Lat-Vent", 5, 44),
    ("cerebellar white matter", "Cerebellum-White-Matter", 7, 46),
    ("cerebellar cortex", "Cerebellum-Cortex", 8, 47),
    ("thalamus", "Thalamus-Proper", 10, 49),
    ("caudate", "Caudate", 11, 50),
    ("putamen", "Putamen", 12, 51),
    ("pallidum", "Pallidum", 13, 52),
    ("hippocampus", "Hippocampus", 17, 53),
    ("amygdala", "Amygdala", 18, 54),
    ("accumbens", "Accumbens-area", 26, 58),
    ("ventral diencephalon", "VentralDC", 28, 60),
    ("vessel", "vessel", 30, 62),
    ("choroid plexus", "choroid-plexus", 31, 63),
)
_ALONE = (  # name, FreeSurfer's name, id
    ("background", "Unknown", 0),
    ("third ventricle", "3rd-Ventricle", 14),
    ("fourth ventricle", "4th-Ventricle", 15),
    ("brain stem", "Brain-Stem", 16),
    ("fluid outside the ventricles", "CSF", 24),
    ("fifth ventricle", "5th-Ventricle", 72),
    ("optic chiasm", "Optic-Chiasm", 85),
    # Left and right together.
    ("lateral ventricle", "lateral_ventricle", 213),
    ("amygdala", "Amygdala", 218),
    ("cerebral white matter", "Cerebral_White_Matter", 219),
    ("cerebral cortex", "Cerebral_Cortex", 220),
    ("inferior lateral ventricle", "Inf_Lat_Vent", 221),
)


def freesurfer_ids(class_names: Sequence[str]) -> tuple[int, ...]:
    """FreeSurfer's ids of classes, background first.

    Raises
    ------
    UsageError
        A class has none, as it is no single structure or has another name; or two have the same.
    """
    found: dict[int, str] = {0: class_names[0]}
    missing = [name for name in class_names[1:] if _plain(name) not in _IDS]
    if missing:
        raise UsageError(
            f"--ids freesurfer: FreeSurfer has no id for {listed([repr(name) for name in missing])}; expected classes "
            "that are one structure each, such as 'left hippocampus' (of freesurfer-24, say); leave --ids out"
        )
    for name in class_names[1:]:
        number = _IDS[_plain(name)]
        if found.setdefault(number, name) != name or number == 0:
            raise UsageError(f"--ids freesurfer: {found[number]!r} and {name!r} have the same id, {number}")
    return tuple(found)


def _plain(name: str) -> str:
    """A name without the differences of its spellings: case, and what stands between words."""
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())


def _table() -> dict[str, int]:
    """{plain name: id} of both spellings."""
    sides = [(f"{side} {own}", f"{side} {its}", ids[at]) for own, its, *ids in _SIDED for at, side in enumerate(SIDES)]
    return {_plain(name): number for own, its, number in (*_ALONE, *sides) for name in (own, its)}


_IDS = _table()
