"""A grid: an experiment over seeds and settings; every combination is a run of its own."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Self, TypeVar

from metasynth.errors import UsageError
from metasynth.running.jsonlines import encode
from metasynth.running.settings.config import FileOverride, apply_overrides, to_dict

FORMAT = "metasynth-grid/1"
MOST_SEED = 2**63 - 1
MOST_RUNS = 100_000  # of one grid: each is a process and a folder of its own
LONGEST_NAME = 200  # of the 255 bytes that file systems allow: '.log' is added, and so are temporary endings
Json = dict[str, Any]
C = TypeVar("C")


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes
    ----------
    seed : int
        Of every random draw.
    settings : mapping of str to str
        The settings that the grid varies, as texts.
    """

    seed: int
    settings: Mapping[str, str]

    @property
    def name(self) -> str:
        """'seed=0,sigma=0.05', with '-' for characters that a file name should not have."""
        parts = {"seed": str(self.seed), **self.settings}
        plain = [[re.sub("[^A-Za-z0-9._+-]", "-", text) for text in part] for part in parts.items()]
        return ",".join("=".join(part) for part in plain)

    @property
    def values(self) -> Json:
        """The settings; numbers where the text is one."""
        return {key: value_of(text) for key, text in self.settings.items()}


@dataclass(frozen=True)
class Grid:
    """What a grid consists of.

    Attributes
    ----------
    experiment, preset : str
        Names.
    seeds : tuple of int
        Of the runs.
    vary : mapping of str to tuple of str
        Setting -> its values, as texts; every combination is run with every seed.
    overrides : tuple of str
        Further settings, 'KEY=VALUE', which all runs share.
    data : Path or None
        The cache that the user named, or None.
    device, threads, log : str, int, str
        Of every run; as in ``--device``, ``--threads`` and ``--log``, the last empty where none was given.
    digest : str
        Of the data that the first run reads; empty as long as it is not known.
    """

    experiment: str
    preset: str
    seeds: tuple[int, ...]
    vary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    data: Path | None = None
    device: str = "auto"
    threads: int = 1
    digest: str = ""
    log: str = ""

    @cached_property
    def combinations(self) -> list[dict[str, str]]:
        """Every combination of the varied settings; a single empty one if there is none."""
        return [dict(zip(self.vary, values, strict=True)) for values in product(*self.vary.values())]

    @cached_property
    def runs(self) -> list[GridRun]:
        """All runs: every combination with the first seed, then with the next."""
        return [GridRun(seed, settings) for seed in self.seeds for settings in self.combinations]

    def overrides_of(self, settings: Mapping[str, str]) -> list[str]:
        """Every 'KEY=VALUE' of a combination."""
        return [*self.overrides, *(f"{key}={value}" for key, value in settings.items())]

    def configurations(self, start: C) -> list[C]:
        """The settings of every combination, from those of the preset.

        Raises
        ------
        UsageError
            A setting is unknown or refused, two combinations are the same, or their folders cannot have names of their
            own.
        """
        self._check_names()
        configs = [apply_overrides(start, self.overrides_of(settings)) for settings in self.combinations]
        seen: dict[bytes, dict[str, str]] = {}
        for settings, config in zip(self.combinations, configs, strict=True):
            same = seen.setdefault(encode(to_dict(config)), settings)
            if same is not settings:
                one, other = (", ".join(f"{key}={value}" for key, value in each.items()) for each in (same, settings))
                raise UsageError(f"--vary: {one} and {other} are the same settings")
        return configs

    def _check_names(self) -> None:
        shared = {override.partition("=")[0].strip() for override in self.overrides} & set(self.vary)
        if shared:
            raise UsageError(f"--vary {min(shared)}: is given with --set too")
        names = [run.name for run in self.runs]
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise UsageError(f"--vary: {count} runs would have the name {name}; their values differ in signs only")
        longest = max(names, key=len)
        if len(longest) > LONGEST_NAME:
            raise UsageError(
                f"--vary: expected names of runs of at most {LONGEST_NAME} characters, got {len(longest)}: {longest}"
            )

    def to_json(self) -> Json:
        """The content of ``grid.json``."""
        return {
            "format": FORMAT,
            "experiment": self.experiment,
            "preset": self.preset,
            "seeds": list(self.seeds),
            "vary": {key: list(values) for key, values in self.vary.items()},
            "set": list(self.overrides),
            "device": self.device,
            "threads": self.threads,
            **({"log": self.log} if self.log else {}),
            "data": {"path": None if self.data is None else str(self.data), "digest": self.digest},
        }

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """What `to_json` gave; KeyError, TypeError or AttributeError if it is something else."""
        data = value["data"]
        return cls(
            experiment=value["experiment"],
            preset=value["preset"],
            seeds=tuple(value["seeds"]),
            vary={key: tuple(values) for key, values in value["vary"].items()},
            overrides=tuple(value["set"]),
            data=None if data["path"] is None else Path(data["path"]),
            device=value["device"],
            threads=value["threads"],
            log=value.get("log", ""),
            digest=data["digest"],
        )


def require_runs(first: int, seeds: int, vary: Mapping[str, Sequence[str]]) -> None:
    """UsageError if ``seeds`` seeds from ``first`` on, with every combination, are more runs than one grid has."""
    count = seeds * math.prod(map(len, vary.values()))
    if count > MOST_RUNS:
        raise UsageError(f"--seeds, --vary: expected at most {MOST_RUNS} runs of one grid, got {count}")
    if first + seeds > MOST_SEED + 1:
        raise UsageError(f"--seeds {seeds}: expected seeds of at most {MOST_SEED}, got {first} as the first")


def parse_vary(options: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Setting -> values of each 'KEY=V1,V2,...'; where values have commas themselves, ';' stands between them.

    Raises
    ------
    UsageError
        An option has no '=' or an empty value, or a setting is named twice.
    """
    vary: dict[str, tuple[str, ...]] = {}
    for option in options:
        key, _, text = (part.strip() for part in option.partition("="))
        values = tuple(value.strip() for value in text.split(";" if ";" in text else ","))
        if not key or not all(values):
            raise UsageError(f"--vary {option}: expected KEY=V1,V2,..., for example --vary start=0.02,0.4")
        if key in vary:
            raise UsageError(f"--vary {option}: {key} is varied already; give all of its values at once")
        vary[key] = values
    return vary


def without_varied(overrides: Sequence[str], vary: Mapping[str, Any]) -> tuple[str, ...]:
    """The overrides but those of a file whose settings are varied: ``--vary`` wins over a file."""
    kept = (one for one in overrides if not (isinstance(one, FileOverride) and one.partition("=")[0] in vary))
    return tuple(kept)


def value_of(text: str) -> Any:
    """The finite number that a text is, or the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else text
