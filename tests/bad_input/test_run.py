"""What `metasynth run` is given beside settings.

One table, and long as it grows by rows.
"""

from bad_input.table import Place, Row, table


@table(
    Row("run", 2, "Missing argument 'EXPERIMENT'."),
    Row("run nosie", 2, "unknown experiment 'nosie': did you mean 'noise'? (experiments:"),
    Row("run noise inu", 2, "Got unexpected extra argument (inu)"),
    Row("run ''", 2, "unknown experiment '': choose from cross_contrast, hyper_cleaning, inu,"),
    Row("run é", 2, "unknown experiment 'é': choose from cross_contrast, hyper_cleaning, inu,"),
    Row("run noise --data gone.h5", 1, "gone.h5: cannot be opened: No such file or directory"),
    Row("run noise --data folder", 1, "folder: cannot be opened: Is a directory"),
    Row("run noise --data ''", 2, "Invalid value for '--data': expected a path, got ''"),
    Row("run noise --data empty.h5", 1, "empty.h5: is not an HDF5 file; expected a metasynth-cache file"),
    Row("run noise --data text.h5", 1, "text.h5: is not an HDF5 file; expected a metasynth-cache file"),
    Row("run noise --data model.pt", 1, "model.pt: is not an HDF5 file; expected a metasynth-cache file"),
    Row(
        "run noise --data images/s0.nii.gz", 1, "images/s0.nii.gz: is not an HDF5 file; expected a metasynth-cache file"
    ),
    Row("run noise --data two.h5", 1, "two.h5: a split into train, val and test needs at least 3 subjects and one of"),
    Row("run noise --data odd.h5", 1, "odd.h5: images of 16 x 15 cannot be halved 3 times; expected sizes divisible"),
    Row(
        "run noise --data maps.h5 --label-cache maps.h5",
        2,
        "--label-cache maps.h5: experiment 'noise' takes no label maps of their own",
    ),
    Row("run hyper_cleaning --data c.h5", 2, "this experiment has its own data; leave --data out"),
    Row("run ridge --data c.h5", 2, "this experiment has its own data; leave --data out"),
    Row("run sinusoid --data c.h5", 2, "this experiment has its own data; leave --data out"),
    Row(
        "run ridge --label-cache maps.h5",
        2,
        "--label-cache maps.h5: experiment 'ridge' takes no label maps of their own",
    ),
    Row("run ridge --start model.pt", 2, "--start model.pt: experiment 'ridge' trains no segmenter"),
    Row("run noise --data c.h5 --start ''", 2, "'': there is no such model file or folder of a run"),
    Row("run noise --data c.h5 --start gone.pt", 2, "gone.pt: there is no such model file or folder of a run"),
    Row("run noise --data c.h5 --start folder", 2, "folder: holds no trained segmenter (models/*.pt)"),
    Row("run noise --data c.h5 --start text.pt", 1, "text.pt: the model is damaged or no metasynth-model file"),
    Row("run noise --data c.h5 --start short.pt", 1, "short.pt: the model is damaged or no metasynth-model file"),
    Row(
        "run noise --data c.h5 --start model.pt",
        1,
        "model.pt: expected the classes of c.h5; class 1 is 'white matter' there, 'dark' here",
    ),
    Row(
        "run real_world --data c.h5 --start run --set segmenter.widths=8,16",
        2,
        "segmenter.widths: expected 4,8, as in ",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.start=gone.pt",
        2,
        "gone.pt: there is no such model file or folder of a run",
    ),
    Row(
        "run real_world --data maps.h5",
        1,
        "maps.h5: holds labels only; a comparison on real images needs their images too",
    ),
    Row("run real_world --data gone.h5", 1, "gone.h5: cannot be opened: No such file or directory"),
    Row("run real_world --data c.h5 --label-cache gone.h5", 1, "gone.h5: cannot be opened: No such file or directory"),
    Row(
        "run real_world --data c.h5 --label-cache text.h5",
        1,
        "text.h5: is not an HDF5 file; expected a metasynth-cache file",
    ),
    Row(
        "run real_world --data c.h5 --label-cache volumes.h5",
        1,
        "volumes.h5: expected coronal slices of orientation IR as in c.h5, got volume",
    ),
    Row("run cross_contrast --data c.h5", 2, "tests: needs caches of other contrasts beside --data, --set"),
    Row(
        "run unpaired --data maps.h5",
        1,
        "maps.h5: holds labels only; a comparison on real images needs their images too",
    ),
    Row(
        "run noise --data c.h5 --seed -1",
        2,
        "Invalid value for '--seed': -1 is not in the range 0<=x<=9223372036854775807.",
    ),
    Row("run noise --data c.h5 --seed 1.5", 2, "Invalid value for '--seed': '1.5' is not a valid integer range."),
    Row("run noise --data c.h5 --seed x", 2, "Invalid value for '--seed': 'x' is not a valid integer range."),
    Row("run noise --data c.h5 --seed ''", 2, "Invalid value for '--seed': '' is not a valid integer range."),
    Row(
        "run noise --data c.h5 --seed 99999999999999999999",
        2,
        "Invalid value for '--seed': 99999999999999999999 is not in the range",
    ),
    Row("run noise --data c.h5 --seed 1 --seed y", 2, "Invalid value for '--seed': 'y' is not a valid integer range."),
    Row(
        "run noise --data c.h5 --device tpu",
        2,
        "Invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'.",
    ),
    Row(
        "run noise --data c.h5 --device cuda:99",
        2,
        "--device cuda:99: torch sees no CUDA device here; choose cpu or auto",
    ),
    Row(
        "run noise --data c.h5 --device cuda:x",
        2,
        "Invalid value for '--device': 'cuda:x' is not one of 'auto', 'cpu', 'cuda', 'mps'.",
    ),
    Row(
        "run noise --data c.h5 --device ''",
        2,
        "Invalid value for '--device': '' is not one of 'auto', 'cpu', 'cuda', 'mps'.",
    ),
    Row("run noise --data c.h5 --threads 0", 2, "Invalid value for '--threads': 0 is not in the range x>=1."),
    Row("run noise --data c.h5 --threads -1", 2, "Invalid value for '--threads': -1 is not in the range x>=1."),
    Row(
        "run noise --data c.h5 --threads many", 2, "Invalid value for '--threads': 'many' is not a valid integer range."
    ),
    Row("run noise --data c.h5 --threads 100000", 2, "--threads: expected at most "),
    Row("run noise --data c.h5 --jobs 2", 2, "--jobs: is for several runs; give --seeds N or --vary KEY=V1,V2,... too"),
    Row("run noise --data c.h5 --resume", 2, "--resume: needs --out DIR, the folder of the run to continue"),
    Row("run noise --resume --out gone", 2, "gone: holds no run (config.json is missing)"),
    Row("run noise --resume --out folder", 2, "folder: holds no run (config.json is missing)"),
    Row("run noise --resume --out thesis.tex", 2, "thesis.tex: holds no run (config.json is missing)"),
    Row("run noise --resume --out full", 2, "full: holds no run (config.json is missing)"),
    Row("run noise --resume --out foreign", 2, "foreign: holds a run of 'inu', not of 'noise'"),
    Row(
        "run noise --resume --out unfinished --seed 5", 2, "unfinished: cannot resume with other settings: seed: 0 -> 5"
    ),
    Row(
        "run noise --resume --out unfinished --preset standard",
        2,
        "unfinished: cannot resume with other settings: preset: 'quick' -> 'standard';",
    ),
    Row(
        "run noise --resume --out unfinished --data maps.h5",
        2,
        "unfinished: cannot resume with other settings: data.digest:",
    ),
    Row("run inu --resume --out unfinished", 2, "unfinished: holds a run of 'noise', not of 'inu'"),
    Row(
        "run noise --resume --out unfinished --data gone.h5", 1, "gone.h5: cannot be opened: No such file or directory"
    ),
    Row(
        "run noise --data c.h5 --out run", 2, "run: holds another run; continue it with --resume or give another --out"
    ),
    Row("run noise --data c.h5 --out full", 2, "full: is not empty (it holds main.tex); give another --out"),
    Row(
        "run noise --data c.h5 --out thesis.tex",
        2,
        "thesis.tex: cannot hold a run: a file is in the way; give another --out",
    ),
    Row(
        "run noise --data c.h5 --out thesis.tex/below",
        2,
        "thesis.tex/below: cannot hold a run: a file is in the way; give another --out",
    ),
    Row("run noise --data c.h5 --out ''", 2, "Invalid value for '--out': expected a path, got ''"),
    Row("run noise --data c.h5 --quiet --quieter", 2, "No such option '--quieter'. Did you mean '--quiet'?"),
    Row("run noise --data c.h5 --out", 2, "Option '--out' requires an argument."),
    Row(
        "run noise --preset huge --data c.h5",
        2,
        "experiment 'noise' has no preset 'huge': choose from paper, quick, quick-3d, standard",
    ),
    Row(
        "run noise --preset QUICK --data c.h5",
        2,
        "experiment 'noise' has no preset 'QUICK': choose from paper, quick, quick-3d, standard",
    ),
    Row(
        "run noise --preset '' --data c.h5",
        2,
        "experiment 'noise' has no preset '': choose from paper, quick, quick-3d, standard",
    ),
    Row("run real_world --data c.h5 --label-cache ''", 2, "Invalid value for '--label-cache': expected a path, got ''"),
)
def test_run(place: Place, row: Row) -> None:
    place.refuses(row)
