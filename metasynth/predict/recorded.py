"""What the record of a folder of label maps says to those who read them (see `record`, which writes it)."""

from pathlib import Path
from typing import Any

from metasynth.errors import DataError
from metasynth.text import RepeatedKeyError, parse_json, shown

RECORD = "segmentation.json"

Origin = dict[str, str | None]
"""Digests of the model, the scan and its mask (None where there is none), and `ids` where numbers are FreeSurfer's.

Of files that earlier versions made, the model alone is known; of what says what is in others there is no scan.
"""


def recorded_classes(folder: Path) -> tuple[str, ...] | None:
    """Names of the classes of a folder's label maps; None where this program did not make them.

    Raises
    ------
    DataError
        They are of several models, as where one was to replace another's and was stopped; or the record was changed.
    """
    content = _content_of(folder)
    if content is not None and is_record(content):
        for name in of_others(content.get("outputs", {}), folder, content["sha256"], content.get("ids", "classes")):
            raise DataError(f"{folder / RECORD}: {name} is of another model; finish or repeat metasynth predict")
    return None if content is None else tuple(content["classes"])


def recorded_numbers(folder: Path) -> tuple[int, ...] | None:
    """The numbers that a folder's label maps hold for their classes, where these are no indices of classes.

    Raises
    ------
    DataError
        The record was changed.
    """
    content = _content_of(folder)
    numbers = None if content is None else content.get("numbers")
    if content is None or numbers is None or numbers == [*range(len(content["classes"]))]:
        return None
    whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if not whole or len(set(numbers)) != len(content["classes"]):
        raise DataError(
            f"{folder / RECORD}: numbers: expected a whole number for each class, got {shown(str(numbers))}"
        )
    return tuple(numbers)


def _content_of(folder: Path) -> dict[str, Any] | None:
    """A record that names classes; None where there is none."""
    try:
        content = parse_json((folder / RECORD).read_bytes())
        return content if tuple(content["classes"]) and isinstance(content, dict) else None
    except RepeatedKeyError as error:
        raise DataError(f"{folder / RECORD}: is not valid JSON: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # label maps of another program


def of_others(outputs: dict[str, Origin | None], folder: Path, model: str, ids: str) -> list[str]:
    """Files that are there and are not of a model and its ids."""
    made = [(name, origin) for name, origin in outputs.items() if origin and (folder / name).is_file()]
    return [name for name, origin in made if (origin["model"], origin.get("ids", "classes")) != (model, ids)]


def is_record(content: Any) -> bool:
    """Whether a record has what is read of one."""
    if not isinstance(content, dict) or not isinstance(content.get("sha256"), str):
        return False
    outputs = content.get("outputs", {})
    return isinstance(outputs, dict) and all(origin is None or _is_origin(origin) for origin in outputs.values())


def _is_origin(origin: Any) -> bool:
    if not isinstance(origin, dict) or origin.keys() - {"ids"} not in ({"model"}, {"model", "scan", "mask"}):
        return False
    return all(isinstance(value, str) or (value is None and key == "mask") for key, value in origin.items())
