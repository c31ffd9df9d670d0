"""Label maps and options that give no scores."""

from bad_input.table import Place, Row, table


@table(
    Row("evaluate", 2, "Missing argument 'PREDICTIONS'."),
    Row("evaluate aseg", 2, "Missing argument 'REFERENCES'."),
    Row("evaluate aseg aseg", 2, "Missing option '--out'."),
    Row("evaluate gone aseg --out t.csv", 2, "PREDICTIONS gone: there is no such file or folder"),
    Row("evaluate aseg gone --out t.csv", 2, "REFERENCES gone: there is no such file or folder"),
    Row(
        "evaluate folder aseg --out t.csv",
        2,
        "PREDICTIONS folder: holds no file that ends in .nii.gz, .nii, .mgz, .mgh",
    ),
    Row(
        "evaluate aseg folder --out t.csv", 2, "REFERENCES folder: holds no file that ends in .nii.gz, .nii, .mgz, .mgh"
    ),
    Row("evaluate aseg others --out t.csv", 2, "aseg and others: no name is in both: aseg/s0.nii.gz: has no"),
    Row(
        "evaluate aseg thesis.tex --out t.csv",
        2,
        "aseg and thesis.tex: no name is in both: aseg/s0.nii.gz: has no",
    ),
    Row("evaluate aseg aseg --out map.csv", 2, "--out map.csv: is there and is no table of scores that"),
    Row("evaluate aseg aseg --out folder", 2, "--out folder: expected a name that ends in .csv, for a table of scores"),
    Row(
        "evaluate aseg aseg --out thesis.tex/t.csv",
        2,
        "--out thesis.tex/t.csv: thesis.tex is no folder; give",
    ),
    Row("evaluate aseg aseg --out t.csv --classes ''", 2, "--classes : expected numbers, got ''"),
    Row("evaluate aseg aseg --out t.csv --classes cortex", 2, "--classes cortex: expected numbers, got 'cortex'"),
    Row("evaluate aseg aseg --out t.csv --classes -1", 2, "--classes -1: expected numbers, got '-1'"),
    Row("evaluate aseg aseg --out t.csv --classes 1.5", 2, "--classes 1.5: expected numbers, got '1.5'"),
    Row(
        "evaluate aseg aseg --out t.csv --mapping gone",
        2,
        "--mapping gone: there is no such mapping or file: there are freesurfer-4,",
    ),
    Row("evaluate aseg aseg --out t.csv --mapping empty.csv", 2, "--mapping empty.csv: holds no line 'id,class'"),
    Row("evaluate aseg aseg --out t.csv --mapping muse-4", 1, "2 of 2 subjects failed: s0, s1"),
    Row(
        "evaluate aseg aseg --out t.csv --unknown maybe",
        2,
        "Invalid value for '--unknown': 'maybe' is not one of 'error', 'background'.",
    ),
    Row("evaluate broken aseg --out t.csv", 1, "1 of 1 subjects failed: s0"),
    Row("evaluate aseg broken --out t.csv", 1, "1 of 1 subjects failed: s0"),
    Row("evaluate series aseg --out t.csv", 1, "1 of 1 subjects failed: s0"),
    Row("evaluate aseg aseg aseg --out t.csv", 2, "Got unexpected extra argument (aseg)"),
    Row("evaluate aseg aseg --out ''", 2, "Invalid value for '--out': expected a path, got ''"),
)
def test_evaluate(place: Place, row: Row) -> None:
    place.refuses(row)
