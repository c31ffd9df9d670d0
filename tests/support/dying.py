"""What a worker process is given to do so that it is killed there; of its own, as fresh processes import it."""

import os
import signal


def die(scan, options):
    """In the place of the preparation of a subject."""
    os.kill(os.getpid(), signal.SIGKILL)
