"""Lines for people, who may have stopped reading: a closed pipe or a terminal that is gone ends no work."""

import logging
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

GONE_IN = "0.3"
"""The version that no longer knows the spellings of 0.1."""


def now_called(old: str, new: str) -> str:
    """The line that says what an option or a setting is called now."""
    return f"{old} is now {new}; the old spelling goes in {GONE_IN}"


def tell(text: str, stream: TextIO | None = None) -> None:
    """Write one line, to standard error by default; what cannot be written is dropped, with all that follows."""
    stream = stream or sys.stderr
    if stream is not None:  # closed from the start
        print(text, file=Unread(stream), flush=True)


def logger(name: str) -> logging.Logger:
    r"""The logger of that name, whose messages every handler can write, whatever names of files are in them.

    Bytes of a name that are not UTF-8 are lone surrogates in Python, which no file or pipe of text takes. They are
    written as standard error writes them: as ``\udcXX``.
    """
    made = logging.getLogger(name)
    made.addFilter(_ENCODABLE)
    return made


class _Encodable(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.isascii():
            record.msg, record.args = text.encode(errors="backslashreplace").decode(), None
        return True


_ENCODABLE = _Encodable()  # one, which a logger takes once


class Unread:
    """A stream that nobody may read any more. Once a write fails, it and all that shares it leads nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if it can be."""
        try:
            return self._stream.write(text)
        except OSError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        """Flush, if it can be."""
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _silence(self) -> None:
        """So that nobody else fails at it, nor the process at its end."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
