"""Files of tensors and plain containers, sealed (see `metasynth.sealed`), whose reading runs no code of theirs."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metasynth.errors import MetasynthError
from metasynth.files import first_line, write_atomically
from metasynth.sealed import DamagedFileError, read_zip, seal


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers, text, None, and dicts, lists and tuples of them, atomically and sealed.

    Raises
    ------
    RunError
        The file could not be written; one of that name stays as it was.
    """
    write_atomically(path, sealed_tensors(content))


def sealed_tensors(content: Mapping[str, Any]) -> memoryview:
    """What such a file holds."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return seal(buffer)


def load_tensors(
    path: Path, what: str, failure: type[MetasynthError], *, sealed: bool = False, otherwise: str = ""
) -> dict[str, Any]:
    """Read what `save_tensors` wrote, with every tensor on the CPU; from before there were seals too.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it should be, for messages: 'the checkpoint'.
    failure : type
        The error that is raised.
    sealed : bool
        Refuse a file without a seal.
    otherwise : str
        What else a file may be that cannot be understood, for messages: ' or no model file'.

    Raises
    ------
    failure
        The file is missing, damaged, or holds something else.
    """
    try:
        content = torch.load(read_zip(path, sealed=sealed), map_location="cpu", weights_only=True)
    except OSError as error:
        raise failure(f"{path}: {what} cannot be read: {error.strerror or error}") from error
    except DamagedFileError as error:
        raise failure(f"{path}: {what} is damaged ({error})") from error
    except pickle.UnpicklingError as error:
        raise failure(f"{path}: {what} holds more than tensors and plain values") from error
    except Exception as error:  # of damaged bytes any may come
        raise failure(f"{path}: {what} is damaged{otherwise} ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise failure(f"{path}: {what} holds a {type(content).__name__}, not a dict")
    return content
