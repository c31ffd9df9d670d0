"""Opening a cache: what is checked before anything of it is used."""

from pathlib import Path
from typing import NamedTuple

import h5py

from metasynth.data.digests import ItemDigests, is_as_written
from metasynth.data.info import CacheInfo
from metasynth.data.schema import damage_named, open_readonly, read_contents
from metasynth.data.validation import Contents, check_contents, check_generation, check_names, check_structure
from metasynth.errors import DataError


class Opened(NamedTuple):
    """An open file, what it says about itself, its arrays, and the digests of its items, if it has any that count."""

    file: h5py.File
    info: CacheInfo
    contents: Contents
    items: ItemDigests | None


def open_checked(path: Path, check_values: bool, check_digest: bool) -> Opened:
    """Open and check a file as `metasynth.data.cache.Cache` says.

    Raises
    ------
    DataError
        The file cannot be opened, is of another format, or its contents are not valid.
    """
    where = str(path)
    file = open_readonly(path)
    try:
        with damage_named(where):
            info, contents = read_contents(file, where)
            check_names(where, info.class_names, contents.subjects)
            check_generation(where, info.class_names, info.generation_names, info.target)
            check_structure(where, contents, info.spacing_mm)
            items = ItemDigests.read(file, where, contents) if check_digest else None
            if items is not None:
                require_unchanged(items.are_as_written(contents, info), where)
            elif check_values and check_digest:
                require_unchanged(is_as_written(file, where, info, contents, info.stored), where)
            elif check_values:
                check_contents(where, contents, info.stored)
    except BaseException:
        file.close()
        raise
    return Opened(file, info, contents, items)


def require_unchanged(unchanged: bool, where: str, what: str = "it no longer has") -> None:
    """DataError unless something has the digest that the file carries for it."""
    if not unchanged:
        raise DataError(
            f"{where}: its content was changed after it was written ({what} the digest that it carries); make it again"
        )


def verify_digest(path: str | Path) -> bool:
    """True when the content of the cache still has the digests written in it; `DataError` when unreadable."""
    where = str(path)
    with open_readonly(Path(path)) as file, damage_named(where):
        info, contents = read_contents(file, where)
        return is_as_written(file, where, info, contents)
