"""What a run was asked for, completed by what an earlier session of it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metasynth.errors import UsageError
from metasynth.training.config import from_dict
from metasynth.training.records import CONFIG, RunFolder


@dataclass(frozen=True)
class Request:
    """What was asked for; None and 'auto' leave it open."""

    preset: str | None
    seed: int | None
    data: Path | None
    device: str
    threads: int | None

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
        )


def settings_of(earlier: RunFolder, kind: type[Any]) -> Any:
    """The settings of a run; UsageError, which names its file, if they are not those of this version's study."""
    try:
        return from_dict(kind, earlier.manifest["config"])
    except UsageError as error:
        raise UsageError(f"{earlier.path / CONFIG}: {error}") from error
