"""What ties the files of a run together, and the checks that it still does.

Every checkpoint of a stage says whose it is: the digests of the run's manifest and of its split, and that of the
records until its position. A run is checked before it goes on, and before anything is written. With its results a run
writes ``SHA256SUMS``, by which they and all they were made from are checked before they are reported (or by
``sha256sum --check``).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from metasynth.errors import DataError, RunError
from metasynth.files import LEARNED, MODELS, first_line, remove_leftovers
from metasynth.running.checkpoint import check_random_states, load_checkpoint
from metasynth.running.integrity.json_files import Json, digest_of, read_json_file, read_sealed
from metasynth.running.integrity.sessions import ENVIRONMENT, read_environment
from metasynth.running.jsonlines import read_lines
from metasynth.running.manifest import CONFIG, FORMAT

SPLIT, METRICS, RESULTS, SUMS = "split.json", "metrics.jsonl", "results.json", "SHA256SUMS"
CHECKPOINTS, FINAL, LATEST = "checkpoints", "final.pt", "latest.pt"

_FOLDERS = {CHECKPOINTS: "checkpoints", MODELS: "models", LEARNED: "learned augmenters", "figures": "figures"}
_WHOLE_FILES = (ENVIRONMENT, SPLIT, RESULTS, SUMS, "examples.npz", "table.csv", "table.md", "report.html")
_KINDS = {"stage": str, "step": int, "position": int, "seconds": float, "trainer": Mapping, "random": Mapping}
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def is_sealed(manifest: Json) -> bool:
    """Whether every file of the run carries its digest, as all do but those of runs begun before there were any."""
    return bool(manifest["format"] == FORMAT)


def split_digest(run: Path) -> str | None:
    """The digest of a run's ``split.json``, which not every run has."""
    path = run / SPLIT
    return digest_of(read_json_file(path)) if path.is_file() else None


def check_resumable(run: Path, manifest: Json) -> int | None:
    """Check every file that a run goes on from; nothing is written.

    Returns how many bytes of the records its checkpoints know, None if there is no checkpoint.

    Raises
    ------
    DataError
        Environment, split or records are damaged, or were changed since they were written.
    RunError
        A checkpoint is, or belongs to another run or stage.
    """
    sealed = is_sealed(manifest)
    if (run / ENVIRONMENT).is_file():
        read_environment(run / ENVIRONMENT, sealed=sealed)
    if (run / SPLIT).is_file():
        read_sealed(run / SPLIT, required=sealed)
    _check_places(run)
    found = [_check_checkpoint(path, run, manifest) for path in _checkpoints(run)]
    position = max((position for _, position in found), default=None)
    if position is not None:
        _check_stages(run, {stage for stage, _ in found}, position)
    return position


def _check_places(run: Path) -> None:
    """What the run has yet to write must find its folders, and no folder where a file is to be."""
    for name, what in _FOLDERS.items():
        if os.path.lexists(run / name) and not (run / name).is_dir():
            raise RunError(f"{run / name}: expected the folder of the run's {what}, got a file")
    for name in _WHOLE_FILES:
        if (run / name).is_dir():
            raise RunError(f"{run / name}: expected a file that the run writes, got a folder")
    for place in (run / CHECKPOINTS).glob("[!.]*"):
        if not place.is_dir() and place.suffix != ".pt":
            raise RunError(f"{place}: expected the folder of a stage's checkpoints, got a file")


def _check_stages(run: Path, kept: set[str], position: int) -> None:
    """Every stage with records before the last checkpoint has one: without it, it would be trained over the others."""
    records = read_lines(run / METRICS, position)
    lost = [str(record["stage"]) for record in records if "stage" in record and record["stage"] not in kept]
    if lost:
        raise RunError(f"{run / CHECKPOINTS}: holds no checkpoint of stage {lost[0]}, whose records are in {METRICS}")


def tidy(run: Path) -> None:
    """Remove what killed processes left in a run's folder: temporary files, and checkpoints that later ones replace."""
    remove_leftovers(run)
    for done in (run / CHECKPOINTS).glob(f"*/{FINAL}"):
        with suppress(OSError):
            done.with_name(LATEST).unlink()


def check_stage(path: Path, state: Mapping[str, Any], name: str, steps: int) -> None:
    """Raise RunError unless a checkpoint is one of this stage, and a final one has all of its steps."""
    if state["stage"] != name:
        raise RunError(f"{path}: expected a checkpoint of stage {name}, got one of stage {state['stage']}")
    if not (state["step"] == steps if path.name == FINAL else 0 < state["step"] < steps):
        expected = f"all {steps} steps" if path.name == FINAL else f"1 to {steps - 1} steps"
        raise RunError(f"{path}: expected {expected} of stage {name}, got {state['step']}")


