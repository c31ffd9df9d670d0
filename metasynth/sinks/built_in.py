"""The sinks of this package; each imports its logger when it is opened."""

from metasynth.sinks.mlflow import MlflowSink
from metasynth.sinks.sink import SinkEntry
from metasynth.sinks.tensorboard import TensorBoardSink
from metasynth.sinks.wandb import WandbSink

ENTRIES = (
    SinkEntry("tensorboard", "event files", TensorBoardSink, needs="tensorboard"),
    SinkEntry("mlflow", "a store on this machine, or that of MLFLOW_TRACKING_URI", MlflowSink, needs="mlflow"),
    SinkEntry("wandb", "Weights & Biases offline, for `wandb sync`", WandbSink, needs="wandb"),
)
