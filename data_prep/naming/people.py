"""Whose scans there are: the person that a scan's name says, so that a split never parts the scans of one person.

Three kinds of names say it: those of BIDS (`sub-01_ses-2`) and OASIS (`OAS1_0001_MR1`), those that end in a visit
(`bert_tp1`, `bert_visit2`, `bert_base`), and those of FreeSurfer's longitudinal stream, where `X.long.BASE` and the
timepoints that BASE lists are one person's, as is the base itself, their mean. Every other name is taken for a person.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from metasynth.data_prep.naming.name_parts import only_describe, pieces_of
from metasynth.data_prep.naming.names import VISIT, listed
from metasynth.data_prep.sources import Sources

from metasynth.errors import UsageError
from metasynth.text import shortened

_BIDS = re.compile(r"(sub-[A-Za-z0-9+]+)(?=_|$)")
_OASIS = re.compile(r"((?:OASIS_)?OAS\d_\d+)_MR\d(?=_|$)")
_VISITED = re.compile(rf"(.*?[A-Za-z0-9])[._-]{VISIT}(?=[._-]|$)", re.IGNORECASE)
_REPEATED = re.compile(r"[._-](?:run|rep|acq|echo)[._-]?\d+", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+)[._-]\d+$")
_LONG = ".long."


def by_person(sources: Sources, pattern: str | None = None, links: Sequence[tuple[str, str]] = ()) -> Sources:
    """The scans with the people they are of, and a note on how their names were read.

    Parameters
    ----------
    sources : Sources
        The scans; people that they have already stay, unless a pattern is given.
    pattern : str or None
        A regular expression that is looked for in every name: its first group, or all of what it finds, is the person.
        None goes by the names as above.
    links : sequence of tuple (str, str)
        (timepoint, base) of names that are known to be of one person.

    Raises
    ------
    UsageError
        The pattern is no regular expression, or finds nothing in a name.
    """
    if pattern is not None:
        people = _by_pattern([scan.name for scan in sources.scans], pattern)
    else:
        given = {scan.name: scan.subject for scan in sources.scans if scan.subject}
        people = _by_names([scan.name for scan in sources.scans], links) | given
    scans = [replace(scan, subject=people[scan.name]) for scan in sources.scans]
    return replace(sources, scans=scans, notes=[*sources.notes, *_notes(people, pattern)])


def _by_pattern(names: list[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--person {shortened(pattern)}: expected a regular expression: {error}") from error
    found = {name: compiled.search(name) for name in names}
    people = {name: match.group(1 if compiled.groups else 0) for name, match in found.items() if match}
    without = [name for name in names if not people.get(name)]
    if without:
        raise UsageError(
            f"--person {shortened(pattern)}: finds nothing in {len(without)} of {len(names)} names: {listed(without)}"
        )
    return people


def _by_names(names: list[str], links: Sequence[tuple[str, str]]) -> dict[str, str]:
    """{name: person}: what a name says, made one with what is linked to it; called as BIDS or its base does."""
    home = _Groups()
    bases = {name.partition(_LONG)[2] for name in names} | {base for _, base in links}
    for name in names:
        timepoint, long, base = name.partition(_LONG)
        for part in (timepoint, base) if long else (name,):
            home.join(name, part)
            home.join(part, _stated(part))
    for timepoint, base in links:
        home.join(timepoint, _stated(timepoint))
        home.join(base, _stated(base))
        home.join(timepoint, base)
    called: dict[str, set[tuple[bool, bool, str]]] = defaultdict(set)
    for name in names:
        for part in name.split(_LONG):
            called[home.of(name)].add((_BIDS.match(part) is None, part not in bases, _stated(part)))
    return {name: min(called[home.of(name)])[-1] for name in names}


def _stated(name: str) -> str:
    """The person that a name says, or the name; a number after the visit may be a person's."""
    if found := _BIDS.match(name) or _OASIS.match(name):
        return found.group(1)
    found = _VISITED.match(name)
    return found.group(1) if found and only_describe(pieces_of(_REPEATED.sub("", name[found.end() :]))) else name


class _Groups:
    """What belongs together, joined pair by pair."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name that stands for the group."""
        while (parent := self._parents.setdefault(name, name)) != name:
            name = parent
        return name

    def join(self, name: str, other: str) -> None:
        """Make one group of two."""
        self._parents[self.of(name)] = self.of(other)


def _notes(people: dict[str, str], pattern: str | None) -> list[str]:
    scans = defaultdict(list)
    for name, person in people.items():
        scans[person].append(name)
    how = "by --person" if pattern is not None else "by their names"
    if len(scans) < len(people):
        several = [f"{person} ({listed(names)})" for person, names in scans.items() if len(names) > 1]
        hint = "" if pattern is not None else "; --person REGEX reads them otherwise"
        count = f"{len(scans)} people" if len(scans) > 1 else "1 person"
        return [f"{len(people)} scans of {count}, {how}: {listed(several)}{hint}"]
    numbered = defaultdict(list)
    for name in people:
        if found := _NUMBERED.match(name):
            numbered[found.group(1)].append(name)
    alike = [names for names in numbered.values() if len(names) > 1]
    if pattern is None and len(numbered) > 1 and alike:
        return [
            f"{len(people)} scans, each taken for a person; if {' and '.join(alike[0][:2])} are one person's, give "
            r"--person '(.+)[._-]\d+'"
        ]
    described = _described(list(people))
    if pattern is None and described:
        name, addition = described
        return [
            f"{len(people)} scans, each taken for a person; if {name} and {name}{addition} are one person's, give "
            f"--person '(.+?)({re.escape(addition)})?$'"
        ]
    return []


def _described(names: list[str]) -> tuple[str, str] | None:
    """A name, and what another one has after it that tells nobody apart, such as "_long"; None if there is none."""
    known = set(names)
    for other in sorted(names):
        pieces = pieces_of(other)
        for count in range(1, len(pieces)):
            name, addition = "".join(pieces[:count]), pieces[count:]
            if name in known and only_describe(addition):
                return name, "".join(addition)
    return None
