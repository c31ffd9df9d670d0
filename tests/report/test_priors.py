"""What a report shows of priors: a table, and intensity by structure beside the scans'."""

import pytest

from metasynth.report.priors import priors_figure, priors_table
from metasynth.report.style import png

LABELS = [
    {"name": "background", "class": "background", "mean": 0.0, "spread": 0.0, "texture": 0.0},
    {
        **{"name": "white", "class": "tissue", "mean": 0.8, "spread": 0.04, "texture": 0.1},
        **{"people": 2, "voxels": 300, "erosion": "square"},
    },
    {
        **{"name": "bright", "class": "tissue", "mean": 1.0, "spread": 0.04, "texture": 0.1},
        **{"people": 2, "voxels": 200, "erosion": "none", "cut": True},
    },
    {
        **{"name": "lesion", "class": "tissue", "mean": 0.8, "spread": 0.04, "texture": 0.1},
        **{"people": 0, "voxels": 0, "erosion": "none", "cut": False},
    },
]


def test_the_table_has_every_structure_and_says_what_nobody_had():
    table = priors_table(LABELS, "Estimated")
    assert table.caption.startswith("Estimated: intensities by structure, in units of the cache: mean, ")
    columns = ("structure", "class", "mean", "spread", "texture", "people", "voxels", "edges left out", "cut")
    assert table.columns == columns
    assert table.rows == (
        ("white", "tissue", 0.8, 0.04, 0.1, 2, 300, "yes", ""),
        ("bright", "tissue", 1.0, 0.04, 0.1, 2, 200, "no", "yes"),
        ("lesion", "tissue", 0.8, 0.04, 0.1, 0, None, None, ""),
    )


def test_the_figure_has_bars_of_spread_and_texture_and_the_scans_as_points():
    figure = priors_figure(
        [label for label in LABELS if label["name"] != "bright"], {"a": [None, 0.75, None], "b": [None, 0.85, 0.7]}
    )
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["white", "lesion"]
    texture, spread, mean = (line.get_xdata() for line in axes.lines[:3])
    assert texture == pytest.approx([0.7, 0.9])
    assert spread == pytest.approx([0.76, 0.84])
    assert mean == pytest.approx([0.8, 0.8])
    points = [collection.get_offsets().tolist() for collection in axes.collections]
    assert points == [[[0.75, 0], [0.85, 0]], [[0.7, 1]]]
    assert png(figure).startswith(b"\x89PNG")
