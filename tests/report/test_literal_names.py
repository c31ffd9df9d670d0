r"""Names in figures are as they are written: dollar signs begin no mathematics, which "$\bad{$" would not be."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text
from metasynth.data_prep.montage import write_montage
from metasynth.data_prep.volumes.volumes import Volume
from metasynth.experiments.real_images.figures import dice_figure, segmentation_figures
from metasynth.experiments.real_images.tables import Naming
from metasynth.experiments.recovery.grid_figures import Course, Recovered, courses_figure, recovered_figure
from support.caches import arrays

from metasynth.data.cache import write_cache
from metasynth.predict.qc import write_picture
from metasynth.report.figures import DiceGroup, Series, dice_by_condition, trajectory
from metasynth.report.image_figures import Triplet, image_triplet, segmentation_overlay
from metasynth.report.style import new_figure, png, style

NAME = r"a$\bad{$b"
IMAGE, LABELS = np.linspace(0, 1, 24).reshape(6, 4), np.zeros((6, 4), int)
ROW = {
    "method": "naive",
    "subjects": 2,
    "checkpoint": "best",
    "dice": {NAME: {"per_subject": {"s0": 0.5, "s1": 0.7}}},
}
NAMING = Naming({"naive": NAME}, sizes=False)
EXAMPLES = {f"image/{NAME}": IMAGE, f"truth/{NAME}": LABELS, f"segmentation/{NAME}/naive/2": LABELS}


@pytest.mark.parametrize(
    "make",
    [
        lambda: trajectory([Series(NAME, [0, 1], [0.1, 0.2])], ylabel=NAME),
        lambda: image_triplet([Triplet(NAME, IMAGE, IMAGE, IMAGE)]),
        lambda: segmentation_overlay(IMAGE, {NAME: LABELS}, ("background", NAME)),
        lambda: dice_by_condition([DiceGroup(NAME, NAME, [0.5, 0.7])], xlabel=NAME),
        lambda: dice_figure([ROW, {**ROW, "method": "other"}], lambda row: NAME).figure,
        lambda: segmentation_figures([ROW], NAMING, EXAMPLES, ("background", NAME))[0].figure,
        lambda: recovered_figure([Recovered(NAME, 0.1, 0.2), Recovered("b", 0.2, 0.2)], NAME),
        lambda: courses_figure([Course(NAME, NAME, [0, 1], [0.1, 0.2]), Course("b", "c", [0], [0])], NAME),
    ],
)
def test_figures_of_reports(make):
    figure = make()
    assert any(NAME in text.get_text() for text in figure.findobj(Text))
    assert png(figure).startswith(b"\x89PNG")


def test_numbers_on_logarithmic_axes_stay_powers():
    with style():
        figure = new_figure(3, 3)
        axes = figure.add_subplot(xscale="log")
        axes.plot([0.1, 100], [0, 1], label=NAME)
        axes.legend()
    png(figure)
    ticks = [text for text in axes.get_xticklabels() if text.get_text()]
    assert ticks
    assert all(text.get_parse_math() for text in ticks)


def test_montages(tmp_path):
    given = arrays(n_subjects=2)
    info = replace(given["info"], class_names=("background", NAME, "grey"))
    write_cache(tmp_path / "c.h5", **(given | {"subjects": [NAME, "s1"], "info": info}))
    assert write_montage(tmp_path / "c.h5", tmp_path / "m.png").stat().st_size > 1000


def test_pictures_of_segmentations(tmp_path):
    values = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    image = Volume(values, np.eye(4), f"{NAME}.nii")
    write_picture(tmp_path / "q.png", image, (values > 0.5).astype(np.uint8), ("background", NAME))
    assert (tmp_path / "q.png").stat().st_size > 1000
