"""The errors a user may meet, each with the exit code the command line gives it.

Every message is one line that names the file or parameter, what was expected and what came.
"""

DISTRIBUTION = "metasynth-toolkit"  # as in setup.cfg: `metasynth` is another project's on the public index


def install_hint(extra: str) -> str:
    """The command that installs an extra beside the package."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class MetasynthError(Exception):
    """Base of the errors shown to a user as one line."""

    exit_code = 1


class UsageError(MetasynthError, ValueError):
    """Something asked for on the command line or in a configuration cannot be (exit code 2)."""

    exit_code = 2


class ShapeError(UsageError):
    """Images of a shape cannot go through a network."""


class PackageError(UsageError):
    """An optional package is needed and missing."""


class DataError(MetasynthError, ValueError):
    """A data file is missing, of another format, damaged, or holds values that cannot be used."""


class RunError(MetasynthError, RuntimeError):
    """A run could not go on; the message says where it stopped and what can be resumed."""
