"""The names of the named mappings, and whose ids each is of; light to import, as help lists them."""

FREESURFER, MUSE, OASIS = "FreeSurfer", "MUSE", "neurite-OASIS"
IDS = {
    "freesurfer-4": FREESURFER,
    "freesurfer-5": FREESURFER,
    "freesurfer-4-reduced": FREESURFER,
    "freesurfer-tissue": FREESURFER,
    "freesurfer-24": FREESURFER,
    "muse-4": MUSE,
    "muse-5": MUSE,
    "oasis-4": OASIS,
    "oasis-24": OASIS,
    "oasis-tissue": OASIS,
}
"""Name -> whose ids; `mappings.MAPPINGS` has the same names."""


STRUCTURES = {"freesurfer-structures": FREESURFER, "muse-structures": MUSE}
"""Table of generation labels -> whose ids; `structures.TABLES` has the same names."""


def catalogue(whose: str = "") -> str:
    """The names of all mappings, or of those of these ids, with whose ids they are."""
    origins = dict.fromkeys(ids for ids in IDS.values() if whose in ("", ids))
    named = {origin: [name for name, ids in IDS.items() if ids == origin] for origin in origins}
    return ", ".join(f"{', '.join(names)} (ids of {origin})" for origin, names in named.items())
