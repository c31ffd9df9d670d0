"""Checkpoints: atomic files of tensors and plain containers, and the random states of the process.

What is in one is for the caller to say. That of a training (`metasynth.training.loop.run_stage`) holds its stage, step
and length, the seconds it took, the bytes of ``metrics.jsonl`` until then, digests of what it belongs to, the random
states below, and what its trainer goes on from: the weights and the optimiser of each level, and in a bilevel training
the running means of the outer step (`metasynth.bilevel.solver_state`).
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metasynth.errors import RunError
from metasynth.lines import logger
from metasynth.tensor_files import load_tensors, save_tensors

_LOG = logger(__name__)


def save_checkpoint(path: Path | str, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, None, and dicts, lists and tuples of them) atomically, and sealed.

    Raises
    ------
    RunError
        The file could not be written; an earlier checkpoint of that name stays as it was.
    """
    save_tensors(Path(path), state)
    _LOG.debug("%s: written", path)


def load_checkpoint(path: Path | str, *, sealed: bool = False) -> dict[str, Any]:
    """Read a checkpoint with every tensor on the CPU.

    Only tensors and plain containers are accepted, so that no code of the file runs. Checkpoints from before there
    were seals (see `metasynth.sealed`) are read unless ``sealed`` asks for one.

    Raises
    ------
    RunError
        The file is missing, damaged, or holds something else.
    """
    state = load_tensors(Path(path), "the checkpoint", RunError, sealed=sealed)
    _LOG.debug("%s: read", path)
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


def check_random_states(states: Any) -> None:
    """Raise (KeyError, TypeError, ValueError, ...) unless ``restore_random_states`` could put these back."""
    version, internal, gauss = states["python"]
    random.Random().setstate((version, tuple(internal), gauss))
    np.random.RandomState().set_state(_numpy_state(states["numpy"]))
    torch.Generator().set_state(states["torch"])
    if not all(isinstance(state, torch.Tensor) and state.dtype == torch.uint8 for state in states["cuda"]):
        raise TypeError("cuda: expected tensors of bytes")


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put back what ``capture_random_states`` gave, for as many CUDA devices as there are here."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(_numpy_state(states["numpy"]))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])


def _numpy_state(saved: Mapping[str, Any]) -> tuple[str, Any, int, int, float]:
    key = np.array(saved["key"], dtype=np.uint32)
    return "MT19937", key, saved["pos"], saved["has_gauss"], saved["gauss"]
