"""The course of a learned value over a stage, and what is made of its tail."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

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


@final
class Course:
    """Values after every outer step of a stage, kept as the stage records them, for results that are made of them.

    So no process reads again what it has written itself.

    Parameters
    ----------
    names : iterable of str
        Which entries of a record are kept, such as those that an augmenter observes.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._values = {name: array("d") for name in names}

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep the values of a record, if it is of an outer step."""
        if "outer_step" in record:
            for name, values in self._values.items():
                values.append(record[name])

    def take_up(self, folder: RunFolder, stage: str) -> None:
        """Begin with the records that earlier sessions left of the stage.

        Raises
        ------
        DataError
            If they were changed by another program, or one lacks a value.
        """
        if not self._values:
            return
        records = [r for r in folder.read_metrics() if r.get("stage") == stage and "outer_step" in r]
        where = f"{folder.path / METRICS}: outer steps of {stage!r}"
        expect(records, listing(entries(dict.fromkeys(self._values, NUMBER))), where)
        self._values = {name: array("d", (r[name] for r in records)) for name in self._values}

    def tails(self) -> tuple[dict[str, float], dict[str, float]]:
        """Mean and standard deviation of each value over the last tenth of the outer steps."""
        tails = {name: tail_of(values) for name, values in self._values.items()}
        return {name: mean for name, (mean, _) in tails.items()}, {name: sd for name, (_, sd) in tails.items()}


def tail_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over the last tenth of the outer steps: the value that is reported."""
    last = np.asarray(values[-max(1, round(TAIL * len(values))) :])
    return float(last.mean()), float(last.std())
