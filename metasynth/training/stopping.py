"""What the core raises in a run, as the one line that a user is shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metasynth.bilevel.step_report import NonFiniteError
from metasynth.errors import DataError, MetasynthError, RunError


@contextmanager
def stopped_in_one_line(place: str, ending: str = "") -> Iterator[None]:
    """Turn what the core raises within into a `RunError`.

    Parameters
    ----------
    place : str
        What stops: the message begins with it.
    ending : str
        What is said after the cause, such as the last good checkpoint.

    Raises
    ------
    RunError
        For a loss or gradient that is not finite, or a ValueError. Errors that are shown to users already pass.
    """
    try:
        yield
    except MetasynthError:
        raise
    except (NonFiniteError, ValueError) as error:
        raise RunError(f"{place} stopped: {_line(error)}{'; ' if ending else ''}{ending}") from error


@contextmanager
def files_that_fit(path: Path) -> Iterator[None]:
    """Tell in one line what no schema of the files of a run foresaw: their parts may contradict each other.

    Raises
    ------
    DataError
        For what neither a user is shown already nor the system says.
    """
    try:
        yield
    except (MetasynthError, OSError, MemoryError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: no report can be made of it, its files do not fit together ({what})") from error


def _line(error: Exception) -> str:
    """The message, or the line of a longer one that says most: the last of a traceback, such as a worker's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if any(line.startswith("Traceback") or "Original Traceback" in line for line in lines) else 0]
