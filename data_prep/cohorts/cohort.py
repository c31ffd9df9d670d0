"""The embedded cohorts: those of the template's own image and those of simulated ones, by name.

A cohort is made once, kept in the user's cache folder and checked by its digest afterwards.
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

from metasynth.data_prep.cohorts.simulated import CONTRASTS, SimulatedSpec
from metasynth.data_prep.cohorts.warped import CohortSpec, build_cohort

from metasynth.data.cache import verify_digest
from metasynth.errors import DataError
from metasynth.lines import logger
from metasynth.text import expanded

_LOG = logger(__name__)

__all__ = [
    "COHORTS",
    "Cohort",
    "CohortSpec",
    "SimulatedScans",
    "SimulatedSpec",
    "build_cohort",
    "cache_folder",
    "embedded",
    "ensure_cohort",
]

SimulatedScans = Literal[
    "mprage-young-64",
    "mprage-young-96",
    "mprage-young-192",
    "mprage-older-64",
    "mprage-older-96",
    "mprage-older-192",
]
"""Cohorts with simulated scans, of young or of older people, which a study can take where no cache is given."""


class Cohort(Protocol):
    """What a cohort is made of; the same specification always gives the same cohort."""

    @property
    def name(self) -> str:
        """Name of the cohort."""

    @property
    def file_name(self) -> str:
        """Name of its cache: another one for every specification and recipe."""

    def build(self, path: Path, progress: Callable[[int, int], None] | None = None) -> str:
        """Make the cohort and write its cache to `path`; returns the digest."""


_TEMPLATE_COHORTS = (
    CohortSpec("template-64", n_subjects=30, slices_per_subject=6, spacing_mm=3.0, shape=(64, 64)),
    CohortSpec("template-96", n_subjects=40, slices_per_subject=8, spacing_mm=2.0, shape=(96, 96)),
    CohortSpec("template-192", n_subjects=60, slices_per_subject=10, spacing_mm=1.0, shape=(192, 192)),
)
_SIMULATED_COHORTS = tuple(
    SimulatedSpec.like(template, contrast, group)
    for contrast, group in (*((contrast, "young") for contrast in CONTRASTS), ("mprage", "older"))
    for template in _TEMPLATE_COHORTS
)
COHORTS: dict[str, Cohort] = {spec.name: spec for spec in (*_TEMPLATE_COHORTS, *_SIMULATED_COHORTS)}


def cache_folder() -> Path:
    """The user's cache folder: METASYNTH_CACHE, else the platform's own place for caches."""
    chosen = os.environ.get("METASYNTH_CACHE")
    if chosen:
        return expanded(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "metasynth"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "metasynth"


def embedded(name: str, counter: Callable[[str], AbstractContextManager[Callable[[int, int], None]]]) -> Path:
    """Path of the cache of a cohort of `COHORTS`, made on first use; `counter` shows a title and how far it is."""
    with counter(f"embedded cohort {name}") as follow:
        return ensure_cohort(COHORTS[name], progress=follow)


def ensure_cohort(
    spec: Cohort,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Path:
    """Path of the cohort's cache, made first where it is absent or damaged.

    Two processes may make the same cohort at once: each writes its own temporary file and renames it.

    Parameters
    ----------
    spec : Cohort
        The cohort.
    folder : Path or None
        Where caches are kept; the user's cache folder by default. Made where absent.
    progress : callable or None
        Called with (subjects done, subjects in all) while the cohort is made.
    notice : callable or None
        Called with a line of text when a damaged cache is rebuilt; by default a warning of the package's log.

    Raises
    ------
    DataError
        The folder or the file cannot be written.
    """
    folder = cache_folder() if folder is None else Path(folder)
    path = folder / spec.file_name
    if path.exists():
        damage = _damage(path)
        if damage is None:
            return path
        say = notice or _LOG.warning
        say(f"{path}: the kept cohort is damaged ({damage}); making it again")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    spec.build(path, progress)
    return path


def _damage(path: Path) -> str | None:
    """What is wrong with a kept cache, None when nothing is."""
    try:
        return None if verify_digest(path) else "its content does not match its digest"
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
