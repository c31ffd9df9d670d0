import pytest
from metasynth.experiments.recovery.grid_figures import Course, Recovered, courses_figure, recovered_figure


def test_learned_against_true():
    points = [Recovered("start 0.02", 0.1, 0.09), Recovered("start 0.4", 0.1, 0.12), Recovered("start 0.4", 0, 0.01)]
    (axes,) = recovered_figure(points, "σ").axes
    drawn = [point for dots in axes.collections for point in dots.get_offsets().tolist()]
    assert [y for _, y in drawn] == [0.09, 0.12, 0.01]
    assert [x for x, _ in drawn] == pytest.approx([0.1, 0.1, 0.0], abs=0.002)
    assert drawn[0][0] != drawn[1][0]
    (identity,) = axes.lines
    assert list(identity.get_xdata()) == list(identity.get_ydata())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["start 0.02", "start 0.4"]
    (alone,) = recovered_figure([Recovered("", 0.1, 0.1)], "σ").axes
    assert alone.get_legend() is None
    with pytest.raises(ValueError, match="points: expected at least one"):
        recovered_figure([], "σ")


def test_courses_in_a_panel_for_each_preset():
    courses = [
        Course("σ 0.1", "start 0.4", [0, 1, 2], [0.4, 0.2, 0.1], 0.1),
        Course("σ 0.1", "start 0.02", [0, 1, 2], [0.02, 0.05, 0.1], 0.1),
        Course("σ U[0.025, 0.2]", "start 0.4", [0, 1], [0.4, 0.3], (0.025, 0.2)),
    ]
    figure = courses_figure(courses, "σ")
    known, spread = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["preset σ 0.1", "preset σ U[0.025, 0.2]"]
    lines = [line.get_xydata().tolist() for line in known.lines]
    assert lines[:2] == [[[0, 0.4], [1, 0.2], [2, 0.1]], [[0, 0.02], [1, 0.05], [2, 0.1]]]
    assert lines[2][0][1] == 0.1
    assert known.lines[2].get_linestyle() == "--"
    assert known.lines[0].get_color() != known.lines[1].get_color()
    assert len(spread.lines) == 1
    (shade,) = spread.patches
    assert (shade.get_y(), shade.get_y() + shade.get_height()) == pytest.approx((0.025, 0.2))
    with pytest.raises(ValueError, match="courses: expected at least one"):
        courses_figure([], "σ")
