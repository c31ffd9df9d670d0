"""How the command line shows the messages of the package: on standard error, as plain lines."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from metasynth.lines import tell

PROGRESS = "metasynth.progress"  # as in metasynth.running.progress, which is not light
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
"""Of what is shown, by how often ``-v`` is given."""


class _Lines(logging.Handler):
    """Writes each message as a line; one that is neither progress nor a warning begins with where it is from."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        plain = record.name == PROGRESS or record.levelno >= logging.WARNING
        tell(text if plain else f"{record.name}: {text}")


@contextmanager
def messages_shown(verbose: int) -> Iterator[None]:
    """Show progress and warnings; what the program does too if ``verbose`` is 1, and its details from 2 on."""
    package, progress = logging.getLogger("metasynth"), logging.getLogger(PROGRESS)
    before = package.level, progress.level
    handler = _Lines()
    package.addHandler(handler)
    package.setLevel(LEVELS[min(verbose, len(LEVELS) - 1)])
    progress.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before[0])
        progress.setLevel(before[1])
