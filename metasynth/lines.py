"""Lines for people, who may have stopped reading: a closed pipe or a terminal that is gone ends no work."""

import os
import sys
from contextlib import suppress
from typing import TextIO


def tell(text: str, stream: TextIO | None = None) -> None:
    """Write one line, to standard error by default; what cannot be written is dropped, with all that follows."""
    stream = stream or sys.stderr
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(stream)


def silence(stream: TextIO) -> None:
    """Lead a stream that cannot be written any more to nowhere, so that nobody else fails at it, or at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
