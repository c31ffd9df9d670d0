"""How the command line tells a failure: one line, and the exit code of its kind (which `metasynth.errors` sets)."""

from collections.abc import Callable

import click

from metasynth.errors import DataError, MetasynthError
from metasynth.interrupts import exit_status
from metasynth.sizes import memory_failure
from metasynth.text import printable, shortened

LONGEST_WORD = 1000  # characters of one in a message: longer than most paths


class Stopped(MetasynthError):
    """A command was asked to end; the message of a run says how to go on with it."""

    def __init__(self, error: KeyboardInterrupt, message: str = "\nInterrupted.") -> None:
        super().__init__(message)  # on a line of its own, after a terminal's ^C
        self.exit_code = exit_status(error)


def message(error: Exception) -> tuple[str, int]:
    """The line that a failure is told in, and the exit code."""
    if isinstance(error, Stopped):
        return str(error), error.exit_code
    if isinstance(error, click.Abort):
        return "Interrupted.", exit_status(None)
    if isinstance(error, click.ClickException):
        return f"Error: {one_line(error.format_message())}", error.exit_code
    if isinstance(error, MetasynthError):
        return f"Error: {one_line(str(error))}", error.exit_code
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"Error: {place}{error.strerror or one_line(str(error))}", 1
    return f"Error: {memory_failure(error) or _internal(error)}", 1


def _internal(error: Exception) -> str:
    """What a fault of the program is told in."""
    # A process that makes data puts its traceback into the message, what went wrong at its end.
    told = str(error).strip().splitlines()[-1:] if "Traceback" in str(error) else [str(error)]
    text = one_line(" ".join(told)).removeprefix(f"{type(error).__name__}: ")
    return f"internal error: {type(error).__name__}: {text} (METASYNTH_DEBUG=1 shows where)"


def one_line(text: str) -> str:
    """The text in one line that a terminal can show."""
    return printable(" ".join(word if len(word) <= LONGEST_WORD else shortened(word) for word in text.split()))


def fail(say: Callable[[str], None], failed: list[tuple[str, str]], total: int, what: str) -> None:
    """Name what failed, and end with status 1 if anything did."""
    for name, reason in failed:
        say(f"Failed: {name}: {' '.join(reason.split())}")
    if failed:
        raise DataError(f"{len(failed)} of {total} {what} failed: {', '.join(name for name, _ in failed)}")
