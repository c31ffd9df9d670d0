"""Label maps that cannot become a cache, and options that cannot be followed.

One table, and long as it grows by rows.
"""

from bad_input.table import Place, Row, table


@table(
    Row("prep labels --out x.h5", 2, "Missing argument 'PATHS...'."),
    Row("prep labels aseg", 2, "Missing option '--out'."),
    Row("prep labels gone --out x.h5", 2, "PATHS gone: there is no such file or folder"),
    Row("prep labels folder --out x.h5", 2, "PATHS folder: holds no file that ends in .nii.gz, .nii, .mgz, .mgh"),
    Row(
        "prep labels 'aseg/*.mgz' --out x.h5",
        2,
        "PATHS aseg/*.mgz: holds no file that ends in .nii.gz, .nii, .mgz, .mgh",
    ),
    Row(
        "prep labels empty.nii.gz --out x.h5",
        1,
        "no subject could be used: empty: empty.nii.gz: is truncated, damaged or no",
    ),
    Row("prep labels list-gone.txt --out x.h5", 1, "no subject could be used: a: gone/a.nii.gz: the file is missing"),
    Row(
        "prep labels list-empty.txt --out x.h5",
        2,
        "PATHS list-empty.txt: holds no file that ends in .nii.gz, .nii, .mgz, .mgh",
    ),
    Row(
        "prep labels broken --out x.h5",
        1,
        "no subject could be used: s0: broken/s0.nii.gz: is truncated, damaged or no",
    ),
    Row("prep labels series --out x.h5", 1, "no subject could be used: s0: series/s0.nii.gz: expected one volume of 3"),
    Row("prep labels aseg --out c.h5", 2, "--out c.h5: exists already; give another name or --overwrite"),
    Row("prep labels aseg --out folder", 2, "--out folder: expected a name that ends in .h5 or .hdf5, for a cache"),
    Row("prep labels aseg --out gone/x.h5", 2, "--out gone/x.h5: the folder gone does not exist"),
    Row("prep labels aseg --out thesis.tex/x.h5", 2, "--out thesis.tex/x.h5: the folder thesis.tex does not exist"),
    Row("prep labels aseg --out ''", 2, "Invalid value for '--out': expected a path, got ''"),
    Row(
        "prep labels aseg --out x.h5 --mapping gone",
        2,
        "--mapping gone: there is no such mapping or file: there are freesurfer-4,",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping ''",
        2,
        "--mapping : there is no such mapping or file: there are freesurfer-4,",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping folder",
        2,
        "--mapping folder: there is no such mapping or file: there are freesurfer-4,",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping gone.csv",
        2,
        "--mapping gone.csv: there is no such mapping or file: there are freesurfer-4,",
    ),
    Row("prep labels aseg --out x.h5 --mapping empty.csv", 2, "--mapping empty.csv: holds no line 'id,class'"),
    Row(
        "prep labels aseg --out x.h5 --mapping map-negative.csv",
        2,
        "--mapping map-negative.csv, line 2: expected 'id,class', got '-2,white'",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping map-twice.csv",
        2,
        "--mapping map-twice.csv, line 3: id 2 has a class already: 'white'",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping map-columns.csv",
        2,
        "--mapping map-columns.csv, line 2: expected 'id,class', got '1,2,3,4'",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping map-structures.csv",
        2,
        "--mapping map-structures.csv, line 3: expected 'id,class,structure', got '41,white'",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping map-straddling.csv",
        2,
        "--mapping map-straddling.csv, line 2: structure 'tissue' is of two classes: id 2 is 'white', id 3 is 'grey'; "
        "expected one",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping map-halves.csv --generate freesurfer-structures",
        2,
        "--generate freesurfer-structures: structure 'cerebral white matter' is of two classes of --mapping "
        "map-halves.csv: id 2 is 'left', id 41 is 'right'; expected one",
    ),
    Row(
        "prep labels aseg --out x.h5 --generate muse-structures",
        2,
        "--generate muse-structures: cannot go with --mapping freesurfer-4, whose ids are FreeSurfer's; "
        "expected MUSE's",
    ),
    Row(
        "prep labels aseg --out x.h5 --generate gone",
        2,
        "Invalid value for '--generate': 'gone' is not one of 'freesurfer-structures', 'muse-structures'.",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping map.csv",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: mapping map.csv does not name",
    ),
    Row(
        "prep labels aseg --out x.h5 --mapping muse-4",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: mapping muse-4 does not name",
    ),
    Row(
        "prep labels aseg --out x.h5 --unknown ignore",
        2,
        "Invalid value for '--unknown': 'ignore' is not one of 'error', 'background'.",
    ),
    Row(
        "prep labels aseg --out x.h5 --axis oblique",
        2,
        "Invalid value for '--axis': 'oblique' is not one of 'coronal', 'axial',",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices ''",
        2,
        "--slices : expected all, around:N, START:STOP, START:STOP:STEP or I,J,K",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices middle",
        2,
        "--slices middle: expected all, around:N, START:STOP, START:STOP:STEP or I,J,K",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices around:0",
        2,
        "--slices around:0: expected all, around:N, START:STOP, START:STOP:STEP or",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices around:-3",
        2,
        "--slices around:-3: expected all, around:N, START:STOP, START:STOP:STEP or",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices around:x",
        2,
        "--slices around:x: expected all, around:N, START:STOP, START:STOP:STEP or",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices 5:2",
        2,
        "--slices 5:2: expected all, around:N, START:STOP, START:STOP:STEP or I,J,K",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices 0:9:0",
        2,
        "--slices 0:9:0: expected all, around:N, START:STOP, START:STOP:STEP or I,J,K",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices -1,2",
        2,
        "--slices -1,2: expected all, around:N, START:STOP, START:STOP:STEP or I,J,K",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices 1.5",
        2,
        "--slices 1.5: expected all, around:N, START:STOP, START:STOP:STEP or I,J,K",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices 99",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: slice 99 is asked for; the",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices 99:120",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: slices from 99 are asked for;",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices 100000000000000000",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: slice 100000000000000000 ",
    ),
    Row(
        "prep labels aseg --out x.h5 --slices 1000000000000:1000000000009",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: slices from 1000000000000 are",
    ),
    Row("prep labels aseg --out x.h5 --every 0", 2, "--every: expected a number of mm above 0, got 0"),
    Row("prep labels aseg --out x.h5 --every -1", 2, "--every: expected a number of mm above 0, got -1"),
    Row("prep labels aseg --out x.h5 --every nan", 2, "--every: expected a number of mm above 0, got nan"),
    Row("prep labels aseg --out x.h5 --every inf", 2, "--every: expected a number of mm above 0, got inf"),
    Row("prep labels aseg --out x.h5 --every far", 2, "Invalid value for '--every': 'far' is not a valid float."),
    Row(
        "prep labels aseg --out x.h5 --slices around:2 --every 1e300",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: none of the 0 wanted slices",
    ),
    Row(
        "prep labels aseg --out x.h5 --min-content 2",
        2,
        "Invalid value for '--min-content': 2.0 is not in the range 0.0<=x<=1.0.",
    ),
    Row(
        "prep labels aseg --out x.h5 --min-content -0.1",
        2,
        "Invalid value for '--min-content': -0.1 is not in the range 0.0<=x<=1.0.",
    ),
    Row(
        "prep labels aseg --out x.h5 --min-content much",
        2,
        "Invalid value for '--min-content': 'much' is not a valid float range.",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing 0",
        2,
        "--spacing 0: expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing -1",
        2,
        "--spacing -1: expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing nan",
        2,
        "--spacing nan: expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing inf",
        2,
        "--spacing inf: expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing 1,2",
        2,
        "--spacing 1,2: expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing 1mm",
        2,
        "--spacing 1mm: expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing ''",
        2,
        "--spacing : expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing 1e9",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: --spacing 1e+09 x 1e+09 x",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing 1e-9",
        1,
        "no subject could be used: s0: aseg/s0.nii.gz: a grid of 1.4e+10 x",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing 1e400",
        2,
        "--spacing 1e400: expected one number of mm above 0, or three with commas",
    ),
    Row(
        "prep labels aseg --out x.h5 --spacing 1e-9 --transforms matrix",
        2,
        "--spacing 1e-09 x 1e-09 x 1e-09: a grid of 1.96e+11 x 2.32e+11 x 1.88e+11",
    ),
    Row(
        "prep labels aseg --out x.h5 --interpolation cubic",
        2,
        "Invalid value for '--interpolation': 'cubic' is not one of 'majority',",
    ),
    Row(
        "prep labels aseg --out x.h5 --align warp",
        2,
        "Invalid value for '--align': 'warp' is not one of 'none', 'transforms',",
    ),
    Row("prep labels aseg --out x.h5 --align transforms", 2, "--align transforms: needs --transforms PATH"),
    Row(
        "prep labels aseg --out x.h5 --align rigid --transforms matrix", 2, "--align rigid: cannot go with --transforms"
    ),
    Row(
        "prep labels aseg --out x.h5 --transforms gone.txt", 2, "--transforms gone.txt: there is no such file or folder"
    ),
    Row(
        "prep labels aseg --out x.h5 --transforms folder",
        2,
        "--transforms folder: holds no file that ends in .xfm, .txt, .mat",
    ),
    Row(
        "prep labels aseg --out x.h5 --transforms matrix",
        1,
        "no subject could be used: s1: has no transform; none of the 1 files given is",
    ),
    Row(
        "prep labels aseg/s0.nii.gz --out x.h5 --transforms singular",
        1,
        "no subject could be used: s0: singular/s0.txt: the transform is singular or",
    ),
    Row(
        "prep labels aseg/s0.nii.gz --out x.h5 --transforms words",
        1,
        "no subject could be used: s0: words/s0.txt: expected an .xfm file or rows of",
    ),
    Row(
        "prep labels aseg/s0.nii.gz --out x.h5 --transforms short",
        1,
        "no subject could be used: s0: short/s0.txt: expected 3 or 4 rows of 4",
    ),
    Row(
        "prep labels aseg/s0.nii.gz --out x.h5 --transforms tiny",
        1,
        "no subject could be used: s0: tiny/s0.txt: the transform is singular or not",
    ),
    Row(
        "prep labels aseg/s0.nii.gz --out x.h5 --transforms endless",
        1,
        "no subject could be used: s0: endless/s0.txt: the transform is singular or",
    ),
    Row("prep labels aseg --out x.h5 --margin -1", 2, "--margin: expected 0 mm or more, got -1"),
    Row("prep labels aseg --out x.h5 --margin nan", 2, "--margin: expected 0 mm or more, got nan"),
    Row("prep labels aseg --out x.h5 --margin wide", 2, "Invalid value for '--margin': 'wide' is not a valid float."),
    Row("prep labels aseg --out x.h5 --margin inf", 2, "--margin: expected 0 mm or more, got inf"),
    Row(
        "prep labels aseg --out x.h5 --margin 1000000",
        2,
        "--margin, --divisor: a cache of items of 2.00002e+06 x 2.00002e+06 takes ",
        ("x.h5.work",),
    ),
    Row(
        "prep labels aseg --out x.h5 --margin 1e308",
        2,
        "--margin, --divisor: a cache of items of 1e+300 x 1e+300 takes ",
        ("x.h5.work",),
    ),
    Row("prep labels aseg --out x.h5 --size 0,0", 2, "--size 0 x 0: expected lengths above 0"),
    Row("prep labels aseg --out x.h5 --size 16", 2, "--size 16: expected H,W or D,H,W"),
    Row("prep labels aseg --out x.h5 --size 16,16,16", 2, "--size 16 x 16 x 16: expected two lengths for slices"),
    Row("prep labels aseg --out x.h5 --size 16,16 --3d", 2, "--size 16 x 16: expected three lengths for volumes"),
    Row(
        "prep labels aseg --out x.h5 --size 15,15",
        2,
        "--size 15 x 15: expected lengths divisible by 16 (see --divisor)",
    ),
    Row("prep labels aseg --out x.h5 --size -16,16", 2, "--size -16,16: expected H,W or D,H,W"),
    Row("prep labels aseg --out x.h5 --size a,b", 2, "--size a,b: expected H,W or D,H,W"),
    Row("prep labels aseg --out x.h5 --size ''", 2, "--size : expected H,W or D,H,W"),
    Row(
        "prep labels aseg --out x.h5 --size 16000000,16000000",
        2,
        "--size: a cache of items of 1.6e+07 x 1.6e+07 takes ",
    ),
    Row(
        "prep labels aseg --out x.h5 --3d --size 160000,160000,160000",
        2,
        "--size: a cache of items of 160000 x 160000 x 160000 takes ",
    ),
    Row("prep labels aseg --out x.h5 --divisor 0", 2, "Invalid value for '--divisor': 0 is not in the range x>=1."),
    Row("prep labels aseg --out x.h5 --divisor -16", 2, "Invalid value for '--divisor': -16 is not in the range x>=1."),
    Row(
        "prep labels aseg --out x.h5 --divisor x", 2, "Invalid value for '--divisor': 'x' is not a valid integer range."
    ),
    Row(
        "prep labels aseg --out x.h5 --divisor 1000000000",
        2,
        "--margin, --divisor: a cache of items of 1e+09 x 1e+09 takes ",
    ),
    Row("prep labels aseg --out x.h5 --jobs 0", 2, "Invalid value for '--jobs': 0 is not in the range x>=1."),
    Row("prep labels aseg --out x.h5 --jobs 100000", 2, "--jobs: expected at most "),
    Row("prep labels aseg --out x.h5 --masks masks", 2, "No such option '--masks'. Did you mean '--axis'?"),
)
def test_prep_labels(place: Place, row: Row) -> None:
    place.refuses(row)
