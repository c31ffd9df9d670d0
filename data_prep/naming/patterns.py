"""Files that a pattern stands for; folders whose links lead back to themselves are looked into once."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path


def find_matching(pattern: str) -> list[Path]:
    """Files and folders that a pattern stands for, sorted; ``**`` is a folder and all those below it but hidden ones.

    Links to folders are followed, but no folder is looked into twice.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return sorted(map(Path, glob.glob(pattern)))
    at = parts.index("**")
    start, rest = os.sep.join(parts[:at]) or (os.sep if at else "."), os.sep.join(parts[at + 1 :]) or "*"
    folders = [folder for base in glob.glob(start) for folder in _below(base)]
    return sorted({path for folder in folders for path in find_matching(os.path.join(glob.escape(folder), rest))})


def _below(base: str) -> Iterator[str]:
    """A folder and those below it, links last, so that one which has two names is called by its own."""
    seen, waiting = set(), [base]
    while waiting:
        links = []
        for start in waiting:
            for folder, names, _ in os.walk(start):
                found = os.stat(folder)
                if (found.st_dev, found.st_ino) in seen:
                    names.clear()
                    continue
                seen.add((found.st_dev, found.st_ino))
                names[:] = sorted(name for name in names if not name.startswith("."))
                links += [path for name in names if os.path.islink(path := os.path.join(folder, name))]
                yield os.path.normpath(folder)
        waiting = links
