"""The segmenters that come with the package, each a model file and a card beside it; and which one is meant.

A card is JSON and says what a model was trained on and how, how good it is, and what it is not for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

from metasynth.data_prep.naming.names import SUFFIXES
from metasynth.data_prep.sources import Sources
from metasynth.errors import DataError, UsageError
from metasynth.files import MODELS, write_atomically
from metasynth.schema import NUMBER, TEXT, WHOLE, entries, expect, mapping, one_of
from metasynth.segment.model_file import SUFFIX, find_model, load_model, save_model
from metasynth.text import parse_json

FOLDER = Path(__file__).parent / "models"
LISTS = (".txt", ".lst", ".list")
CARD = entries(
    {
        "takes": one_of("brain", "head"),
        "summary": TEXT,
        "data": TEXT,
        "licence": TEXT,
        "command": TEXT,
        "seed": WHOLE,
        "training_time": TEXT,
        "dice": mapping(mapping(NUMBER)),
        "not_for": TEXT,
    }
)


@dataclass(frozen=True)
class ShippedModel:
    """A segmenter of the package.

    Attributes
    ----------
    name : str
        As `--model` takes it.
    path : Path
        Its file.
    card : mapping
        What its card says: takes ("brain" or "head"), summary, data, licence, command, seed, training_time, dice
        (condition -> class -> Dice) and not_for.
    """

    name: str
    path: Path
    card: Mapping[str, Any]


def shipped_models() -> dict[str, ShippedModel]:
    """Those that come with this installation, by name.

    Raises
    ------
    DataError
        A model has no card, or one that is none.
    """
    found = {path.name.removesuffix(SUFFIX): path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}
    return {name: ShippedModel(name, path, read_card(path.with_suffix(".json"))) for name, path in found.items()}


def read_card(path: Path) -> dict[str, Any]:
    """The card in a file; DataError, which names it, if there is none."""
    try:
        card: dict[str, Any] = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: the card cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the card is not valid JSON: {error}") from error
    expect(card, CARD, f"{path}: the card")
    return card


def add_model(source: Path, stage: str | None, name: str, card: Path) -> Path:
    """Put a run's segmenter among those of the package, with weights in half precision; its file.

    Raises
    ------
    UsageError
        There is no such segmenter, or it takes something else than the card says.
    DataError
        The segmenter or the card cannot be used, or a weight is beyond half precision.
    RunError
        A file cannot be written.
    """
    model, said = load_model(find_model(source, stage)), read_card(card)
    takes = "head" if model.description.takes_heads else "brain"
    if said["takes"] != takes:
        raise UsageError(f"--card {card}: takes: expected {takes!r}, as the model does, got {said['takes']!r}")
    path = FOLDER / f"{name}{SUFFIX}"
    try:
        save_model(path, model.network, model.description, half=True)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error
    write_atomically(path.with_suffix(".json"), card.read_bytes())
    return path


def split_inputs(inputs: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """The model that stands before scans, as earlier versions asked for one there, if one does; and the scans.

    A model is a folder of a run, or what is neither scans nor a list of them.

    Raises
    ------
    UsageError
        Nothing but a model is given, or an empty text.
    """
    if "" in inputs:
        raise UsageError("Invalid value for 'INPUT...': expected a path, got ''")
    if not _is_model(inputs[0], alone=len(inputs) == 1):
        return None, inputs
    if len(inputs) == 1:
        raise UsageError("Missing argument 'INPUT...'.")
    return inputs[0], inputs[1:]


def _is_model(text: str, alone: bool) -> bool:
    path = Path(text)
    if path.is_dir():
        holds_scans = any(each.name.lower().endswith(SUFFIXES) for each in path.iterdir())
        return (path / MODELS).is_dir() or not (alone or holds_scans)
    looks_like_scans = text.lower().endswith((*SUFFIXES, *LISTS)) or has_magic(text)
    return not looks_like_scans and (path.is_file() or not alone)


def named_model(given: str, stage: str | None, choose: str = "choose one with --stage") -> Path:
    """The file of a model that is named: one of the package, a file, or a run with the name of a stage.

    ``choose`` is as in `find_model`.

    Raises
    ------
    UsageError
        There is no such model.
    """
    ours = shipped_models()
    if given in ours and stage is None:
        return ours[given].path
    if not given or not Path(given).exists():
        names = f", nor one of the package ({', '.join(ours)})" if ours else ""
        raise UsageError(f"{given or repr(given)}: there is no such model file or folder of a run{names}")
    return find_model(given, stage, choose)


def digest_of_models(paths: Sequence[Path]) -> str:
    """SHA-256 of a model's file; of several files, in whatever order, that of their digests."""
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def fitting_model(sources: Sources, stripped: bool, stage: str | None) -> Path:
    """The model of the package for these scans: of brains where all have masks or are stripped, else of heads.

    Raises
    ------
    UsageError
        The package has none of the kind, or a stage is named.
    """
    if stage is not None:
        raise UsageError(f"--stage {stage}: is that of a run; expected --model RUN with it")
    takes = "brain" if stripped or all(scan.mask for scan in sources.scans) else "head"
    found = [model for model in shipped_models().values() if model.card["takes"] == takes]
    named = next((model for model in found if model.name == takes), next(iter(found), None))
    if named is None:
        raise UsageError(f"this installation has no model of {takes}s: expected --model FILE, or the folder of a run")
    return named.path
