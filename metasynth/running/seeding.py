"""Seeds derived from a path of names, so that every random draw has its own reproducible stream.

What is random at step t of a stage comes from ``generator_for(run_seed, stage, t, stream)``. Streams with
different paths are independent, and none depends on how many numbers another has drawn: a resumed run and a
run with more workers see the same data.
"""

import hashlib
import json
import operator
import random

import numpy as np
import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """The first 63 bits of SHA-256 over ``[seed, *path]`` written as compact JSON.

    Text and numbers are distinct: ``derive_seed(0, "1") != derive_seed(0, 1)``.

    Raises
    ------
    TypeError
        The seed is not an integer, or a part of the path is neither text nor an integer.
    """
    parts = [part if isinstance(part, str) else operator.index(part) for part in path]
    text = json.dumps([operator.index(seed), *parts], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big") >> 1


def generator_for(seed: int, *path: str | int) -> torch.Generator:
    """A new CPU generator at the start of the stream named by ``path``."""
    return torch.Generator().manual_seed(derive_seed(seed, *path))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, for libraries that accept no generator."""
    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(derive_seed(seed, "torch"))
