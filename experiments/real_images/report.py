"""The report of a comparison of methods on real images, of one run and of a grid of runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from metasynth.experiments.real_images.estimated_priors import priors_figures, priors_tables
from metasynth.experiments.real_images.figures import (
    augmentation_figures,
    dice_figure,
    segmentation_figures,
    sigma_figure,
    values_figure,
)
from metasynth.experiments.real_images.self_check import self_checks
from metasynth.experiments.real_images.tables import (
    Naming,
    Row,
    class_table,
    cost_table,
    difference_table,
    images_of,
    learned_table,
    method_table,
    published_table,
    shown,
)
from numpy.typing import NDArray

from metasynth.augment.table import known_entry
from metasynth.report.grid import GridResults, describe_runs
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.statistics import grouped
from metasynth.report.tables import Table
from metasynth.running.records import RunFolder
from metasynth.segment.metrics import mean_of_present, sd_of_present
from metasynth.training.courses import course_of

ROTATION = "subjects.rotation"
CAVEAT = (
    "The best checkpoint is that with the highest Dice of the validation subjects, which no method was trained on; the "
    "last takes no validation subjects. Where Learn2Synth is 'chosen on validation', these chose the variant too."
)


@dataclass(frozen=True)
class ComparisonReport:
    """Makes the report of a study; `of_run` is an ``Experiment.report``, `of_grid` its ``grid_report``.

    Attributes
    ----------
    title : str
    titles : mapping
        Method -> title.
    stage : callable
        Method and number of real subjects -> the stage of its training, as in the records.
    examples : callable
        The images that a run kept.
    published : sequence of mapping
        Tables of the paper, each with ``source``, ``columns`` and ``rows``.
    """

    title: str
    titles: Mapping[str, str]
    stage: Callable[[str, int], str]
    examples: Callable[[RunFolder], Mapping[str, NDArray[Any]]]
    published: Sequence[Mapping[str, Any]]

    def of_run(self, folder: RunFolder) -> ReportContent:
        """Tables 5 to 7 and 9 with paired comparisons and costs, Figures 3 and 4, and what was learned."""
        rows: list[Row] = folder.results["rows"]
        naming, examples = Naming.of(rows, self.titles), self.examples(folder)
        class_names = list(next(iter(rows[0]["dice"].values()))["per_class"])
        figures = [
            dice_figure(rows, naming),
            *segmentation_figures(rows, naming, examples, class_names),
            *augmentation_figures(rows, naming, examples),
            *priors_figures(folder, rows, naming),
            *self._courses(folder, rows, naming),
        ]
        summary = [_subjects(folder, rows[0]), CAVEAT, *_variants(rows, naming), *self_checks(rows, naming)]
        tables = [*self._tables(rows, naming), *priors_tables(folder, rows, naming)]
        return ReportContent(self.title, summary, [*tables, *map(published_table, self.published)], figures)

    def _courses(self, folder: RunFolder, rows: Sequence[Row], naming: Naming) -> list[ReportFigure]:
        """Sigma of all augmenters whose line names it, and of each other one all that is drawn of it."""
        records = folder.read_metrics()
        noise: dict[str, tuple[list[int], list[float]]] = {}
        others: list[ReportFigure] = []
        for row in shown(rows):
            if row.get("learned") and "variant" not in row:
                entry, stage = known_entry(row["method"]), self.stage(row["method"], row["subjects"])
                left_out = entry.undrawn if entry else ()
                names = entry.sigma[-1:] if entry else ()
                drawn = names or [name for name in row["learned"] if name not in left_out]
                courses = {name: course_of(folder, records, stage, name) for name in drawn}
                if names:
                    noise |= {naming(row): course for course in courses.values()}
                elif courses:
                    others.append(values_figure(f"{row['method']}-{row['subjects']}", naming(row), courses))
        return ([sigma_figure(noise)] if noise else []) + others

    def of_grid(self, grid: GridResults) -> ReportContent:
        """The same of many runs, a subject's values being its means over the runs that tested it."""
        results = grid.results
        by = [key for key in results["vary"] if key != ROTATION]
        rows = pooled(results["rows"], by)
        naming = Naming.of(rows, self.titles)
        summary = [
            describe_runs(grid),
            "Every test subject counts once: with the mean of its Dice over the runs that tested it, whose other seeds "
            "and rotations divide the subjects differently. Standard deviations and intervals are over subjects. Times "
            "are means over runs.",
            CAVEAT,
            *_variants(rows, naming),
            *self_checks(rows, naming),
        ]
        tables = [*self._tables(rows, naming), *map(published_table, self.published)]
        return ReportContent(self.title, summary, tables, [dice_figure(rows, naming)])

    def _tables(self, rows: Sequence[Row], naming: Naming) -> list[Table]:
        tables = [method_table(rows, naming), difference_table(rows, naming), class_table(rows, naming)]
        tables += [learned_table(rows, naming), cost_table(rows, naming)]
        return [table for table in tables if table.rows]


