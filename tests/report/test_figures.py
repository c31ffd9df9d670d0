import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from metasynth.pictures import COLOURS, colours
from metasynth.report.figures import DiceGroup, Series, dice_by_condition, trajectory
from metasynth.report.image_figures import Triplet, image_triplet, segmentation_overlay
from metasynth.report.style import COLORS, color, png

IMAGE = np.linspace(0, 1, 24).reshape(6, 4)
NAMES = ("background", "white matter", "ventricles")


def legend(figure):
    shown = figure.legends or [figure.axes[0].get_legend()]
    return [text.get_text() for text in shown[0].get_texts()]


def test_names_are_drawn_as_they_are():
    figure = trajectory([Series("$x_$ \u4e2d", range(3), [0.1, 0.2, 0.3])])
    assert legend(figure)[0].startswith("$x_$ \u4e2d")
    assert png(figure).startswith(b"\x89PNG")


def test_trajectory_shows_truth_and_mean_of_the_tail():
    values = [0.4] * 45 + [0.1, 0.12, 0.1, 0.12, 0.11]
    figure = trajectory([Series("preset", range(50), values, truth=0.1), Series("free", [0, 1], [0.2, 0.3])])
    assert legend(figure) == ["preset: 0.110 (truth 0.100)", "free: 0.300"]
    curve, tail, truth, *_ = figure.axes[0].lines
    assert np.array_equal(curve.get_ydata(), values)
    assert list(tail.get_xdata()) == [45, 49]
    assert tail.get_ydata()[0] == pytest.approx(0.11)
    assert list(truth.get_ydata()) == [0.1, 0.1]
    assert figure.axes[0].get_xlabel() == "outer step"
    assert figure.axes[0].get_ylim()[0] == 0


def test_triplets_share_the_grey_scale():
    figure = image_triplet([Triplet("σ = 0.1", IMAGE, IMAGE + 1, IMAGE - 1), Triplet("σ = 0.2", *[IMAGE] * 3)])
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["noise-free", "learned", "real"]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["σ = 0.1", "σ = 0.2"]
    scales = [axes.images[0].get_clim() for axes in figure.axes]
    assert scales[:3] == [(0, pytest.approx(np.quantile([IMAGE, IMAGE + 1, IMAGE - 1], 0.99)))] * 3
    assert 1.5 < scales[0][1] < 2
    assert scales[3:] == [(0, 1)] * 3
    assert np.array_equal(figure.axes[1].images[0].get_array(), IMAGE + 1)


def test_overlay_paints_classes_and_leaves_the_background_clear():
    labels = np.zeros((6, 4), int)
    labels[0, 0], labels[1, 1] = 1, 2
    figure = segmentation_overlay(IMAGE, {"truth": labels, "learned": 0 * labels}, NAMES)
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "learned"]
    painted = figure.axes[1].images[1].get_array()
    assert tuple(painted[0, 0]) == (*to_rgb(COLOURS[0]), 0.55)
    assert tuple(painted[1, 1]) == (*to_rgb(COLOURS[1]), 0.55)
    assert painted[2, 2, 3] == 0
    assert not figure.axes[2].images[1].get_array().any()
    assert legend(figure) == ["white matter", "ventricles"]


def test_overlay_of_many_classes_has_a_colour_for_each():
    names = ["background", *(f"class {k}" for k in range(1, 12))]
    figure = segmentation_overlay(IMAGE, {"truth": np.arange(24).reshape(6, 4) % 12}, names)
    painted = figure.axes[1].images[1].get_array().reshape(24, 4)
    assert [tuple(painted[k]) for k in range(1, 12)] == [(*c[:3], 0.55) for c in colours(11)]
    assert len({tuple(painted[k]) for k in range(12)}) == 12
    assert legend(figure) == names[1:]


def test_dice_shows_every_subject_and_the_mean():
    groups = [
        DiceGroup("naive", "0.05", [0.5, 0.7]),
        DiceGroup("learned", "0.05", [0.8, float("nan")]),
        DiceGroup("naive", "0.1", [float("nan")]),
        DiceGroup("learned", "0.1", [0.9]),
    ]
    figure = dice_by_condition(groups)
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.6, 0.8, 0.9])
    assert [len(points.get_offsets()) for points in axes.collections] == [2, 1, 1]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.05", "0.1"]
    assert legend(figure) == ["naive", "learned"]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert centres == pytest.approx([-0.2, 0.2, 1.2])


def test_figures_repeat_to_the_byte():
    def make():
        return png(trajectory([Series("a", [0, 1], [0.1, 0.2], 0.1)]))

    assert make() == make()
    assert imread(io.BytesIO(make())).shape[:2] == (3.4 * 150, 6 * 150)


def test_colours_repeat_after_the_last():
    assert color(0) == color(len(COLORS)) == COLORS[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trajectory([]), "series: expected at least one, got none"),
        (lambda: image_triplet([]), "rows: expected at least one, got none"),
        (lambda: dice_by_condition([]), "groups: expected at least one, got none"),
        (
            lambda: Series("a", [0, 1], [0]),
            "series 'a': expected as many values as steps.*got 2 steps and 1 values",
        ),
        (lambda: Series("a", [], []), "got 0 steps"),
        (lambda: segmentation_overlay(IMAGE, {"t": np.zeros((2, 2), int)}, NAMES), r"'t' has shape \(2, 2\)"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
