"""The sinks of this package; each imports its logger when it is opened."""

from metasynth.sinks.mlflow import MlflowSink
from metasynth.sinks.sink import SinkEntry
from metasynth.sinks.tensorboard import TensorBoardSink
from metasynth.sinks.wandb import WandbSink

ENTRIES = (
    SinkEntry("tensorboard", TensorBoardSink, needs="tensorboard"),
    SinkEntry("mlflow", MlflowSink, needs="mlflow"),
    SinkEntry("wandb", WandbSink, needs="wandb"),
)
