"""JSON files, and those that carry the digest of their own content, so that an edited or damaged one is noticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metasynth.errors import DataError
from metasynth.text import parse_json

DIGEST = "digest"
Json = dict[str, Any]


def read_json_file(path: Path) -> Any:
    """What a JSON file holds; DataError, which names it, if it cannot be read."""
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON: {error}") from error


def digest_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever its layout and the order of its keys; its own digest is no part of it."""
    content = {key: part for key, part in value.items() if key != DIGEST}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def with_digest(value: Mapping[str, Any]) -> Json:
    """The object, as it reads back from JSON, with its digest."""
    return {**value, DIGEST: digest_of(value)}


def without_digest(value: Any) -> Any:
    """The object without its digest; anything else as it is."""
    return {key: part for key, part in value.items() if key != DIGEST} if isinstance(value, dict) else value


def check_digest(path: Path, value: Any, *, required: bool) -> Json:
    """The object of a file without its digest.

    Parameters
    ----------
    path : Path
        The file.
    value : Any
        What it holds.
    required : bool
        Refuse an object without a digest, as files had none once.

    Raises
    ------
    DataError
        It is no object, or not the one that was written.
    """
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(value).__name__}")
    if DIGEST not in value and not required:
        return value
    try:
        same = value.get(DIGEST) == digest_of(value)
    except (ValueError, RecursionError):  # a number in it is not finite, so it was not written
        same = False
    if not same:
        raise DataError(f"{path}: was changed since the run wrote it (it does not have the digest of its content)")
    content: Json = without_digest(value)
    return content


def read_sealed(path: Path, *, required: bool) -> Json:
    """What `check_digest` gives of a file; DataError if it cannot be read either."""
    return check_digest(path, read_json_file(path), required=required)
