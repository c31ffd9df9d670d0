"""The named mappings: which ids of FreeSurfer, MUSE and neurite-OASIS label maps make which class.

All mappings whose names end in ``-4`` have the classes of the embedded cohort (`template.CLASS_NAMES`) with one
meaning, so that a model trained on a cache of one origin can be tested on a cache of another: cerebral and
cerebellar white matter with brain stem, ventral diencephalon and corpus callosum; cerebral cortex; deep grey nuclei,
hippocampus and amygdala; ventricles with their choroid plexus. The cerebellar cortex and the fluid outside the
ventricles are background in each of them. Those that end in ``-5`` have a class for the cerebellar cortex: scans that
are cut to the brain show it, and so should images synthesised from the label maps.

`freesurfer-tissue` is the recoding the paper used (`surfa.freesurfer.tissue_type_recoder`, MIT licence): there the
cerebellar cortex and lesions are subcortical grey and all fluid is one class. In the output of FreeSurfer that fluid is
nearly all ventricular; in label maps extended beyond the brain, where id 24 fills every sulcus, it is not.
"""

from metasynth.data_prep.cohorts.template import CLASS_NAMES

# FreeSurferColorLUT ids, and what surfa's recoder does with the rarer ones; 57 is the right twin of lesion 25, and the
# substantia nigra (27, 59) belongs to the ventral diencephalon.
WHITE = (2, 41, 7, 46, 16, 28, 60, 27, 59, 77, 78, 79, 85, 174, *range(251, 256), 192)
WHITE_PARCELS = (*range(3000, 3036), *range(4000, 4036), 5001, 5002, 1004, 2004)  # wmparc; 1004 is callosal
CORTEX = (3, 42, *(i for base in (1000, 2000) for i in range(base, base + 36) if i not in (1004, 2004)))
CORTEX_2009 = (*range(11101, 11176), *range(12101, 12176))  # aparc.a2009s+aseg
DEEP = (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58, 9, 48, 80, 81, 82)
LESIONS = (25, 57, 75, 99)  # of white matter, at the ventricles mostly
CEREBELLAR_CORTEX = (8, 47, 172)
VENTRICLES = (4, 5, 14, 15, 43, 44, 72)
CHOROID = (31, 63, 136, 137, 163, 164)  # 136/163 lateral, 137/164 inferior horn in SynthSeg's label maps
VESSELS = (30, 62)
OTHER_FLUID = (24, 257)
UNCLEAR = (1, 6, 40, 45, 29, 61, 11100, 12100)  # "exterior" and "undetermined" ids
HEAD = (130, 165, 258, 259, *range(500, 531))  # air, skull, soft tissue, eyes: SynthSeg's extracerebral ids among them

# Typical T1 intensities of the classes of CLASS_NAMES; used to align a label map, never as an image.
T1 = (0.0, 1.0, 0.7, 0.8, 0.25)
NAMES_5 = (*CLASS_NAMES, "cerebellar cortex")
T1_5 = (*T1, 0.7)


def table(*groups: tuple[int, tuple[int, ...]]) -> dict[int, int]:
    """{id: class} of groups (class, ids); an id in two groups is a mistake."""
    out: dict[int, int] = {0: 0}
    for index, ids in groups:
        for i in ids:
            assert i not in out, f"id {i} is listed twice"
            out[i] = index
    return out


FREESURFER_4 = table(
    (0, (*HEAD, *UNCLEAR, *OTHER_FLUID, *CEREBELLAR_CORTEX)),
    (1, (*WHITE, *WHITE_PARCELS, *LESIONS)),
    (2, (*CORTEX, *CORTEX_2009)),
    (3, DEEP),
    (4, (*VENTRICLES, *CHOROID, *VESSELS)),
)
FREESURFER_5 = FREESURFER_4 | dict.fromkeys(CEREBELLAR_CORTEX, 5)
FREESURFER_TISSUE = FREESURFER_4 | dict.fromkeys((*LESIONS, *CEREBELLAR_CORTEX), 3) | dict.fromkeys(OTHER_FLUID, 4)
# Cerebellum, fourth ventricle, amygdala, accumbens and vessels.
REDUCED = (7, 8, 46, 47, 172, 15, 18, 54, 26, 58, *VESSELS)
FREESURFER_4_REDUCED = FREESURFER_4 | dict.fromkeys(REDUCED, 0)

