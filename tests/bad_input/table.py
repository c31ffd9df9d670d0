"""Rows of requests that cannot be carried out, and what has to become of each: one line, a status, nothing changed."""

import hashlib
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from metasynth.cli.main import main


@dataclass(frozen=True)
class Row:
    """A bad request.

    ``command`` is what follows ``metasynth`` in a shell; ``code`` the exit status, 2 for what was asked for and 1 for
    what was found; ``line`` a part of the line that tells why. ``leaves`` names what may be there afterwards.
    """

    command: str
    code: int
    line: str
    leaves: tuple[str, ...] = ()


def table(*rows: Row):
    """Parametrise a test by rows, each named by its command."""
    commands = [row.command for row in rows]
    assert len(set(commands)) == len(commands)
    return pytest.mark.parametrize("row", rows, ids=[command[:100] for command in commands])


class Place:
    """A copy of the folder with one of everything, made again where a request has changed it."""

    def __init__(self, template: Path, copy: Path) -> None:
        self._template, self.path = template, copy
        self.before = content(template)

    def restore(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self._template, self.path)

    def refuses(self, row: Row) -> None:
        """Carry the request out; everything has to be as the row says."""
        done = CliRunner().invoke(main, shlex.split(row.command))
        after = content(self.path)
        if after != self.before:
            self.restore()
        assert isinstance(done.exception, SystemExit), repr(done.exception)
        assert done.exit_code == row.code, done.output
        assert "Traceback" not in done.output
        told = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(told) == 1, done.stderr
        assert row.line in told[0], told[0]
        names = {name for name in after.keys() | self.before.keys() if after.get(name) != self.before.get(name)}
        changed = [name for name in sorted(names) if name.partition("/")[0] not in row.leaves]
        assert changed == [], changed


def content(folder: Path) -> dict[str, str]:
    """A digest of every file, and an empty text for every folder, by name."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.name != ".lock"}
    return {
        name: "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()
    }
