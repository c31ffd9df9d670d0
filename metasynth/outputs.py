"""Where a command may write: over nothing that it reads, and over nothing that this program did not write.

Every command says what it reads and what it is about to write, and asks here before it begins.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metasynth.errors import UsageError

PNG = b"\x89PNG\r\n\x1a\n"
SOFTWARE = "metasynth"
"""What the pictures, under the PNG keyword Software, and the label maps of this program are marked with."""

Identity = tuple[int, int] | Path


@dataclass(frozen=True)
class Kind:
    """One kind of file that this program writes.

    Attributes
    ----------
    what : str
        What it is, in words.
    endings : tuple of str
        What its name may end in; empty where the program chose the name.
    is_ours : callable
        Whether a file is one, told by its content.
    """

    what: str
    endings: tuple[str, ...]
    is_ours: Callable[[Path], bool]


@dataclass(frozen=True)
class Output:
    """A file that a command is about to write.

    Attributes
    ----------
    said : str
        What names it in a message: "--out a.h5:".
    path : Path
        The file.
    kind : Kind
        What is written there.
    replace : bool
        Whether one of the kind may be replaced.
    make_folder : bool
        Whether its folder is made where it is absent.
    taken : str
        What is said where it is there and must not be replaced.
    """

    said: str
    path: Path
    kind: Kind
    replace: bool
    make_folder: bool = True
    taken: str = "exists already; give another name or --overwrite"


def check_outputs(outputs: Sequence[Output], inputs: Iterable[Path]) -> None:
    """Require that a command writes each of its files to a place of its own.

    Files are compared as the system knows them: a link, a second name or another spelling is the same file.

    Raises
    ------
    UsageError
        A name has the ending of another kind of file; a file is an input, or written twice; what is there is no file of
        the kind, or must not be replaced; a folder cannot hold it.
    """
    read = {_identity(path): path for path in inputs}
    written: dict[Identity, Output] = {}
    for output in outputs:
        problem = _ending(output) or _clash(output, read, written) or _occupied(output) or _folder(output)
        if problem:
            raise UsageError(f"{output.said} {problem}")
        written[_identity(output.path)] = output


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file or folder, or would if it were there."""
    return _identity(one) == _identity(other)


def is_picture(path: Path) -> bool:
    """Whether a file is a PNG that is marked as one of this program."""
    head = first_bytes(path, 1024)
    return head.startswith(PNG) and f"tEXtSoftware\0{SOFTWARE}".encode() in head


def csv_cell(value: Any) -> Any:
    """A value for a table: text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def first_bytes(path: Path, count: int) -> bytes:
    """The beginning of a file; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


PICTURE = Kind("picture", (".png",), is_picture)


def _identity(path: Path) -> Identity:
    """What the system knows a file by; of one that is not there, its folder without links, and its name."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return Path(os.path.realpath(path.parent)) / path.name
    return found.st_dev, found.st_ino


def _ending(output: Output) -> str | None:
    endings = output.kind.endings
    if not endings or output.path.name.lower().endswith(endings):
        return None
    return f"expected a name that ends in {' or '.join(endings)}, for a {output.kind.what}"


def _clash(output: Output, read: dict[Identity, Path], written: dict[Identity, Output]) -> str | None:
    identity = _identity(output.path)
    if identity in read:
        source = read[identity]
        return f"is the input{'' if source == output.path else f' {source}'}; give another name"
    if identity in written:
        return f"is what {written[identity].said.rstrip(':')} is too; give another name"
    return None


def _occupied(output: Output) -> str | None:
    """What stands in the way of writing the file itself."""
    path = output.path
    if not os.path.lexists(path):
        return None
    if path.is_dir():
        return "is a folder; give another name"
    if not path.is_file() or not output.kind.is_ours(path):
        return f"is there and is no {output.kind.what} that metasynth wrote; give another name"
    return None if output.replace else output.taken


def _folder(output: Output) -> str | None:
    """Why the folder of the file cannot take it."""
    folder = output.path.parent
    if not output.make_folder and not folder.is_dir():
        return f"the folder {folder} does not exist"
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is no folder; give another name"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"the folder {folder} cannot be written; give another name"
