"""The launchers there are, by name."""

from collections.abc import Sequence

from metasynth.running.jobs.launcher import Launcher
from metasynth.running.jobs.local import LocalLauncher
from metasynth.running.jobs.slurm import SlurmLauncher


def make_launcher(
    name: str, texts: Sequence[str], jobs: int | None, side_by_side: int, gpus: Sequence[str] = ()
) -> Launcher:
    """The launcher of a name.

    Parameters
    ----------
    name : str
        'slurm' or 'local'.
    texts : sequence of str
        What ``--launcher-set`` was given.
    jobs : int or None
        Runs at a time, where the user said so.
    side_by_side : int
        The same where this machine carries them out and the user said nothing.
    gpus : sequence of str
        Of this machine, where it carries them out, as `metasynth.running.device.visible_gpus` gives them.

    Raises
    ------
    UsageError
        It cannot be used here, or not with these settings.
    """
    return SlurmLauncher(texts, jobs) if name == "slurm" else LocalLauncher(texts, jobs or side_by_side, gpus)
