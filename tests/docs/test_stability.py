"""What the page on stability names is there."""

from pathlib import Path

from metasynth.augment import table as augmenters
from metasynth.running import study
from metasynth.segment import table as networks
from metasynth.sinks import table as sinks

PAGE = (Path(__file__).parents[2] / "docs" / "stability.md").read_text(encoding="utf-8")


def test_it_names_every_group_of_entry_points():
    for group, kind in (
        (study.GROUP, "Experiment"),
        (augmenters.GROUP, augmenters.TABLE.kind.__name__),
        (networks.GROUP, networks.TABLE.kind.__name__),
        (sinks.GROUP, sinks.TABLE.kind.__name__),
    ):
        (line,) = [line for line in PAGE.splitlines() if f"the entry-point group `{group}`" in line]
        assert f"`{kind}`" in line
