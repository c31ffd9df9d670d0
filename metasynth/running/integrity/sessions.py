"""Where and when a run was worked on: ``environment.json``, with an entry for every session that resumed it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from metasynth.errors import DataError
from metasynth.running.integrity.json_files import Json, read_sealed
from metasynth.running.manifest import normal

ENVIRONMENT = "environment.json"
LONGEST_S = 366 * 86400.0


@final
class Sessions:
    """The sessions of one run, that which goes on among them before it is written.

    Parameters
    ----------
    path : Path
        The run's ``environment.json``.
    sealed : bool
        Whether the file has to carry its digest.
    """

    def __init__(self, path: Path, *, sealed: bool) -> None:
        self._path, self._sealed = path, sealed
        self._begun: Json | None = None

    def begin(self, now: Mapping[str, Any], metrics: Path) -> None:
        """Add the session that begins now, to be taken with the first that it writes; see `further_session`."""
        self._begun = further_session(self.environment, now, metrics)

    def take(self) -> Json | None:
        """What is to be written, once; None if nothing is."""
        begun, self._begun = self._begun, None
        return begun

    @property
    def environment(self) -> Json:
        """All sessions; empty if the run was killed before they were written."""
        if self._begun is not None:
            return self._begun
        return read_environment(self._path, sealed=self._sealed) if self._path.is_file() else {}

    @property
    def earlier_wall_s(self) -> float:
        """Seconds that sessions before the last took, each until its last record."""
        return float((self.environment["resumed"] or [{}])[-1].get("earlier_wall_s", 0.0))


def read_environment(path: Path, *, sealed: bool) -> Json:
    """The content of a run's ``environment.json``.

    Parameters
    ----------
    path : Path
        The file.
    sealed : bool
        Refuse one that does not carry its digest.

    Raises
    ------
    DataError
        It is damaged, or was changed since it was written.
    """
    environment = read_sealed(path, required=sealed)
    sessions = environment.get("resumed")
    if not isinstance(sessions, list):
        raise DataError(f"{path}: resumed: expected a list of sessions, got {sessions!r}")
    for name, session in (("", environment), *((f"resumed.{i}.", session) for i, session in enumerate(sessions))):
        if not isinstance(session, dict):
            raise DataError(f"{path}: {name.rstrip('.')}: expected an object, got {session!r}")
        for key, kinds, absent in (
            ("started", (int, float), None),
            ("earlier_wall_s", (int, float), 0.0),
            ("device", (str,), ""),
            ("threads", (int,), 1),
            ("log", (str,), ""),
        ):
            value = session.get(key, absent)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise DataError(f"{path}: {name}{key}: expected a {kinds[-1].__name__}, got {value!r}")
    return environment


def further_session(environment: Json, now: Mapping[str, Any], metrics: Path) -> Json:
    """The content with the session that begins now: all of ``now`` (versions, device, threads) in the first.

    In others, what changed since the first, and how long the run had taken until then.
    """
    if not environment:
        return {**normal(now), "started": time.time(), "resumed": []}
    last = environment["resumed"][-1] if environment["resumed"] else environment
    earlier = last.get("earlier_wall_s", 0.0) + _active_s(last["started"], metrics)
    changed = {key: value for key, value in normal(now).items() if environment.get(key) != value}
    session = {"started": time.time(), "earlier_wall_s": earlier, **changed}
    return {**environment, "resumed": [*environment["resumed"], session]}


def _active_s(started: float, metrics: Path) -> float:
    """Seconds from the start of a session to its last record; 0 where a clock that was set meanwhile hides them."""
    try:
        seen = metrics.stat()
    except OSError:
        return 0.0
    active = seen.st_mtime - started if seen.st_size else 0.0
    return active if 0.0 <= active <= LONGEST_S else 0.0
