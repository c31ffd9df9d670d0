"""Which jobs a grid's runs were submitted as, so that another process can come back to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from metasynth.errors import DataError
from metasynth.files import write_atomically
from metasynth.running.integrity.json_files import check_digest, read_json_file, with_digest
from metasynth.running.jsonlines import encode

FOLDER, NAME = "jobs", "jobs.json"
"""Inside a grid: where `submitit` writes too, and this record."""


@dataclass(frozen=True)
class JobRecord:
    """The jobs of a grid.

    Attributes
    ----------
    launcher : str
        Who has them; empty where there are none.
    jobs : mapping of str to str
        The name of a run -> what its job is called.
    places : mapping of str to int
        The name of a run -> its place among those side by side, which says its GPU; of runs that were given one.
    """

    launcher: str = ""
    jobs: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, grid: Path) -> Self:
        """The record in a grid's folder, an empty one where nothing was launched; DataError if it is damaged."""
        path = grid / FOLDER / NAME
        if not path.is_file():
            return cls()
        value = check_digest(path, read_json_file(path), required=True)
        try:
            return cls(value["launcher"], dict(value["jobs"]), dict(value.get("places", {})))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is damaged: {type(error).__name__}: {error}") from error

    def with_jobs(self, jobs: Mapping[str, str], places: Mapping[str, int]) -> Self:
        """The record with further jobs, or later ones of the same runs, and the places of those that have one."""
        return replace(self, jobs={**self.jobs, **jobs}, places={**self.places, **places})

    def write(self, grid: Path) -> None:
        """Put the record into a grid's folder."""
        places = {"places": dict(self.places)} if self.places else {}
        value = {"launcher": self.launcher, "jobs": dict(self.jobs), **places}
        write_atomically(grid / FOLDER / NAME, encode(with_digest(value), indent=2))
