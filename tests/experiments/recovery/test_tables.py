import numpy as np
import pytest
from metasynth.experiments.recovery.figures import dice_figure, image_figure, segmentation_figure, sigma_figure
from metasynth.experiments.recovery.rows import error_of
from metasynth.experiments.recovery.tables import class_table, dice_table, sigma_table

from metasynth.augment.noise import NoiseLevel

CLASSES = ["background", "white matter", "grey matter"]


def label(value):
    return NoiseLevel.from_json(value).label


def dice(value, absent=False):
    """A summary; ``absent``: of a test set without grey matter and with one subject that has no class at all."""
    per_class = {"background": 0.99, "white matter": value + 0.05, "grey matter": None if absent else value - 0.05}
    per_subject = {"s1": value, "s2": None if absent else value}
    return {"mean": value, "sd": 0.0, "per_class": per_class, "per_subject": per_subject}


def rows(truth, learned, absent=False):
    values = {"N": 0.5, "L": 0.6, "O": 0.7}
    return [
        {
            "model": model,
            "sigma_true": truth,
            "sigma_learned": learned,
            "sigma_sd": 0.002,
            "dice": {"0": dice(value), "0.1": dice(value - 0.1, absent)},
        }
        for model, value in values.items()
    ]


ROWS = rows(0.1, 0.112) + rows([0.025, 0.2], 0.13)
LEARNED = [row for row in ROWS if row["model"] == "L"]


ROWS = rows(0.1, 0.112) + rows([0.025, 0.2], 0.13)
LEARNED = [row for row in ROWS if row["model"] == "L"]


def cells(table):
    """Headings and rows, as texts."""
    return [list(table.columns), *table.cells()]


def test_the_error_is_absolute_and_none_for_a_range():
    assert error_of(LEARNED[0]) == pytest.approx(0.012)
    assert error_of({**LEARNED[0], "sigma_learned": 0.07}) == pytest.approx(0.03)
    assert error_of({"sigma_true": 0, "sigma_learned": 0.01}) == pytest.approx(0.01)
    assert error_of(LEARNED[1]) is None


def test_preset_against_learned():
    heading, known, spread = cells(sigma_table(LEARNED, label, {"0.1": 0.098}))
    assert heading == ["preset σ", "learned σ", "absolute error", "sd over the tail", "paper (full scale)"]
    assert known == ["0.1", "0.112", "0.012", "0.002", "0.098"]
    assert spread[:2] == ["U[0.025, 0.2]", "0.130"]
    assert spread[3] == "0.002"
    assert len(set(spread[2:3] + spread[4:])) == 1  # no error and no published value look alike
    assert not any(character.isdigit() for character in spread[2])


def test_dice_of_every_model_under_every_condition():
    found = cells(dice_table(ROWS, label))
    assert found[0] == ["real σ", "segmenter", "test 0", "test 0.1"]
    assert found[1] == ["0.1", "N (naive)", "0.500", "0.400"]
    assert found[2] == ["0.1", "L (Learn2Synth)", "0.600", "0.500"]
    assert found[6] == ["U[0.025, 0.2]", "O (optimised)", "0.700", "0.600"]


def test_classes_are_those_of_the_own_noise_without_background():
    found = cells(class_table(ROWS, label))
    assert found[0] == ["real σ", "test σ", "segmenter", "white matter", "grey matter"]
    assert found[1] == ["0.1", "0.1", "N", "0.450", "0.350"]
    assert found[4] == ["U[0.025, 0.2]", "0", "N", "0.550", "0.450"]  # its own noise was not tested


def test_a_class_that_is_absent_leaves_its_cell_without_a_number():
    found = cells(class_table(rows(0.1, 0.1, absent=True), label))
    assert found[1][3] == "0.450"
    assert not any(character.isdigit() for character in found[1][4])


def test_the_course_of_sigma_begins_at_its_start_and_shows_known_truths():
    courses = {"0.1": ([1, 2, 3], [0.3, 0.2, 0.11]), "U[0.025, 0.2]": ([1, 2], [0.3, 0.2])}
    figure = sigma_figure(courses, LEARNED, label, start=0.4)
    assert figure.name == "sigma"
    lines = [line.get_xydata().tolist() for axes in figure.figure.axes for line in axes.lines]
    assert [[0, 0.4], [1, 0.3], [2, 0.2], [3, 0.11]] in lines
    assert [[0, 0.4], [1, 0.3], [2, 0.2]] in lines
    dashed = [line for axes in figure.figure.axes for line in axes.lines if line.get_linestyle() == "--"]
    assert {y for line in dashed for y in np.asarray(line.get_ydata(), float).tolist()} == {0.1}


def test_example_images_and_segmentations():
    rng = np.random.default_rng(0)
    names = ["0.1", "U[0.025, 0.2]"]
    shown = {f"{name}/{part}": rng.random((8, 8)) for name in names for part in ("noise_free", "learned", "real")}
    shown |= {f"0.1/{part}": rng.integers(0, 3, (8, 8)) for part in ("truth", "N", "L", "O")}
    images = image_figure(shown, names)
    assert images.name == "images"
    assert sum(len(axes.images) > 0 for axes in images.figure.axes) == 6
    overlay = segmentation_figure(shown, "0.1", CLASSES)
    assert overlay.name == "segmentation"
    assert [axes.get_title() for axes in overlay.figure.axes if axes.images][1:] == ["truth", "N", "L", "O"]
    alone = {key: image for key, image in shown.items() if key not in ("0.1/N", "0.1/O")}
    titles = [axes.get_title() for axes in segmentation_figure(alone, "0.1", CLASSES).figure.axes if axes.images]
    assert titles[1:] == ["truth", "L"]


def test_dice_figure_takes_the_rows_of_its_setting_and_subjects_without_a_value():
    figure = dice_figure(ROWS + rows(0.05, 0.05, absent=True), label, "0.05")
    assert figure.name == "dice"
    (axes,) = figure.figure.axes
    heights = sorted(round(bar.get_height(), 6) for bar in axes.patches if bar.get_height() > 0)
    assert heights == pytest.approx([0.4, 0.5, 0.5, 0.6, 0.6, 0.7])
