"""A program that changes single bits of a cache and reads it: ``python flipping.py CACHE LOG BITS``.

HDF5 is a library in C, which damaged files could end or hang: whoever starts this program sees in the log, a line a
bit, how far it came.
"""

import json
import sys
from pathlib import Path

import numpy as np
from metasynth.data_prep.montage import describe

from metasynth.data.cache import Cache
from metasynth.errors import DataError


def as_trained_on(path: Path) -> object:
    """All that a training reads of a cache."""
    with Cache(path) as cache:
        every = np.arange(cache.n)
        arrays = [cache.subject_index, cache.slice_index, cache.read_structures(every), cache.read_labels(every)]
        arrays += [cache.read_images(every)] if cache.has_images else []
        described = [str(cache.info.described()), cache.subjects, cache.info.digest]
        return described, [(array.dtype.str, array.shape, array.tobytes()) for array in arrays]


def as_inspected(path: Path) -> object:
    """What ``inspect`` says of a cache; None where it says that the cache was changed."""
    lines = describe(path)
    return None if "WRONG" in lines[-1][1] else lines


def outcome(read, path: Path, whole: object) -> str:
    """What became of a reading of a changed file: 'refused', 'same', or what should never be."""
    try:
        found = read(path)
    except DataError as error:
        text = str(error)
        return "refused" if text.startswith(f"{path}: ") and "\n" not in text else f"an unclear line: {text!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "same" if found == whole else "refused" if found is None else "changed without a word"


def main(whole: Path, log: Path, bits: list[int]) -> None:
    """Flip each bit in a copy of the file and note what became of it."""
    data, copy = whole.read_bytes(), log.with_suffix(".h5")
    copy.write_bytes(data)
    readers = (as_trained_on, as_inspected)
    unchanged = [read(copy) for read in readers]
    with log.open("a") as file:
        for bit in bits:
            file.write(f"[{bit}")
            file.flush()
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            copy.write_bytes(flipped)
            found = [outcome(read, copy, before) for read, before in zip(readers, unchanged, strict=True)]
            file.write(f", {json.dumps(found)[1:]}\n")
            file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
