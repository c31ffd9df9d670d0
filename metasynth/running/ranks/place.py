"""A folder that is gone when its process is, however that ends."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_REMOVE = 'read -r _; rm -rf -- "$0"'
"""What a shell does: wait for the end of a pipe, of which the system closes this process' side, then remove."""


@contextmanager
def own_place() -> Iterator[Path]:
    """A folder in the temporary one (``TMPDIR``) for as long as this lasts, or until this process is killed.

    Raises
    ------
    OSError
        It cannot be made.
    """
    with TemporaryDirectory(prefix="metasynth-") as place:
        # In a session of its own: torchrun kills those of its processes.
        waiting = subprocess.Popen(
            ["/bin/sh", "-c", _REMOVE, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield Path(place)
        finally:
            waiting.kill()
            waiting.communicate()
