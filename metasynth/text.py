"""Text as users and their programs write it: files of any common encoding, comments, numbers and names of files."""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from metasynth.errors import DataError, MetasynthError

MOST_BYTES = 64 * 2**20  # of a text file
_MARKS = (  # longest first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_MOST_SHOWN = 80  # characters
_LINE_ENDS = r"\r\n|\r|\n"


class RepeatedKeyError(ValueError):
    """An object of a JSON text has a key more than once."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises
    ------
    RepeatedKeyError
        An object has a key twice, of which the standard library would take the last.
    ValueError
        It is no JSON.
    RecursionError
        It is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RepeatedKeyError(f"the key {shortened(repr(repeated))} is given twice")
    return found


def read_lines(path: Path, failure: type[MetasynthError] = DataError, where: str = "") -> list[str]:
    """Lines of a text file: UTF-8, or what its byte order mark says; they end as on Unix, Windows or old Macs.

    Parameters
    ----------
    path : Path
        The file.
    failure : type
        The error that is raised.
    where : str
        How messages name the file; by its path by default.

    Raises
    ------
    failure
        The file cannot be read or is no such text, with the line where that is seen.
    """
    where = where or str(path)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"  # reading a pipe would wait for ever
        raise failure(f"{where}: expected a text file, got {kind}")
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except FileNotFoundError as error:
        raise failure(f"{where}: the file is missing") from error
    except OSError as error:
        raise failure(f"{where}: cannot be read: {error.strerror or error}") from error
    if size > MOST_BYTES:
        raise failure(f"{where}: expected text of at most {MOST_BYTES >> 20} MiB, got {size >> 20} MiB")
    encoding, name = next(((code, name) for mark, code, name in _MARKS if data.startswith(mark)), ("utf-8", "UTF-8"))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if name != "UTF-8":
            raise failure(f"{where}: begins as {name} and is no such text ({error.reason})") from error
        line = _line_of(data[: error.start].decode("latin-1"))
        raise failure(
            f"{where}, line {line}: expected text in UTF-8, got the byte 0x{error.object[error.start]:02X}; save the "
            "file as UTF-8"
        ) from error
    if "\0" in text:
        line = _line_of(text.partition("\0")[0])
        raise failure(f"{where}, line {line}: expected text, got a NUL byte; save the file as UTF-8")
    return re.split(_LINE_ENDS, text)


def _line_of(before: str) -> int:
    return len(re.split(_LINE_ENDS, before))


def without_comment(line: str) -> str:
    """The line up to a `#` that begins it or follows a blank; in double quotes, which begin a field, it is text."""
    quoted = False
    for i, c in enumerate(line):
        if c == '"' and (quoted or line[:i].rstrip(" ")[-1:] in ("", ",", ";", "\t", '"')):  # or one of a pair, a quote
            quoted = not quoted
        elif c == "#" and not quoted and (i == 0 or line[i - 1].isspace()):
            return line[:i]
    return line


def whole_number(text: str) -> int | None:
    """The whole number that a text is, in the digits 0 to 9 with or without a sign, below 10^18; None if it is none."""
    return int(text.strip()) if re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text) else None


def shown(text: str) -> str:
    """The text in quotes for a message, its middle left out where it is long."""
    return repr(text) if len(text) <= _MOST_SHOWN else repr(_ends_of(text)) + _length_of(text)


def shortened(text: str) -> str:
    """The text for a message, its middle left out where it is long."""
    return text if len(text) <= _MOST_SHOWN else _ends_of(text) + _length_of(text)


def _ends_of(text: str) -> str:
    return f"{text[: _MOST_SHOWN // 2]}...{text[-_MOST_SHOWN // 4 :]}"


def _length_of(text: str) -> str:
    return f" ({len(text)} characters)"


def by(numbers: Iterable[float]) -> str:
    """Sizes for a message: (3, 4, 5) as "3 x 4 x 5", (1.0, 0.5) as "1 x 0.5"; whole numbers with all their digits."""
    return " x ".join(str(n) if isinstance(n, Integral) else f"{n:g}" for n in numbers)


def printable(text: str) -> str:
    """The text with control characters, and bytes of a file name that are not UTF-8, as %XX."""
    return "".join(c if c.isprintable() else quote_from_bytes(c.encode(errors="surrogateescape")) for c in text)


def expanded(text: str) -> Path:
    """The path, `~` as the user's folder; where there is no such user it is a name like any other, as in a shell."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
