"""The named tables of generation labels: the structures that images are synthesised from, of FreeSurfer and MUSE ids.

Both have the same structures in the same order, so that a cache of label maps and one of scans can be used together.
Left and right are one. What is seen in scans but no class of a mapping, such as the fluid outside the ventricles, is a
structure too. Structures that differ in some mapping or in intensity are apart; every id of a named mapping's classes
is in one. All mappings of FreeSurfer and MUSE ids without sides can be used with them.

Where whole heads are shown there are structures outside the brain too, of the ids that SynthSeg's label maps have from
SimNIBS's atlas of the head (charm). MUSE's label maps have none of them.
"""

from typing import NamedTuple

from metasynth.data_prep import label_tables as tables


class _Structure(NamedTuple):
    name: str
    freesurfer: tuple[int, ...]
    muse: tuple[int, ...]


_WHITE = tuple(i for i in tables.WHITE if i not in (7, 46, 16, 174, 28, 60, 27, 59))
_STRUCTURES = (
    _Structure("cerebral white matter", (*_WHITE, *tables.WHITE_PARCELS), (69, *range(81, 96))),
    _Structure("cerebral cortex", (*tables.CORTEX, *tables.CORTEX_2009), tuple(range(100, 208))),
    _Structure("lateral ventricle", (4, 43, 72), (51, 52)),
    _Structure("inferior lateral ventricle", (5, 44), (49, 50)),
    _Structure("third ventricle", (14,), (4,)),
    _Structure("fourth ventricle", (15,), (11,)),
    _Structure("cerebellar white matter", (7, 46), (40, 41)),
    _Structure("cerebellar cortex", tables.CEREBELLAR_CORTEX, (38, 39, 71, 72, 73)),
    _Structure("brain stem", (16, 174), (35,)),
    _Structure("ventral diencephalon", (28, 60, 27, 59), (61, 62)),
    _Structure("thalamus", (10, 49, 9, 48), (59, 60)),
    _Structure("caudate", (11, 50), (36, 37)),
    _Structure("putamen", (12, 51, 80, 81, 82), (57, 58)),  # with dark spots in deep grey
    _Structure("pallidum", (13, 52), (55, 56)),
    _Structure("hippocampus", (17, 53), (47, 48)),
    _Structure("amygdala", (18, 54), (31, 32)),
    _Structure("accumbens", (26, 58), (30, 23, 75, 76)),  # with the basal forebrain
    _Structure("fluid outside the ventricles", tables.OTHER_FLUID, (1, 46, 63, 64)),  # with MUSE's vessels
    _Structure("choroid plexus", tables.CHOROID, ()),
    _Structure("vessel", tables.VESSELS, ()),
    _Structure("white matter lesion", tables.LESIONS, ()),
)

SOFT_TISSUE = "soft tissue"
_NAMED = (130, 259, 501, 502, 506, 508, 509, 511, 512, 514, 515, 516, 520, 530)
_OUTSIDE = (  # background of every mapping; air, within the head (501) and around it (130), has no intensity
    ("skin", (511,)),
    (SOFT_TISSUE, (258, *(i for i in range(500, 531) if i not in _NAMED))),  # muscle and fat among it
    ("cortical bone", (165, 515)),
    ("cancellous bone", (516,)),
    ("mucosa", (509,)),
    ("eye", (259, 506)),
    ("muscle of the eye", (508,)),
    ("optic nerve", (530,)),
    ("spinal cord", (512,)),
    ("artery", (502,)),
    ("vein", (514,)),
)

STRUCTURE_NAMES = ("background", *(structure.name for structure in _STRUCTURES))
FREESURFER_STRUCTURES = dict.fromkeys(tables.FREESURFER_4, 0) | tables.table(
    *((g, structure.freesurfer) for g, structure in enumerate(_STRUCTURES, 1))
)
MUSE_STRUCTURES = dict.fromkeys(tables.MUSE_4, 0) | tables.table(
    *((g, structure.muse) for g, structure in enumerate(_STRUCTURES, 1))
)
HEAD_NAMES = (*STRUCTURE_NAMES, *(name for name, _ in _OUTSIDE))
FREESURFER_HEAD = FREESURFER_STRUCTURES | tables.table(
    *((g, ids) for g, (_, ids) in enumerate(_OUTSIDE, len(STRUCTURE_NAMES))),
    (HEAD_NAMES.index("fluid outside the ventricles"), (520,)),
)
PART_OF = {
    "choroid plexus": "lateral ventricle",
    "vessel": "lateral ventricle",
    "white matter lesion": "cerebral white matter",
}
"""Structure -> in what label maps that do not have it show it: their classes are the same."""
