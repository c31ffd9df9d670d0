"""What a worker process is given to do so that it is killed there; of its own, as fresh processes import it."""

import os
import signal

from metasynth.errors import RunError


def die(scan, options):
    """In the place of the preparation of a subject."""
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """In the place of what makes label maps."""

    def __call__(self, scan):
        os.kill(os.getpid(), signal.SIGKILL)


class Barred:
    """In the place of what makes label maps: it may not write them."""

    def __call__(self, scan):
        return RunError("out/s0.nii.gz: cannot be written: Permission denied")


def nothing():
    """No preparation."""
