"""Which names of two lists belong together: one rule for images, label maps, masks, transforms and references.

Rules are tried one after the other on what is left: names that are equal; names that go on from one another
(`s0_T1w`, `s0_T1w_bet_mask`); names of BIDS whose entities agree; names that are one up to their last number (`s1_T1w`,
`s1_seg`); and names without the ending that all of their list have (`bert_T1w`, `ernie_T1w` and `bert_seg`,
`ernie_seg`). A name that could belong to several is paired with none.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from metasynth.data_prep.naming.bids_names import Rank, agree, bids_pairs, is_bids, other_visit
from metasynth.data_prep.naming.name_parts import bare, only_describe, other_contrast, pieces_of, shared

S = TypeVar("S", bound=Hashable)
P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True)
class Rivals:
    """Why a name could not be paired: the partners it may have, and the names that may have them too."""

    partners: tuple[Any, ...]
    others: tuple[Any, ...]

    def reason(self, what: str) -> str:
        """In words; `what` is what the partners are."""
        partners = ", ".join(map(str, self.partners))
        if len(self.partners) > 1:
            return f"several {what}s may belong to it: {partners}"
        return f"the {what} {partners} may belong to it, and to {', '.join(map(str, self.others))}"


@dataclass
class Matches:
    """Names and their partners.

    Attributes
    ----------
    pairs : dict
        {name: partner}.
    unclear : dict
        Names that were not paired since more than one pair is possible.
    only : bool
        Whether the one pair rests on nothing but that there is no other.
    """

    pairs: dict[Any, Any] = field(default_factory=dict)
    unclear: dict[Any, Rivals] = field(default_factory=dict)
    only: bool = False

    @property
    def taken(self) -> set[Any]:
        """Partners that are paired or unclear."""
        return {*self.pairs.values(), *(p for rivals in self.unclear.values() for p in rivals.partners)}


def match(names: Sequence[str], partners: Sequence[str]) -> Matches:
    """The pairs of two lists of different names; one name and one partner belong together whatever they are called.

    Only people or sessions that BIDS names and that differ keep those two apart.
    """
    found = Matches()
    for rule in (_equal, _continued, bids_pairs, _up_to_numbers, _without_ends):
        left = [name for name in names if name not in found.pairs and name not in found.unclear]
        taken = found.taken
        over = [name for name in partners if name not in taken]
        new = resolve(rule(left, over))
        found.pairs |= new.pairs
        found.unclear |= new.unclear
    if len(names) == len(partners) == 1 and not found.taken and not other_visit(names[0], partners[0]):
        return Matches({names[0]: partners[0]}, only=True)
    return found


def resolve(possible: Iterable[tuple[Rank, S, P]]) -> Matches:
    """Pairs of which each is the best of both sides.

    A partner goes to the name of its least rank; of several partners a name takes the one of least rank. Where two
    ranks are equal, nothing is paired.
    """
    of_partner: dict[P, list[tuple[Rank, S]]] = defaultdict(list)
    for rank, name, partner in possible:
        of_partner[partner].append((rank, name))
    best = {partner: _least(ranked) for partner, ranked in of_partner.items()}
    of_name: dict[S, list[tuple[Rank, P]]] = defaultdict(list)
    for partner, (rank, names) in best.items():
        for name in names:
            of_name[name].append((rank, partner))
    found = Matches()
    for name, ranked in of_name.items():
        mine = _least(ranked)[1]
        others = [other for other in best[mine[0]][1] if other != name]
        if len(mine) == 1 and not others:
            found.pairs[name] = mine[0]
        else:
            found.unclear[name] = Rivals(tuple(mine), tuple(others))
    return found


def _least(ranked: Sequence[tuple[Rank, Any]]) -> tuple[Rank, list[Any]]:
    least = min(rank for rank, _ in ranked)
    return least, [item for rank, item in ranked if rank == least]


def common_name(name: str, partner: str) -> str:
    """What a pair is called: the beginning that both share, where it is all that tells it from others."""
    if name == partner:
        return name
    if is_bids(name) and is_bids(partner):
        start, _, last = name.rpartition("_")
        return name if "-" in last else start
    own, its = pieces_of(name), pieces_of(partner)
    n = shared(own, its)
    start, rests = "".join(own[:n]), [*own[n:], *its[n:]]
    return start if start and only_describe(rests) else name


def channels(names: Iterable[str], cases: Iterable[str]) -> dict[str, list[str]]:
    """{case: its channels} of nnU-Net's names (`la_003_0000`, `la_003_0001` of case `la_003`), if there are several."""
    cases = set(cases)
    cases |= set(_keys(sorted(cases)))
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        case, _, channel = name.rpartition("_")
        if case in cases and re.fullmatch(r"[0-9]{4}", channel):
            found[case].append(name)
    return {case: several for case, several in found.items() if len(several) > 1}