def pooled(rows: Sequence[Row], by: Sequence[str]) -> list[Row]:
    """Rows of many runs made one for each method, number of subjects, checkpoint and combination of settings ``by``."""

    def key(row: Row) -> tuple[Any, ...]:
        return (*(str(row[name]) for name in by), row["method"], row["subjects"], row["checkpoint"])

    groups = grouped(rows, key).values()
    return [_pooled(alike, ", ".join(f"{name} {alike[0][name]}" for name in by)) for alike in groups]


def _pooled(rows: Sequence[Row], group: str) -> Row:
    first = rows[0]
    merged = {key: first[key] for key in ("method", "subjects", "checkpoint", "steps")}
    if "variant" in first:
        merged["variant"] = ", ".join(sorted({row["variant"] for row in rows}))
    merged |= {key: fmean(row[key] for row in rows) for key in ("wall_s", "total_s")}
    merged["validation"] = mean_of_present(row["validation"] for row in rows)
    merged["peak_mib"] = max((row["peak_mib"] for row in rows if row["peak_mib"] is not None), default=None)
    if first.get("learned"):
        names = [name for name in first["learned"] if all(name in row["learned"] for row in rows)]
        merged["learned"] = {name: fmean(row["learned"][name] for row in rows) for name in names}
    runs = [f"{row['seed']}/{row.get(ROTATION)}" for row in rows]
    dice = {condition: _pooled_dice([row["dice"][condition] for row in rows], runs) for condition in first["dice"]}
    return {"group": group, **merged, "dice": dice}


def _pooled_dice(summaries: Sequence[Row], runs: Sequence[str]) -> Row:
    """One summary of several, by subject; ``per_run`` has the mean of each."""
    names = list(summaries[0]["per_class"])
    found: dict[str, list[Sequence[float | None]]] = {}
    for summary in summaries:
        for subject, values in summary["per_subject_class"].items():
            found.setdefault(subject, []).append(values)
    by_class = {subject: list(map(mean_of_present, zip(*values, strict=True))) for subject, values in found.items()}
    per_subject = {
        subject: mean_of_present(summary["per_subject"].get(subject) for summary in summaries) for subject in found
    }
    return {
        "mean": mean_of_present(per_subject.values()),
        "sd": sd_of_present(per_subject.values()),
        "per_class": {
            name: mean_of_present(values[at] for values in by_class.values()) for at, name in enumerate(names)
        },
        "per_subject": per_subject,
        "per_run": {run: summary["mean"] for run, summary in zip(runs, summaries, strict=True)},
        **{key: value for key, value in summaries[0].items() if key == "marks"},
    }


def _variants(rows: Sequence[Row], naming: Naming) -> list[str]:
    return [f"{naming(row)}: {row['variant']}." for row in shown(rows) if "variant" in row]


def _subjects(folder: RunFolder, row: Row) -> str:
    split = folder.read_json("split.json")
    tested = {images_of(row, key[5:]): names for key, names in split.items() if key.startswith("test ")}
    tests = ", ".join(f"{len(names)} ({images})" for images, names in tested.items())
    return (
        f"Label maps of {len(split['maps'])} subjects for synthesis; real images of {len(split['train'])} subjects to "
        f"learn from, of which each method used as many as its row says, {len(split['val'])} for validation; tested on "
        f"{tests}, the same for every method. Nobody is in two of these groups but that label maps may be those of "
        "training subjects."
    )
