"""The course of a learned value over a stage, and what is made of its tail."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metasynth.errors import DataError
from metasynth.running.records import METRICS, RunFolder
from metasynth.schema import NUMBER, entries, expect, listing

TAIL = 0.1


def trajectory_of(records: Sequence[Mapping[str, Any]], stage: str, name: str) -> tuple[list[int], list[float]]:
    """Outer steps and the values of outer parameter ``name`` after them, from the records of a stage."""
    of_stage = [r for r in records if r["stage"] == stage and "outer_step" in r]
    return [r["outer_step"] for r in of_stage], [r[name] for r in of_stage]


def course_of(
    folder: RunFolder, records: Sequence[Mapping[str, Any]], stage: str, name: str
) -> tuple[list[int], list[float]]:
    """The same for a report, which the records of a run must have.

    Raises
    ------
    DataError
        If there is none, or one lacks the value.
    """
    of_stage = [r for r in records if r.get("stage") == stage and "outer_step" in r]
    where = folder.path / METRICS
    if not of_stage:
        raise DataError(f"{where}: expected outer steps of stage {stage!r}, found none in its {len(records)} records")
    expect(of_stage, listing(entries({"outer_step": NUMBER, name: NUMBER})), f"{where}: outer steps of {stage!r}")
    return trajectory_of(of_stage, stage, name)


def tail_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over the last tenth of the outer steps: the value that is reported."""
    last = np.asarray(values[-max(1, round(TAIL * len(values))) :])
    return float(last.mean()), float(last.std())
