"""Whether there is memory for one subject's volumes; asked before it is taken."""

from metasynth import sizes
from metasynth.errors import DataError


def require_memory(needed: int, what: str) -> None:
    """Refuse a subject that takes more memory than there is.

    Parameters
    ----------
    needed : int
        Bytes.
    what : str
        The file and what is to be made of it, for the message.

    Raises
    ------
    DataError
        There is less.
    """
    free = sizes.available_memory()
    if needed > free:
        raise DataError(f"{what} takes {sizes.readable(needed)} of memory; {sizes.readable(free)} can be had")
