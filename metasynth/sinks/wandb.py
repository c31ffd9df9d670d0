"""Weights & Biases, offline: a folder for ``wandb sync`` in every session, all of one run.

A row's number (``_step``) is that of the record. What earlier sessions wrote is read from their files: a process that
is killed leaves less there than it was given.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from metasynth.sinks.sink import Record, SinkRun

REPORT = "report"
_HEAD, _BLOCK, _CHUNK = 7, 32768, 7  # bytes: of the file's head, of a block, and of the head of a chunk in it
_FULL, _FIRST, _LAST = 1, 2, 4  # kinds of chunks; between the first and the last of a record are middle ones


@final
class WandbSink:
    """A run of the project WANDB_PROJECT, else of 'metasynth'.

    Parameters
    ----------
    run : SinkRun
        Of which the records are.
    """

    def __init__(self, run: SinkRun) -> None:
        rows = [row for path in sorted(run.folder.glob("wandb/offline-run-*/*.wandb")) for row in rows_of(path)]
        self.held = max((step for step, keys in rows if not _is_report(keys)), default=0)
        self._last = max((step for step, _ in rows), default=0)
        self._series: set[str] = set()
        self._shown = any(_is_report(keys) for _, keys in rows)
        import wandb

        self._image: Any = wandb.Image
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "metasynth"),
            id=run.identity(),
            name=run.name,
            dir=str(run.folder),
            config=dict(run.settings),
            mode="offline",
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
        )

    def write(self, records: Sequence[Record]) -> None:
        """Log a row for each record; charts of a stage are over its own steps."""
        for record in records:
            prefix = f"{record.series}/" if record.series else ""
            if record.series not in self._series:
                self._series.add(record.series)
                literal = prefix.replace(".", "\\.")  # a dot would lead into an entry of an entry
                self._run.define_metric(f"{literal}*", step_metric=f"{literal}step")
            row = {f"{prefix}step": record.step, **{prefix + key: value for key, value in record.values.items()}}
            self._run.log(row, step=record.number)
            self._last = record.number

    def show(self, images: Mapping[str, Path]) -> None:
        """Log the pictures as one more row, once: rows cannot be taken back."""
        if images and not self._shown:
            row = {f"{REPORT}/{name}": self._image(str(path)) for name, path in images.items()}
            self._run.log(row, step=self._last + 1)
            self._shown = True

    def close(self, finished: bool) -> None:
        """Have everything written."""
        self._run.finish(exit_code=0 if finished else 1)


def _is_report(keys: Sequence[str]) -> bool:
    return any(key.startswith(f"{REPORT}/") for key in keys)


def rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(``_step``, names) of every whole row in a ``.wandb`` file.

    The file is a log in LevelDB's format behind a head of its own; each record is a message of ``wandb.proto``.
    """
    from wandb.proto.wandb_internal_pb2 import Record as Message

    for data in _logged(path.read_bytes()):
        message = Message.FromString(data)
        if message.WhichOneof("record_type") == "history":
            yield message.history.step.num, [item.key or "/".join(item.nested_key) for item in message.history.item]


def _logged(held: bytes) -> Iterator[bytes]:
    """The whole records of a log."""
    place, record = _HEAD, b""
    while place + _CHUNK <= len(held):
        if _BLOCK - place % _BLOCK < _CHUNK:  # what is left of a block is empty
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", held, place + 4)
        end = place + _CHUNK + length
        if not kind or end > len(held):
            return
        record = (b"" if kind in (_FULL, _FIRST) else record) + held[place + _CHUNK : end]
        if kind in (_FULL, _LAST):
            yield record
        place = end
