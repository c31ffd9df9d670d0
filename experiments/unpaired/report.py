"""The report of generators learned from scans without labels: Dice, what they make, and how the learning went."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metasynth.experiments.real_images.figures import dice_figure, segmentation_figures, values_figure
from metasynth.experiments.real_images.tables import (
    PEOPLE,
    TESTED,
    Naming,
    Row,
    class_table,
    difference_table,
    images_of,
)
from metasynth.experiments.unpaired.methods import undrawn
from numpy.typing import NDArray

from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.style import bare, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.records import METRICS, RESULTS, RunFolder
from metasynth.schema import NUMBER, TEXT, entries, expect, listing, mapping, maybe

Arrays = Mapping[str, NDArray[Any]]
CAVEAT = (
    "Nobody's scan and label map are both learned from, and no label of a scan is used but by the supervised segmenter "
    "and in tests. Every checkpoint is the last: choosing one by Dice would take labels. Intervals are over test "
    "subjects, not over trainings."
)


_INTENSITIES = mapping(listing(maybe(NUMBER), length=2))
_ROW = entries(TESTED, {"learned": mapping(NUMBER), "intensities": _INTENSITIES})
CONTENTS = {
    METRICS: listing(entries({"stage": TEXT}), least=1),
    RESULTS: entries({"rows": listing(_ROW, least=1), "reference": entries({"intensities": _INTENSITIES})}),
    "split.json": entries({"maps": PEOPLE, "scans": PEOPLE, "test": PEOPLE}),
}
"""What is read of the files of a run; an ``Experiment.contents``."""


@dataclass(frozen=True)
class UnpairedReport:
    """Makes the report of a run; `of_run` is an ``Experiment.report``.

    Attributes
    ----------
    title : str
    titles : mapping
        Method -> title.
    examples : callable
        The images that a run kept.
    published : str
        What the paper found.
    """

    title: str
    titles: Mapping[str, str]
    examples: Callable[[RunFolder], Arrays]
    published: str

    def of_run(self, folder: RunFolder) -> ReportContent:
        """Tables of Dice, differences to naive SynthSeg, classes and intensities; pictures and courses."""
        results = folder.results
        rows: list[Row] = [{**row, "checkpoint": "only"} for row in results["rows"]]
        naming, examples = Naming.of(rows, self.titles), self.examples(folder)
        class_names = list(next(iter(rows[0]["dice"].values()))["per_class"])
        learned = [row for row in rows if "learned" in row]
        tables = [
            _method_table(rows, naming),
            replace(difference_table(rows, naming), caption=_DIFFERENCES),
            replace(class_table(rows, naming), caption="Dice per class, mean over test subjects."),
            intensity_table(learned, naming, results["reference"]["intensities"]),
            _learned_table(learned, naming),
        ]
        caption = "Dice: every test subject a point, their mean the bar."
        figures = [replace(dice_figure(rows, naming), caption=caption)]
        figures += segmentation_figures(rows, naming, examples, class_names)
        if learned:
            figures += [generated_figure(learned, naming, examples), *course_figures(folder, learned, naming)]
        summary = [_people(folder), CAVEAT, self.published]
        return ReportContent(self.title, summary, [table for table in tables if table.rows], figures)


_DIFFERENCES = (
    "Difference of mean foreground Dice to naive SynthSeg, in pairs of test subjects; p corrected for the number of "
    "tests in this table."
)


def _method_table(rows: Sequence[Row], naming: Naming) -> Table:
    records = []
    for row in rows:
        dice = {f"test {name}": one["mean"] for name, one in row["dice"].items()}
        spread = {f"sd {name}": one["sd"] for name, one in row["dice"].items()}
        minutes = {"minutes": row["wall_s"] / 60, "total": row["total_s"] / 60}
        records.append({"method": naming(row), "scans": row["subjects"], **dice, **spread, **minutes})
    headings = {"method": "method", "scans": "subjects with scans"}
    for name in rows[0]["dice"]:
        headings |= {f"test {name}": f"Dice ({images_of(rows[0], name)})", f"sd {name}": "sd over subjects"}
    headings |= {"minutes": "minutes", "total": "minutes, with its generator"}
    return Table.from_records("Mean Dice of the foreground classes over test subjects.", records, headings)


def intensity_table(rows: Sequence[Row], naming: Naming, scans: Mapping[str, Any]) -> Table:
    """Intensities of the classes, mean ± standard deviation over voxels: of test scans and learned generators."""
    found = [(naming(row), row["intensities"]) for row in rows] if rows else []
    records = [
        {
            "images": name,
            **{key: None if mean is None else f"{mean:.2f} ± {sd:.2f}" for key, (mean, sd) in each.items()},
        }
        for name, each in [*([("test scans, by their labels", scans)] if found else []), *found]
    ]
    caption = (
        "Intensity of each class, mean ± standard deviation over voxels; the labels of scans serve this table only."
    )
    return Table.from_records(caption, records)


def _learned_table(rows: Sequence[Row], naming: Naming) -> Table:
    records = [{"method": naming(row), **row["learned"]} for row in rows]
    caption = (
        "Over the last tenth of the outer steps: patches that the discriminator told right (0.5: none better than by "
        "chance), and the learned parameters; classes are numbered."
    )
    return Table.from_records(caption, records)


def generated_figure(rows: Sequence[Row], naming: Naming, examples: Arrays) -> ReportFigure:
    """Images of the same label maps and draws before and after the generator learned, beside scans of other people."""
    scans = [examples[name] for name in sorted(examples) if name.startswith("scan/")]
    count = len(scans)
    titles = [*["before learning"] * count, *["learned"] * count, *["scans of others"] * count]
    with style():
        height, width = scans[0].shape
        figure = new_figure(1.5 * len(titles), 0.4 + len(rows) * 1.6 * height / width)
        grid = figure.subplots(len(rows), len(titles), squeeze=False)
        for line, row in zip(grid, rows, strict=True):
            made = [examples[f"{kind}/{row['method']}/{i}"] for kind in ("start", "generated") for i in range(count)]
            for axes, image in zip(line, [*made, *scans], strict=True):
                axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                bare(axes)
            line[0].set_ylabel(naming(row).replace(": ", ":\n").replace(", ", ",\n"), fontsize=6)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=8)
    caption = (
        "Images of the same label maps and draws before and after the generator learned, beside scans of other people; "
        "on the grey scale 0 to 1."
    )
    return ReportFigure("generated", caption, figure)


def course_figures(folder: RunFolder, rows: Sequence[Row], naming: Naming) -> list[ReportFigure]:
    """What the discriminators told right against outer steps, and of each generator what it learned."""
    records = folder.read_metrics()
    told, figures = [], []
    for row in rows:
        course = [r for r in records if r["stage"] == f"{row['method']}/generator" and "outer_step" in r]
        read = dict.fromkeys(("outer_step", *row["learned"]), NUMBER)
        where = f"{folder.path / METRICS}: outer steps of {row['method']!r}"
        expect(course, listing(entries(read), least=1), where)
        steps = [r["outer_step"] for r in course]
        told.append(Series(naming(row), steps, [r["accuracy"] for r in course]))
        left_out = {"accuracy", *undrawn(row["method"], 1 + len(row["intensities"]))}
        courses = {name: (steps, [r[name] for r in course]) for name in row["learned"] if name not in left_out}
        if courses:
            figures.append(values_figure(row["method"], naming(row), courses))
    caption = "Patches of images it was not updated on that the discriminator told right, against outer steps."
    return [ReportFigure("told-apart", caption, trajectory(told, ylabel="told right")), *figures]


def _people(folder: RunFolder) -> str:
    split = folder.read_json("split.json")
    return (
        f"Label maps of {len(split['maps'])} subjects and scans, without labels, of {len(split['scans'])} others; "
        f"tested on {len(split['test'])}."
    )
