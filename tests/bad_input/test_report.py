"""What cannot be reported on."""

from bad_input.table import Place, Row, table


@table(
    Row("report", 2, "Missing argument 'RUN...'."),
    Row("report gone", 2, "gone: holds no run (config.json is missing)"),
    Row("report folder", 2, "folder: holds no run (config.json is missing)"),
    Row("report thesis.tex", 2, "thesis.tex: holds no run (config.json is missing)"),
    Row("report full", 2, "full: holds no run (config.json is missing)"),
    Row("report unfinished", 2, "unfinished: the run has no results yet; continue it with --resume"),
    Row("report unknown", 2, "unknown experiment 'gone': choose from cross_contrast, hyper_cleaning, inu,"),
    Row("report grid", 2, "grid: no run of the grid has finished; continue it with --resume"),
    Row("report grid-text", 1, "grid-text/grid.json: is not valid JSON: Expecting value: line 1 column 1"),
    Row("report grid-list", 2, "grid-list/grid.json: expected a grid of format 'metasynth-grid/1', got None"),
    Row("report c.h5", 2, "c.h5: holds no run (config.json is missing)"),
    Row("report ''", 2, "Invalid value for 'RUN...': expected a path, got ''"),
    Row("report run gone", 2, "gone: holds no run (config.json is missing)"),
    Row("report --format pdf run", 2, "No such option '--format'."),
)
def test_report(place: Place, row: Row) -> None:
    place.refuses(row)
