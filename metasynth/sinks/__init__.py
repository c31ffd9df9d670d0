"""Where the records of a run go besides its folder: TensorBoard, MLflow, W&B, and what other packages add.

``metrics.jsonl`` stays the truth. A sink says how many of its records it has, and is handed the rest, by a process
beside the one that trains.
"""

from metasynth.sinks.sink import Record, Sink, SinkEntry, SinkRun
from metasynth.sinks.table import GROUP, names, register

__all__ = ["GROUP", "Record", "Sink", "SinkEntry", "SinkRun", "names", "register"]