def bound_to(manifest: Json, split: str | None, records: str) -> Json:
    """What a checkpoint says of whose it is; ``records``: the digest of those until its position."""
    return {"manifest": digest_of(manifest), "split": split, "records": records}


def _checkpoints(run: Path) -> Iterator[Path]:
    """Those of the stages; studies may have others of their own."""
    for name in (FINAL, LATEST):
        yield from sorted((run / CHECKPOINTS).glob(f"*/{name}"))


def _check_checkpoint(path: Path, run: Path, manifest: Json) -> tuple[str, int]:
    """Check one checkpoint, and return its stage and its position in the records."""
    if not path.is_file():
        raise RunError(f"{path}: expected a checkpoint, got no regular file")
    state = load_checkpoint(path, sealed=is_sealed(manifest))
    for key, kind in _KINDS.items():
        value = state.get(key)
        right = isinstance(value, int | float) and value >= 0 if kind in (int, float) else isinstance(value, kind)
        if not right or (kind is int and not isinstance(value, int)):
            raise RunError(f"{path}: the checkpoint is damaged ({key}: expected {kind.__name__}, got {_short(value)})")
    try:
        check_random_states(state["random"])
    except Exception as error:  # of damaged states any may come
        raise RunError(f"{path}: the checkpoint is damaged (random: {first_line(error)})") from error
    if path.parent.name != state["stage"].replace("/", "-"):
        raise RunError(f"{path}: expected a checkpoint of stage {path.parent.name}, got one of stage {state['stage']}")
    steps = state.get("steps")
    if steps is not None:
        check_stage(path, state, state["stage"], steps)
    _check_bound(path, state, run, manifest)
    return str(state["stage"]), int(state["position"])


def _check_bound(path: Path, state: Json, run: Path, manifest: Json) -> None:
    metrics = run / METRICS
    size = metrics.stat().st_size if metrics.is_file() else 0
    if size < state["position"]:
        raise DataError(f"{metrics}: holds {size} bytes, fewer than the {state['position']} that {path} knows")
    bound = state.get("bound")
    if not isinstance(bound, Mapping):
        if is_sealed(manifest):
            raise RunError(f"{path}: the checkpoint does not say which run it belongs to")
        read_lines(metrics, state["position"])
        return
    if bound.get("manifest") != digest_of(manifest):
        raise RunError(f"{path}: belongs to another run, or {run / CONFIG} was changed since it was written")
    if bound.get("split") != split_digest(run):
        raise DataError(f"{run / SPLIT}: is missing or not the one with which {path} was written")
    if bound.get("records") != records_digest(metrics, state["position"]):
        raise DataError(f"{metrics}: was changed: its first {state['position']} bytes are not those that {path} knows")


def records_digest(metrics: Path, position: int) -> str:
    """SHA-256 of the first ``position`` bytes of the records."""
    return hashlib.sha256(metrics.read_bytes()[:position] if position else b"").hexdigest()


def sums_of(run: Path, written: Iterable[str], results: bytes) -> bytes:
    """The content of SHA256SUMS: of what a run always has, of its models, and of what else was written by name.

    The results are about to be written.
    """
    models = (path.relative_to(run).as_posix() for path in (run / MODELS).glob("*"))
    names = {CONFIG, ENVIRONMENT, SPLIT, METRICS, *models, *written}
    sums = {name: _sha256(run / name) for name in sorted(names) if (run / name).is_file()}
    sums[RESULTS] = hashlib.sha256(results).hexdigest()
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def check_sums(run: Path, manifest: Json) -> None:
    """Raise DataError if a file of a finished run is not the one that SHA256SUMS tells of, or is missing.

    Models may be missing, as users delete them.
    """
    path = run / SUMS
    if not path.is_file():
        if is_sealed(manifest):
            raise DataError(f"{path}: is missing, so that the results cannot be checked")
        return
    sums = dict(_read_sums(path))
    missing = [name for name in (CONFIG, METRICS, RESULTS) if name not in sums]
    if missing:
        raise DataError(f"{path}: is damaged: it does not tell of {missing[0]}")
    for name, digest in sums.items():
        if not (run / name).is_file():
            if name.startswith(f"{MODELS}/"):
                continue
            raise DataError(f"{run / name}: is missing, and {SUMS} tells of it")
        if _sha256(run / name) != digest:
            raise DataError(f"{run / name}: was changed since the run wrote it (its SHA-256 is not that of {SUMS})")


def _read_sums(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise DataError(f"{path}: line {number}: expected a SHA-256 and the name of a file, got {line!r}")
        yield found[2], found[1]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else type(value).__name__
