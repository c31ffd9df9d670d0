"""Generation labels of a mapping: from which structures the images of its classes are synthesised."""

from dataclasses import replace

from metasynth.data_prep import structure_tables as tables
from metasynth.data_prep.labels import LabelMapping, Structures, Unknown, require_every_class
from metasynth.data_prep.mapping_names import IDS, STRUCTURES

from metasynth.errors import UsageError

TABLES = {
    "freesurfer-structures": tables.FREESURFER_STRUCTURES,
    "muse-structures": tables.MUSE_STRUCTURES,
}
"""Name -> {id: structure}, an index of `structure_tables.STRUCTURE_NAMES`."""
HEADS = TABLES | {"freesurfer-structures": tables.FREESURFER_HEAD}
"""The same of whole heads, an index of `structure_tables.HEAD_NAMES`, which goes on where the other ends."""


def with_structures(
    mapping: LabelMapping, name: str, unknown: Unknown = "error", *, head: bool = False
) -> LabelMapping:
    """The mapping with the structures of a named table; those outside the brain too, if ``head`` says so.

    Ids that the mapping does not name are background if ``unknown`` says so: those of them that are of a structure are
    synthesised all the same.

    Raises
    ------
    UsageError
        They do not go together: a class must be whole structures.
    """
    _check_pair(mapping, name)
    table, names = (HEADS[name], tables.HEAD_NAMES) if head else (TABLES[name], tables.STRUCTURE_NAMES)
    ids = [*mapping.classes, *(i for i in table if i not in mapping.classes and unknown == "background")]
    found: dict[int, tuple[int, int]] = {}  # structure -> its class, and an id that says so
    for i in ids:
        g, k = table.get(i, 0), mapping.classes.get(i, 0)
        known, other = found.setdefault(g, (k, i))
        if g == 0 and k:
            raise UsageError(
                f"--generate {name}: id {i} of class {mapping.class_names[k]!r} (--mapping {mapping.name}) is of no "
                "structure; expected one, as classes are synthesised from structures"
            )
        if known != k:
            raise UsageError(
                f"--generate {name}: structure {names[g]!r} is of two classes of --mapping {mapping.name}: id {other} "
                f"is {mapping.class_names[known]!r}, id {i} is {mapping.class_names[k]!r}; expected one"
            )
    classes = {names[g]: k for g, (k, _) in found.items()}
    target = tuple(classes.get(each, classes.get(tables.PART_OF.get(each, ""), 0)) for each in names)
    made = f"{'whole heads' if head else 'images'} are synthesised from {name}"
    text = f"{mapping.text}; {made}: {len(names) - 1} structures, left and right as one"
    labels = {i: g for i in ids if (g := table.get(i, 0))}
    structures = Structures(names, labels, (0, *target[1:]))
    require_every_class(f"--generate {name}: --mapping {mapping.name}", mapping.class_names, structures)
    return replace(mapping, text=text, structures=structures)


def require_head(mapping: LabelMapping) -> None:
    """Refuse, for heads, a mapping that has no structure outside the brain to synthesise them from.

    Raises
    ------
    UsageError
        Which says where such structures come from.
    """
    found = mapping.structures
    if found is None or not any(g and not found.target[g] and i in mapping.head for i, g in found.labels.items()):
        raise UsageError(
            f"--head: --mapping {mapping.name} has no structure outside the brain to synthesise a head from; expected "
            "--generate freesurfer-structures, or ids such as 511 in a file of lines id,class,structure"
        )


def _check_pair(mapping: LabelMapping, name: str) -> None:
    """Refuse a mapping whose ids are of another origin, that has structures already, or that tells sides apart."""
    said = f"--generate {name}: cannot go with --mapping {mapping.name}, "
    if IDS.get(mapping.name, STRUCTURES[name]) != STRUCTURES[name]:
        raise UsageError(f"{said}whose ids are {IDS[mapping.name]}'s; expected {STRUCTURES[name]}'s")
    if mapping.structures is not None:
        raise UsageError(f"{said}which has structures of its own")
    if mapping.unsided:
        raise UsageError(f"{said}whose classes have sides; its structures have none")
