"""TensorBoard: an event file for each stage, one event a record.

TensorBoard's own writer has a thread and a queue. Here each event is whole in the file or not at all, so that the
number of events says how many records it has.
"""

import io
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, final

from metasynth.files import place_inside, write_atomically
from metasynth.sinks.sink import Record, SinkRun

RECORDS, REPORT = "events.out.tfevents.records", "events.out.tfevents.report"
_AROUND = 16  # bytes of an event's frame: its length, and checksums of the length and of the event


@final
class TensorBoardSink:
    """A folder for ``tensorboard --logdir``, with one below it for each stage.

    Parameters
    ----------
    run : SinkRun
        Of which the records are.
    """

    def __init__(self, run: SinkRun) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import record_writer

        self._folder = run.folder
        self._event: Any = event_pb2.Event
        self._summary: Any = summary_pb2.Summary
        self._frames: Any = record_writer.RecordWriter
        self.held = sum(_events_in(path) for path in sorted(run.folder.rglob(RECORDS)))

    def write(self, records: Sequence[Record]) -> None:
        """Add an event for each record, at its step; a stage's are there before the next one's."""
        for series, of_series in groupby(records, key=lambda record: record.series):
            path = place_inside(self._folder, f"{series}/{RECORDS}" if series else RECORDS)
            path.parent.mkdir(parents=True, exist_ok=True)
            events = [self._numbers(record) for record in of_series]
            with path.open("ab", buffering=0) as file:
                file.write(self._framed(events if file.tell() else [self._head(), *events]))

    def show(self, images: Mapping[str, Path]) -> None:
        """Write the pictures into an event file of their own."""
        events = [self._picture(name, path.read_bytes()) for name, path in images.items()]
        write_atomically(self._folder / REPORT, self._framed([self._head(), *events]))

    def close(self, finished: bool) -> None:
        """Nothing is left to be done."""

    def _head(self) -> Any:
        return self._event(wall_time=time.time(), file_version="brain.Event:2")

    def _numbers(self, record: Record) -> Any:
        values = [self._summary.Value(tag=key, simple_value=value) for key, value in record.values.items()]
        return self._event(wall_time=time.time(), step=record.step, summary=self._summary(value=values))

    def _picture(self, name: str, png: bytes) -> Any:
        width, height = struct.unpack(">II", png[16:24])  # of the header, which is a PNG file's first part
        image = self._summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        summary = self._summary(value=[self._summary.Value(tag=name, image=image)])
        return self._event(wall_time=time.time(), step=0, summary=summary)

    def _framed(self, events: Sequence[Any]) -> bytes:
        held = io.BytesIO()
        frames = self._frames(held)
        for event in events:
            frames.write(event.SerializeToString())
        return held.getvalue()


def _events_in(path: Path) -> int:
    """The events of a file after its head; one that a kill cut off is taken away."""
    held = path.read_bytes()
    count = end = 0
    while end + _AROUND <= len(held):
        following = end + _AROUND + struct.unpack_from("<Q", held, end)[0]
        if following > len(held):
            break
        count, end = count + 1, following
    if end < len(held):
        with path.open("r+b") as file:
            file.truncate(end)
    return max(0, count - 1)