def _equal(names: Sequence[str], partners: Sequence[str]) -> list[tuple[Rank, str, str]]:
    there = set(partners)
    return [((0,), name, name) for name in names if name in there]


def _continued(names: Sequence[str], partners: Sequence[str]) -> list[tuple[Rank, str, str]]:
    """Names of which one begins the other, and what follows tells nobody apart; ranks prefer the longer."""
    found = []
    there = set(partners)
    for name in names:
        found += [((-size,), name, start) for start, size in beginnings(name) if start in there]
    there = set(names)
    for partner in partners:
        found += [((-size,), start, partner) for start, size in beginnings(partner) if start in there]
    return [pair for pair in found if not (is_bids(pair[1]) and is_bids(pair[2]))]


def beginnings(name: str) -> list[tuple[str, int]]:
    """Beginnings of a name, at separators, after which it only describes; and their pieces."""
    pieces = pieces_of(name)
    return [("".join(pieces[:n]), n) for n in range(1, len(pieces)) if only_describe(pieces[n:])]


def _up_to_numbers(names: Sequence[str], partners: Sequence[str]) -> list[tuple[Rank, str, str]]:
    """Names that are one up to the last number in them, and say no other contrast; ranks prefer what shares more."""
    of_start: dict[str, list[str]] = defaultdict(list)
    for partner in partners:
        of_start[_up_to_number(partner)].append(partner)
    of_start.pop("", None)
    found = []
    for name in names:
        for partner in of_start[_up_to_number(name)]:
            pieces = pieces_of(name), pieces_of(partner)
            if not (is_bids(name) and is_bids(partner)) and not other_contrast(*pieces):
                found.append(((-shared(*pieces),), name, partner))
    return found


def _up_to_number(name: str) -> str:
    """The beginning of a name that ends in its last number; empty where there is none."""
    pieces = pieces_of(name)
    return "".join(pieces[: next((n for n in range(len(pieces), 0, -1) if not only_describe([pieces[n - 1]])), 0)])


def _without_ends(names: Sequence[str], partners: Sequence[str]) -> list[tuple[Rank, str, str]]:
    """Pairs of names without the endings that their lists have in common."""
    own, its = _keys(names), _keys(partners)
    if _contradict(*(_end(listed, keys) for listed, keys in ((names, own), (partners, its)))):
        return []
    pairs: list[tuple[Rank, str, str]] = [((0,), own[key], its[key]) for key in own if key in its]
    pairs = pairs or [(rank, own[a], its[b]) for rank, a, b in _continued(list(own), list(its))]
    return [pair for pair in pairs if _may_be_one(pair[1], pair[2])]


def _may_be_one(name: str, partner: str) -> bool:
    """Whether two names say neither other contrasts nor, if BIDS's, other entities."""
    bids = is_bids(name) and is_bids(partner)
    return not other_contrast(pieces_of(name), pieces_of(partner)) and (not bids or agree(name, partner))


def _keys(names: Sequence[str]) -> dict[str, str]:
    """{name without the pieces that end all names: name}; as they are where there is one, or one would be empty."""
    split = [pieces_of(name) for name in names]
    length = shared(*(pieces[::-1] for pieces in split)) if len(names) > 1 else 0
    length = min([length, *(len(pieces) - 1 for pieces in split)])
    return {"".join(pieces[: len(pieces) - length]): name for pieces, name in zip(split, names, strict=True)}


def _end(names: Sequence[str], keys: dict[str, str]) -> list[str]:
    return pieces_of(names[0][len(next(iter(keys))) :]) if names and len(keys) == len(names) else []


def _contradict(end: Sequence[str], other: Sequence[str]) -> bool:
    """Whether endings tell apart: other contrasts, or numbers that differ after the same letters (`v1`, `v2`)."""
    numbers = [
        {re.sub(r"\d+", "#", piece): piece for piece in map(bare, pieces) if not only_describe([piece])}
        for pieces in (end, other)
    ]
    return other_contrast(end, other) or any(
        numbers[1].get(shape, piece) != piece for shape, piece in numbers[0].items()
    )
