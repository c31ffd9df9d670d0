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
    """

    launcher: str = ""
    jobs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, grid: Path) -> Self:
        """The record in a grid's folder, an empty one where nothing was launched; DataError if it is damaged."""
        path = grid / FOLDER / NAME
        if not path.is_file():
            return cls()
        value = check_digest(path, read_json_file(path), required=True)
        try:
            return cls(value["launcher"], dict(value["jobs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is damaged: {type(error).__name__}: {error}") from error

    def with_jobs(self, jobs: Mapping[str, str]) -> Self:
        """The record with further jobs, or later ones of the same runs."""
        return replace(self, jobs={**self.jobs, **jobs})

    def write(self, grid: Path) -> None:
        """Put the record into a grid's folder."""
        value = {"launcher": self.launcher, "jobs": dict(self.jobs)}
        write_atomically(grid / FOLDER / NAME, encode(with_digest(value), indent=2))
