"""Many runs at once: seeds, values that are varied, processes, folders of earlier ones."""

from bad_input.table import Place, Row, table


@table(
    Row(
        "run noise --resume --out grid-text",
        1,
        "grid-text/grid.json: is not valid JSON: Expecting value: line 1 column 1",
    ),
    Row(
        "run noise --resume --out grid-list",
        2,
        "grid-list/grid.json: expected a grid of format 'metasynth-grid/1', got None",
    ),
    Row("run noise --data c.h5 --out grid", 2, "grid: is not empty (it holds grid.json); give another --out"),
    Row("run noise --data c.h5 --seeds 0", 2, "Invalid value for '--seeds': 0 is not in the range x>=1."),
    Row("run noise --data c.h5 --seeds -1", 2, "Invalid value for '--seeds': -1 is not in the range x>=1."),
    Row("run noise --data c.h5 --seeds x", 2, "Invalid value for '--seeds': 'x' is not a valid integer range."),
    Row("run noise --data c.h5 --seeds 2.5", 2, "Invalid value for '--seeds': '2.5' is not a valid integer range."),
    Row(
        "run noise --data c.h5 --seeds 1000000000",
        2,
        "--seeds, --vary: expected at most 100000 runs of one grid, got 1000000000",
    ),
    Row(
        "run noise --data c.h5 --seeds 2 --seed 9223372036854775807",
        2,
        "--seeds 2: expected seeds of at most 9223372036854775807, got",
    ),
    Row("run noise --data c.h5 --seeds 2 --jobs 0", 2, "Invalid value for '--jobs': 0 is not in the range x>=1."),
    Row("run noise --data c.h5 --seeds 2 --jobs -3", 2, "Invalid value for '--jobs': -3 is not in the range x>=1."),
    Row("run noise --data c.h5 --seeds 2 --jobs 100000", 2, "--jobs: expected at most "),
    Row("run noise --data c.h5 --seeds 2 --threads 100000", 2, "--threads: expected at most "),
    Row(
        "run noise --data c.h5 --seeds 2 --preset huge",
        2,
        "experiment 'noise' has no preset 'huge': choose from paper, quick, quick-3d, standard",
    ),
    Row(
        "run noise --data c.h5 --seeds 2 --preset ''",
        2,
        "experiment 'noise' has no preset '': choose from paper, quick, quick-3d, standard",
    ),
    Row("run noise --data gone.h5 --seeds 2", 1, "gone.h5: cannot be opened: No such file or directory"),
    Row("run noise --data folder --seeds 2", 1, "folder: cannot be opened: Is a directory"),
    Row("run noise --data text.h5 --seeds 2", 1, "text.h5: is not an HDF5 file; expected a metasynth-cache file"),
    Row(
        "run noise --data two.h5 --seeds 2",
        1,
        "two.h5: a split into train, val and test needs at least 3 subjects and one of",
    ),
    Row(
        "run noise --data c.h5 --seeds 2 --label-cache maps.h5",
        2,
        "--label-cache maps.h5: experiment 'noise' takes no label maps of their own",
    ),
    Row("run noise --data c.h5 --seeds 2 --out full", 2, "full: is not empty (it holds main.tex); give another --out"),
    Row(
        "run noise --data c.h5 --seeds 2 --out run",
        2,
        "run: holds another run; continue it with --resume or give another --out",
    ),
    Row(
        "run noise --data c.h5 --seeds 2 --out grid",
        2,
        "grid: holds another grid; continue it with --resume or give another --out",
    ),
    Row(
        "run noise --data c.h5 --seeds 2 --out thesis.tex",
        2,
        "thesis.tex: cannot hold a run: a file is in the way; give another --out",
    ),
    Row("run noise --data c.h5 --seeds 2 --resume --out folder", 2, "folder: holds no grid (grid.json is missing)"),
    Row("run noise --data c.h5 --seeds 2 --resume --out run", 2, "run: holds no grid (grid.json is missing)"),
    Row(
        "run noise --seeds 3 --resume --out grid",
        2,
        "grid: cannot resume with other settings: seeds: [0, 1] -> [0, 1, 2]",
    ),
    Row(
        "run noise --vary start=0.2 --resume --out grid",
        2,
        "grid: cannot resume with other settings: vary.start: ['0.3'] -> ['0.2']",
    ),
    Row("run inu --resume --out grid", 2, "grid: cannot resume with other settings: experiment: 'noise' -> 'inu'"),
    Row(
        "run noise --resume --out grid --preset standard",
        2,
        "grid: cannot resume with other settings: preset: 'quick' -> 'standard'",
    ),
    Row(
        "run noise --resume --out grid --threads 1000000",
        2,
        "grid: cannot resume with other settings: threads: 1 -> 1000000",
    ),
    Row("run noise --data c.h5 --vary", 2, "Option '--vary' requires an argument."),
    Row("run noise --data c.h5 --vary ''", 2, "--vary : expected KEY=V1,V2,..., for example --vary start=0.02,0.4"),
    Row("run noise --data c.h5 --vary =", 2, "--vary =: expected KEY=V1,V2,..., for example --vary start=0.02,0.4"),
    Row(
        "run noise --data c.h5 --vary start",
        2,
        "--vary start: expected KEY=V1,V2,..., for example --vary start=0.02,0.4",
    ),
    Row(
        "run noise --data c.h5 --vary start=",
        2,
        "--vary start=: expected KEY=V1,V2,..., for example --vary start=0.02,0.4",
    ),
    Row(
        "run noise --data c.h5 --vary start=0.1,,0.2",
        2,
        "--vary start=0.1,,0.2: expected KEY=V1,V2,..., for example --vary",
    ),
    Row("run noise --data c.h5 --vary start=0.1,x", 2, "start: expected a finite number, got 'x'"),
    Row("run noise --data c.h5 --vary start=0.1,-1", 2, "--set start: start must be a positive number, got -1.0"),
    Row("run noise --data c.h5 --vary start=0.1,0.10", 2, "--vary: start=0.1 and start=0.10 are the same settings"),
    Row(
        "run noise --data c.h5 --vary start=0.1 --vary start=0.2",
        2,
        "--vary start=0.2: start is varied already; give all of its values at once",
    ),
    Row("run noise --data c.h5 --vary sgima=1,2", 2, "unknown setting 'sgima': did you mean 'sigma'?"),
    Row(
        "run noise --data c.h5 --vary outer=1,2",
        2,
        "setting 'outer' is a group: set one of outer.lr, outer.network_lr,",
    ),
    Row("run noise --data c.h5 --vary start=0.1,0.2 --set start=0.3", 2, "--vary start: is given with --set too"),
    Row(
        "run noise --data c.h5 --vary start=0.1,0.2 --set strat=0.3",
        2,
        "unknown setting 'strat': did you mean 'start'?",
    ),
    Row(
        "run noise --data c.h5 --vary segmenter.steps=5,100000000000",
        2,
        "--set segmenter: outer.warmup must be below segmenter.steps = 5, got 200",
    ),
    Row(
        "run noise --data c.h5 --vary 'segmenter.widths=8,16;1000000,1000000'",
        2,
        "segmenter.batch_size, segmenter.widths: a step on 8 images of 16 x 16 takes ",
    ),
    Row(
        "run noise --data c.h5 --vary test_repeats=1,100000000",
        2,
        "test_repeats: a test set of 400000000 images of 16 x 16 takes ",
    ),
    Row(
        "run noise --data c.h5 --vary start=0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0 --vary "
        "outer.lr=1,2,3,4,5,6,7,8,9,10 --vary segmenter.lr=1,2,3,4,5,6,7,8,9,10 --vary "
        "outer.hold=1,2,3,4,5,6,7,8,9,10 --vary outer.settle=1,2,3,4,5,6,7,8,9,10 --seeds 2",
        2,
        "--seeds, --vary: expected at most 100000 runs of one grid, got 200000",
    ),
    Row(
        "run noise --data c.h5 --vary generator=batched,torchio",
        2,
        "generator: expected one of batched, cornucopia, got 'torchio'",
    ),
    Row("run ridge --data c.h5 --vary features=3,4", 2, "this experiment has its own data; leave --data out"),
)
def test_run_many(place: Place, row: Row) -> None:
    place.refuses(row)
