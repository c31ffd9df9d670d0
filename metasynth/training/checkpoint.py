"""Checkpoints: atomic files of tensors and plain containers, and the random states of the process."""

import io
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metasynth.errors import RunError
from metasynth.files import write_atomically


def save_checkpoint(path: Path | str, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, None, and dicts, lists and tuples of them) atomically.

    Raises:
        RunError: the file could not be written; an earlier checkpoint of that name stays as it was.

    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(Path(path), buffer.getbuffer())


def load_checkpoint(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint with every tensor on the CPU.

    Only tensors and plain containers are accepted, so that no code of the file runs.

    Raises:
        RunError: the file is missing, damaged, or holds something else.

    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch itself reads flipped bytes without complaint
        if broken is None:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{path}: the checkpoint cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise RunError(f"{path}: the checkpoint holds more than tensors and plain values") from error
    except (zipfile.BadZipFile, EOFError, KeyError, RuntimeError, ValueError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({str(error).splitlines()[0]})") from error
    if broken is not None:
        raise RunError(f"{path}: the checkpoint is damaged (at {broken})")
    if not isinstance(state, dict):
        raise RunError(f"{path}: the checkpoint holds a {type(state).__name__}, not a dict")
    return state


def capture_random_states() -> dict[str, Any]:
    """The states of the global generators of Python, NumPy and torch (CPU and every CUDA device)."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - libraries draw from it
    return {
        "python": [version, list(internal), gauss],
        "numpy": {
            "key": [int(word) for word in numpy_state["state"]["key"]],
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put back what ``capture_random_states`` gave, for as many CUDA devices as there are here."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    saved = states["numpy"]
    key = np.array(saved["key"], dtype=np.uint32)
    np.random.set_state(("MT19937", key, saved["pos"], saved["has_gauss"], saved["gauss"]))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
