"""What was asked of a run, and the settings that it comes to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metasynth.errors import UsageError
from metasynth.running.records import CONFIG, RunFolder
from metasynth.running.settings.config import field_types, from_dict, nearest
from metasynth.running.study import Experiment


@dataclass(frozen=True)
class Request:
    """What was asked for; None and 'auto' leave it open."""

    preset: str | None
    seed: int | None
    data: Path | None
    device: str
    threads: int | None
    log: str | None

    @property
    def is_open(self) -> bool:
        """Whether nothing was asked that tells one run from another."""
        return self.preset is None and self.seed is None and self.data is None

    def completed_by(self, earlier: RunFolder) -> "Request":
        """What is open is taken from the run that is resumed."""
        then, where = earlier.manifest, earlier.environment
        given = Path(then["data"]["path"]) if then["data"]["given"] else None
        return Request(
            preset=then["preset"] if self.preset is None else self.preset,
            seed=then["seed"] if self.seed is None else self.seed,
            data=self.data or given,
            device=where.get("device", "auto") if self.device == "auto" else self.device,
            threads=self.threads or where.get("threads"),
            log=_last_log(where) if self.log is None else self.log,
        )


def _last_log(environment: Mapping[str, Any]) -> str | None:
    """The sinks of a run's last session, as in ``--log``; None if it never had any."""
    sessions = environment.get("resumed") or [{}]
    log: str | None = sessions[-1].get("log", environment.get("log"))
    return log


def settings_of(earlier: RunFolder, kind: type[Any]) -> Any:
    """The settings of a run; UsageError, which names its file, if they are not those of this version's study."""
    try:
        return from_dict(kind, earlier.manifest["config"])
    except UsageError as error:
        raise UsageError(f"{earlier.path / CONFIG}: {error}") from error


def file_overrides(experiment: Experiment, labels: Path | None, start: Path | None) -> list[str]:
    """The overrides that ``--label-cache`` and ``--start`` stand for.

    Raises
    ------
    UsageError
        The experiment takes no such file.
    """
    (config, *_) = experiment.presets.values()
    found = []
    if labels is not None:
        if "labels" not in field_types(type(config)):
            raise UsageError(f"--label-cache {labels}: experiment {experiment.name!r} takes no label maps of their own")
        found.append(f"labels={labels.resolve()}")
    if start is not None:
        if not hasattr(getattr(config, "segmenter", None), "start"):
            raise UsageError(f"--start {start}: experiment {experiment.name!r} trains no segmenter")
        found.append(f"segmenter.start={start.resolve()}")
    return found


def preset_settings(experiment: Experiment, name: str) -> Any:
    """The settings of a preset; UsageError if there is none of that name."""
    if name not in experiment.presets:
        hint = nearest(name, experiment.presets)
        every = f" (presets: {', '.join(experiment.presets)})" if hint.startswith("did") else ""
        raise UsageError(f"experiment {experiment.name!r} has no preset {name!r}: {hint}{every}")
    return experiment.presets[name]
