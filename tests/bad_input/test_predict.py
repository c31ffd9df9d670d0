"""Models, scans and masks that cannot be used."""

from bad_input.table import Place, Row, table


@table(
    Row("predict", 2, "Missing argument 'INPUT...'."),
    Row("predict folder --out o", 2, "INPUT folder: holds no file that ends in .nii.gz, .nii, .mgz, .mgh"),
    Row("predict gone --out o", 2, "INPUT gone: there is no such file or folder"),
    Row("predict images --out o --stage learn", 2, "--stage learn: is that of a run; expected --model RUN with it"),
    Row("predict images --out o --model gone", 2, "gone: there is no such model file or folder of a run"),
    Row("predict images --out o --model ''", 2, "'': there is no such model file or folder of a run"),
    Row("predict images --out o --model folder", 2, "folder: holds no trained segmenter (models/*.pt)"),
    Row("predict model.pt --out o", 2, "Missing argument 'INPUT...'."),
    Row("predict model.pt images", 2, "Missing option '--out'."),
    Row("predict gone.pt images --out o", 2, "gone.pt: there is no such model file or folder of a run"),
    Row("predict folder images --out o", 2, "folder: holds no trained segmenter (models/*.pt)"),
    Row(
        "predict empty images --out o",
        1,
        "empty: the model is damaged or no metasynth-model file (it does not end as",
    ),
    Row(
        "predict text.pt images --out o",
        1,
        "text.pt: the model is damaged or no metasynth-model file (it does not end as",
    ),
    Row(
        "predict short.pt images --out o",
        1,
        "short.pt: the model is damaged or no metasynth-model file (it does not end as",
    ),
    Row(
        "predict foreign.pt images --out o",
        1,
        "foreign.pt: is not a metasynth-model file; a run keeps its segmenters in",
    ),
    Row(
        "predict list.pt images --out o",
        1,
        "list.pt: the model holds a list, not a dict",
    ),
    Row("predict c.h5 images --out o", 1, "c.h5: the model is damaged or no metasynth-model file (it does not end as"),
    Row(
        "predict --model images/s0.nii.gz images --out o",
        1,
        "images/s0.nii.gz: the model is damaged or no metasynth-model file (it does not end as",
    ),
    Row(
        "predict unfinished images --out o --stage gone",
        2,
        "--stage gone: unfinished holds no segmenter of this stage; it has",
    ),
    Row(
        "predict model.pt images --out o --stage learn",
        2,
        "--stage learn: model.pt is a model file; stages are those of a run's folder",
    ),
    Row("predict model.pt gone --out o", 2, "INPUT gone: there is no such file or folder"),
    Row("predict model.pt folder --out o", 2, "INPUT folder: holds no file that ends in .nii.gz, .nii, .mgz, .mgh"),
    Row("predict model.pt thesis.tex --out o", 1, "1 of 1 scans failed: thesis", ("o",)),
    Row("predict model.pt list-gone.txt --out o --stripped", 1, "1 of 1 scans failed: a", ("o",)),
    Row(
        "predict model.pt list-empty.txt --out o",
        2,
        "INPUT list-empty.txt: holds no file that ends in .nii.gz, .nii, .mgz, .mgh",
    ),
    Row("predict model.pt broken --out o --stripped", 1, "1 of 1 scans failed: s0", ("o",)),
    Row("predict model.pt series --out o --stripped", 1, "1 of 1 scans failed: s0", ("o",)),
    Row(
        "predict model.pt images --out images --stripped",
        2,
        "--out images: is where the input images/s0.nii.gz lies; give another folder",
    ),
    Row("predict model.pt images --out o --masks gone", 2, "--masks gone: there is no such file or folder"),
    Row(
        "predict model.pt images --out o --masks others",
        2,
        "--masks: none of the 1 files given has the name of an input",
    ),
    Row(
        "predict model.pt images --out o --masks folder",
        2,
        "--masks folder: holds no file that ends in .nii.gz, .nii, .mgz, .mgh",
    ),
    Row(
        "predict model.pt images --out o --device cuda:0",
        2,
        "--device cuda:0: torch sees no CUDA device here; choose cpu or auto",
    ),
    Row(
        "predict model.pt images --out o --device mps",
        2,
        "--device mps: torch sees no GPU of Apple's here; choose cpu or auto",
    ),
    Row(
        "predict model.pt images --out o --device tpu",
        2,
        "Invalid value for '--device': 'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'.",
    ),
    Row("predict model.pt images --out o --threads 0", 2, "Invalid value for '--threads': 0 is not in the range x>=1."),
    Row("predict model.pt images --out o --threads 100000", 2, "--threads: expected at most "),
    Row(
        "predict model.pt images --out o --masks masks --stripped --volume x",
        2,
        "No such option '--volume'. (Did you mean one of: '--out', '--volumes'?)",
    ),
    Row("predict model.pt folder --bids", 2, "folder: holds no image called sub-*_T1w.nii.gz in an anat folder"),
    Row("predict model.pt images --out o --ids freesurfer", 2, "--ids freesurfer: FreeSurfer has no id for "),
    Row("predict model.pt images --out o --ids muse", 2, "Invalid value for '--ids': 'muse' is not one of "),
    Row("predict model.pt images --out o --volumes v.xls", 2, "--volumes v.xls: expected a name that ends in .csv or "),
    Row("predict '' images --out o", 2, "Invalid value for 'INPUT...': expected a path, got ''"),
    Row("predict model.pt images --out ''", 2, "Invalid value for '--out': expected a path, got ''"),
)
def test_predict(place: Place, row: Row) -> None:
    place.refuses(row)
