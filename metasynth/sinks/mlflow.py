"""MLflow: a run with the settings as parameters and a metric for each stage and number.

A tag says how many records it has. What is written in a batch may yet be there without the tag, if the process was
killed in between; so a later session leaves out what the metrics' histories have.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from metasynth.sinks.sink import Record, SinkRun

IDENTITY, COUNT = "metasynth.run", "metasynth.records"
MOST_METRICS, MOST_PARAMETERS = 1000, 100  # of one batch, as MLflow has it
LONGEST_VALUE = 6000


@final
class MlflowSink:
    """A run in the store that MLFLOW_TRACKING_URI names, else in a file of the sink's folder.

    Parameters
    ----------
    run : SinkRun
        Of which the records are.
    """

    def __init__(self, run: SinkRun) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import entities
        from mlflow.tracking import MlflowClient

        self._entities: Any = entities
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = MlflowClient(uri or f"sqlite:///{run.folder.resolve() / 'mlflow.db'}")
        experiment = self._experiment(
            os.environ.get("MLFLOW_EXPERIMENT_NAME", f"metasynth {run.settings['experiment']}"),
            None if uri else (run.folder.resolve() / "artifacts").as_uri(),
        )
        identity = run.identity()
        found = self._client.search_runs([experiment], f"tags.`{IDENTITY}` = '{identity}'")
        made = found[0] if found else self._client.create_run(experiment, tags={IDENTITY: identity}, run_name=run.name)
        self._run: str = made.info.run_id
        self._resumed = bool(found)
        self._steps: dict[str, set[int]] = {}
        self.held = int(made.data.tags.get(COUNT, 0))
        self._client.update_run(self._run, status="RUNNING")
        self._describe(run.settings)

    def write(self, records: Sequence[Record]) -> None:
        """Log the records in batches, each with the tag that counts them."""
        now = int(1000 * time.time())
        for last, batch in _batches(records):
            metrics = [
                self._entities.Metric(key, value, now, step)
                for key, value, step in batch
                if step not in self._steps_of(key)
            ]
            tags = [self._entities.RunTag(COUNT, str(last))]
            self._client.log_batch(self._run, metrics=metrics, tags=tags)

    def show(self, images: Mapping[str, Path]) -> None:
        """Keep the pictures among the run's artifacts, in ``figures``."""
        for path in images.values():
            self._client.log_artifact(self._run, str(path), "figures")

    def close(self, finished: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """The number of the experiment of that name, which another process may be making too."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _describe(self, settings: Mapping[str, Any]) -> None:
        """Log the settings; those of an earlier session are the same."""
        parameters = [self._entities.Param(_named(key), str(value)[:LONGEST_VALUE]) for key, value in settings.items()]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[start : start + MOST_PARAMETERS])

    def _steps_of(self, key: str) -> set[int]:
        """The steps at which an earlier session logged a metric."""
        if self._resumed and key not in self._steps:
            self._steps[key] = {metric.step for metric in self._client.get_metric_history(self._run, key)}
        return self._steps.get(key, set())


def _named(text: str) -> str:
    """The text with '-' for what MLflow has in no name."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "-", text)


def _batches(records: Sequence[Record]) -> Iterator[tuple[int, list[tuple[str, float, int]]]]:
    """Whole records, as many as one batch may have: the number of the last, and (name, value, step) of all."""
    batch: list[tuple[str, float, int]] = []
    last = 0
    for record in records:
        if len(batch) + len(record.values) > MOST_METRICS:
            yield last, batch
            batch = []
        prefix = f"{record.series}/" if record.series else ""
        batch += [(_named(prefix + key), value, record.step) for key, value in record.values.items()]
        last = record.number
    if last:
        yield last, batch
