"""The line of a report that says whether what was learned serves."""

from typing import Any

import pytest
from metasynth.experiments.real_images.self_check import self_checks
from metasynth.experiments.real_images.tables import Naming

TITLES = {"optimised": "Optimised", "unlearned": "Unlearned"}


def row(method: str, validation: float, subjects: int = 5, checkpoint: str = "best", **more: str) -> dict[str, Any]:
    return {"method": method, "subjects": subjects, "checkpoint": checkpoint, "validation": validation, **more}


def checked(*rows: dict[str, Any]) -> list[str]:
    return self_checks(rows, Naming(TITLES, sizes=False))


@pytest.mark.parametrize(("start", "verdict"), [(0.78, "serves"), (0.81, "does not serve"), (0.8, "does not serve")])
def test_what_was_learned_is_held_against_its_start(start: float, verdict: str) -> None:
    (line,) = checked(row("optimised", 0.8), row("unlearned", start), row("optimised", 0.1, checkpoint="last"))
    assert line.startswith(
        f"Optimised: 0.800 on the validation subjects, where its start has {start:.3f}: what was learned {verdict}."
    )


def test_of_the_same_people_and_group_alone() -> None:
    assert not checked(row("optimised", 0.8), row("naive", 0.5))
    assert not checked(row("optimised", 0.8), row("unlearned", 0.7, subjects=1))
    assert not checked(row("optimised", 0.8, group="a"), row("unlearned", 0.7, group="b"))
    both = [row(name, value, subjects=n) for n in (1, 5) for name, value in (("optimised", 0.8), ("unlearned", 0.7))]
    assert len(checked(*both)) == 2
