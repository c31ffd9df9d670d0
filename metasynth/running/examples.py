"""The example images that a run keeps beside its results."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metasynth.errors import DataError
from metasynth.files import first_line
from metasynth.running.records import RunFolder
from metasynth.sealed import read_zip, seal

EXAMPLES = "examples.npz"


def save_examples(folder: RunFolder, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep the images that the report shows."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    folder.write_bytes(EXAMPLES, seal(buffer))


class _Examples(dict[str, NDArray[Any]]):
    """Arrays by name; one that is not there is a DataError that names the file."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(arrays)
        self._path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise DataError(f"{self._path}: expected an array {name!r}, it has {', '.join(sorted(self)) or 'none'}")


def load_examples(folder: RunFolder) -> dict[str, NDArray[Any]]:
    """The arrays of `save_examples`; DataError if the file is missing or damaged, or lacks one that is asked for."""
    path = folder.path / EXAMPLES
    try:
        with np.load(read_zip(path), allow_pickle=False) as archive:
            return _Examples(path, {name: archive[name] for name in archive.files})
    except Exception as error:  # of damaged bytes any may come
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error
