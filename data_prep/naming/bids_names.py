"""Names of BIDS: what their entities say, and which of them belong together."""

import re
from collections import defaultdict
from collections.abc import Iterable

from metasynth.data_prep.naming.name_parts import contrasts_of, only_describe, other_contrast

DERIVED = ("space", "desc", "res", "den", "label", "hemi", "atlas", "seg", "from", "to", "mode")
"""Entities that only derivatives have."""
_INDICES = ("run", "echo", "flip", "inv", "split", "chunk")  # entities that are numbers, with or without zeros
Rank = tuple[int, ...]


def is_bids(name: str) -> bool:
    """Whether a name begins as those of BIDS."""
    return name.startswith("sub-")


def entities(name: str) -> dict[str, str]:
    """Entities of a BIDS name: sub-01_ses-2_T1w -> {"sub": "01", "ses": "2"}."""
    return dict(part.split("-", 1) for part in name.split("_") if "-" in part)


def other_visit(name: str, partner: str) -> bool:
    """Whether two BIDS names say different people or sessions."""
    own, its = entities(name), entities(partner)
    both = is_bids(name) and is_bids(partner)
    return both and any(own.get(key, its.get(key)) != its.get(key, own.get(key)) for key in ("sub", "ses"))


def bids_pairs(names: Iterable[str], partners: Iterable[str]) -> list[tuple[Rank, str, str]]:
    """Possible pairs of BIDS names, with ranks.

    All that a partner's name says must hold of the other: entities but those of derivatives, and the contrast. What it
    leaves out counts against it, and so does another space; person and session must be said by both.
    """
    of_person: dict[str | None, list[str]] = defaultdict(list)
    for partner in filter(is_bids, partners):
        of_person[entities(partner).get("sub")].append(partner)
    found = []
    for name in filter(is_bids, names):
        for partner in of_person[entities(name).get("sub")]:
            rank = _bids_rank(name, partner)
            if rank is not None:
                found.append((rank, name, partner))
    return found


def agree(name: str, partner: str) -> bool:
    """Whether all entities that a partner's name says hold of a name, but those of derivatives, and it says who."""
    return _silent(_said(name), _said(partner)) is not None


def _bids_rank(name: str, partner: str) -> Rank | None:
    parts = name.split("_"), partner.split("_")
    silent = _silent(*({**_said(n), **_numbers(p)} for n, p in zip((name, partner), parts, strict=True)))
    if silent is None or other_contrast(*parts):
        return None
    spaces = entities(name).get("space"), entities(partner).get("space")
    return spaces[0] != spaces[1], silent, contrasts_of(parts[0]) != contrasts_of(parts[1])


def _silent(own: dict[str, str | int], its: dict[str, str | int]) -> int | None:
    """How much of a name a partner leaves out; None if it says something else, or neither person nor session."""
    left_out = own.keys() - its.keys()
    return None if left_out & {"sub", "ses"} or any(own.get(k) != value for k, value in its.items()) else len(left_out)


def _said(name: str) -> dict[str, str | int]:
    """The entities of a name but those of derivatives; indices as numbers."""
    return {
        key: int(value) if key in _INDICES and re.fullmatch(r"[0-9]{1,9}", value) else value
        for key, value in entities(name).items()
        if key not in DERIVED
    }


def _numbers(parts: Iterable[str]) -> dict[str, str | int]:
    """Parts of a name that are no entities and have digits: the numbers of repetitions, say."""
    return {f"_{part}": part for part in parts if "-" not in part and not only_describe([part])}