# The 24 structures of neurite-OASIS's 2D slices, in their order, with the FreeSurfer ids of each.
_SIDED = (
    ("cerebral white matter", (2, 78, 25, *range(3000, 3036), 5001), (41, 79, 57, 75, *range(4000, 4036), 5002)),
    (
        "cerebral cortex",
        tuple(i for i in (*CORTEX, *CORTEX_2009) if i == 3 or 1000 <= i < 2000 or 11000 < i < 12000),
        tuple(i for i in (*CORTEX, *CORTEX_2009) if i == 42 or 2000 <= i < 3000 or i > 12000),
    ),
    ("lateral ventricle", (4,), (43,)),
    ("inferior lateral ventricle", (5,), (44,)),
    ("thalamus", (10, 9), (49, 48)),
    ("caudate", (11,), (50,)),
    ("putamen", (12,), (51,)),
    ("pallidum", (13,), (52,)),
    ("third ventricle", (14,), ()),
    ("brain stem", (16, 174), ()),
    ("hippocampus", (17,), (53,)),
    ("ventral diencephalon", (28, 27), (60, 59)),
    ("choroid plexus", (31, 136, 137), (63, 163, 164)),
)
STRUCTURES_24 = (
    "background",
    *(f"left {name}" if right else name for name, _, right in _SIDED),
    *(f"right {name}" for name, _, right in _SIDED if right),
)
FREESURFER_24 = dict.fromkeys(FREESURFER_4, 0) | table(
    *((STRUCTURES_24.index(f"left {name}" if right else name), left) for name, left, right in _SIDED),
    *((STRUCTURES_24.index(f"right {name}"), right) for name, _, right in _SIDED if right),
)
# White matter without a side takes the nearer of the two.
UNSIDED_WHITE = (77, 99, *range(251, 256), 192)
SIDES_24 = tuple(STRUCTURES_24.index(f"{side} cerebral white matter") for side in ("left", "right"))

MUSE_4 = table(
    (0, (1, 38, 39, 46, 63, 64, 71, 72, 73)),  # fluid, cerebellar cortex, vessels, vermis
    (
        1,
        (35, 40, 41, 61, 62, 69, *range(81, 96)),
    ),  # brain stem, cerebellum, ventral DC, optic chiasm, lobes and callosum
    (2, tuple(range(100, 208))),
    (3, (23, 30, 31, 32, 36, 37, 47, 48, 55, 56, 57, 58, 59, 60, 75, 76)),
    (4, (4, 11, 49, 50, 51, 52)),
)

MUSE_5 = MUSE_4 | dict.fromkeys((38, 39, 71, 72, 73), 5)

# Class of each of the 24 structures, by its name without the side.
_CLASS_OF = {
    "cerebral white matter": 1,
    "brain stem": 1,
    "ventral diencephalon": 1,
    "cerebral cortex": 2,
    "thalamus": 3,
    "caudate": 3,
    "putamen": 3,
    "pallidum": 3,
    "hippocampus": 3,
    "lateral ventricle": 4,
    "inferior lateral ventricle": 4,
    "third ventricle": 4,
    "choroid plexus": 4,
}
CLASSES_OF_24 = (0, *(_CLASS_OF[name.removeprefix("left ").removeprefix("right ")] for name in STRUCTURES_24[1:]))
OASIS_4 = dict(enumerate(CLASSES_OF_24))
OASIS_24 = {i: i for i in range(25)}
OASIS_TISSUE = {0: 0, 1: 2, 2: 3, 3: 1, 4: 4}  # slice_seg4: cortex, subcortical grey, white matter, fluid

TISSUE_NAMES = (*CLASS_NAMES[:4], "cerebrospinal fluid")
