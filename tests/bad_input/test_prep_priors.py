"""Caches that no priors can be estimated from, and places where they cannot be written."""

from bad_input.table import Place, Row, table


@table(
    Row("prep priors", 2, "Missing argument 'CACHE'."),
    Row("prep priors c.h5", 2, "Missing option '--out'."),
    Row("prep priors gone.h5 --out x.json", 1, "gone.h5: cannot be opened: No such file or directory"),
    Row("prep priors text.h5 --out x.json", 1, "text.h5: is not an HDF5 file; expected a metasynth-cache file"),
    Row("prep priors caches/nan.h5 --out x.json", 1, "caches/nan.h5: images hold NaN or infinite values, first in"),
    Row("prep priors maps.h5 --out x.json", 1, "maps.h5: holds labels only; priors are estimated from images"),
    Row("prep priors c.h5 --out x.json --subjects s0,x", 1, "c.h5: subject 'x' is not in this cache of 10 subjects"),
    Row("prep priors c.h5 --out x.json --subjects ''", 1, "c.h5: subject '' is not in this cache of 10 subjects"),
    Row("prep priors c.h5 --out x.json --subjects s0,s0", 1, "c.h5: subjects of a dataset must be different, got ["),
    Row("prep priors c.h5 --out x.h5", 2, "--out x.h5: expected a name that ends in .json, for a file of priors"),
    Row("prep priors c.h5 --out gone/x.json", 2, "--out gone/x.json: the folder gone does not exist"),
    Row(
        "prep priors c.h5 --out run/config.json --overwrite",
        2,
        "--out run/config.json: is there and is no file of priors that metasynth wrote; give another name",
    ),
)
def test_prep_priors(place: Place, row: Row) -> None:
    place.refuses(row)
