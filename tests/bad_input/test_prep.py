"""The other commands that make caches."""

from bad_input.table import Place, Row, table


@table(
    Row("prep templat", 2, "no command 'templat': did you mean 'template'?"),
    Row(
        "prep template --cohort tmplate-64",
        2,
        "--cohort tmplate-64: there is no such cohort: did you mean 'template-64'?",
    ),
    Row("prep template --cohort ''", 2, "--cohort : there is no such cohort: choose from flash-20-192, flash-20-64,"),
    Row(
        "prep template --cohort template-1000000", 2, "--cohort template-1000000: there is no such cohort: did you mean"
    ),
    Row("prep template --out c.h5", 2, "--out c.h5: exists already; give another name"),
    Row("prep template --out folder", 2, "--out folder: exists already; give another name"),
    Row("prep remap c.h5 --out x.h5", 2, "Missing option '--curve'."),
    Row("prep remap c.h5 --curve bent", 2, "Missing option '--out'."),
    Row("prep remap c.h5 --curve '' --out x.h5", 2, "--curve '': expected inverted, bent or points X:Y,X:Y,..., got"),
    Row("prep remap c.h5 --curve 0:0,1:2 --out x.h5", 2, "--curve '0:0,1:2': x and y must be numbers in [0, 1], got 2"),
    Row("prep remap c.h5 --curve bent --out c.h5", 2, "--out c.h5: is the input; give another name"),
    Row("prep remap c.h5 --curve bent --out thesis.tex", 2, "--out thesis.tex: expected a name that ends in .h5 or"),
    Row("prep remap gone.h5 --curve bent --out x.h5", 1, "gone.h5: cannot be opened: No such file or directory"),
    Row("prep remap thesis.tex --curve bent --out x.h5", 1, "thesis.tex: is not an HDF5 file"),
    Row("prep remap maps.h5 --curve bent --out x.h5", 1, "maps.h5: holds labels only; prep remap needs images"),
    Row("prep remap caches/cut.h5 --curve bent --out x.h5", 1, "caches/cut.h5: is truncated or damaged"),
    Row("prep remap caches/nan.h5 --curve bent --out x.h5", 1, "caches/nan.h5: images hold NaN or infinite values"),
    Row("prep nifti --out x.h5", 2, "Missing option '--images'."),
    Row("prep nifti --images images --out x.h5", 2, "Missing option '--labels'."),
    Row("prep nifti --labels aseg --out x.h5", 2, "Missing option '--images'."),
    Row("prep nifti --images gone --labels aseg --out x.h5", 2, "--images gone: there is no such file or folder"),
    Row("prep nifti --images images --labels gone --out x.h5", 2, "--labels gone: there is no such file or folder"),
    Row(
        "prep nifti --images images --labels folder --out x.h5",
        2,
        "--labels folder: holds no file that ends in .nii.gz, .nii, .mgz, .mgh",
    ),
    Row(
        "prep nifti --images images --labels others --out x.h5",
        1,
        "no subject could be used: s0: images/s0.nii.gz: has no label map; none is",
    ),
    Row(
        "prep nifti --images broken --labels aseg --out x.h5",
        1,
        "no subject could be used: s1: aseg/s1.nii.gz: has no image; none is called s1",
    ),
    Row(
        "prep nifti --images series --labels aseg --out x.h5",
        1,
        "no subject could be used: s1: aseg/s1.nii.gz: has no image; none is called s1",
    ),
    Row(
        "prep nifti --images images --labels aseg --masks gone --out x.h5",
        2,
        "--masks gone: there is no such file or folder",
    ),
    Row(
        "prep nifti --images images --labels aseg --masks others --out x.h5",
        1,
        "no subject could be used: s0: has no mask; none of the 1 files given is",
    ),
    Row(
        "prep nifti --images images --labels aseg --out c.h5",
        2,
        "--out c.h5: exists already; give another name or --overwrite",
    ),
    Row(
        "prep nifti --images images --labels muse --mapping freesurfer-4 --out x.h5",
        1,
        "no subject could be used: s0: muse/s0.nii.gz: mapping freesurfer-4 does not",
    ),
    Row("prep nnunet gone --out x.h5", 2, "FOLDER gone: there is no such folder"),
    Row("prep nnunet nnunet/heads", 2, "Missing option '--out'."),
    Row("prep nnunet folder --out x.h5", 2, "folder: expected a raw data set of nnU-Net; dataset.json is missing"),
    Row(
        "prep nnunet nnunet/pictures --out x.h5",
        1,
        "nnunet/pictures/dataset.json: file_ending: expected one of .nii.gz,",
    ),
    Row(
        "prep nnunet nnunet/gaps --out x.h5",
        1,
        "nnunet/gaps/dataset.json: labels: expected the numbers 0, 1, ... without a gap, got a: 0, b: 2",
    ),
    Row("prep nnunet nnunet/heads --out x.h5", 2, "nnunet/heads/dataset.json: has 2 channels, 0 (T1), 1 (PD), and a"),
    Row("prep nnunet nnunet/heads --channel T2 --out x.h5", 2, "--channel T2: expected one of 0 (T1), 1 (PD)"),
    Row(
        "prep nnunet nnunet/heads --channel T1 --out x.h5",
        1,
        "no subject could be used: s0: nnunet/heads/imagesTr: has no label map; nnunet/heads/labelsTr/s0.nii.gz is",
    ),
    Row(
        "prep nnunet nnunet/heads --channel T1 --mapping gone --out x.h5",
        2,
        "--mapping gone: there is no such mapping or file",
    ),
    Row(
        "prep nnunet nnunet/heads --channel T1 --no-strip --masks masks --out x.h5",
        2,
        "--masks: cannot go with --no-strip, as images of whole heads need no mask",
    ),
    Row("prep freesurfer gone --out x.h5", 2, "SUBJECTS_DIR gone: there is no such folder"),
    Row(
        "prep freesurfer folder --out x.h5",
        2,
        "folder: expected FreeSurfer subjects, folders with mri/ in them; found none",
    ),
    Row("prep freesurfer thesis.tex --out x.h5", 2, "SUBJECTS_DIR thesis.tex: there is no such folder"),
    Row(
        "prep freesurfer subjects --image-name gone --out x.h5",
        1,
        "no subject could be used: bert: missing: subjects/bert/mri/gone.mgz",
    ),
    Row(
        "prep freesurfer subjects --seg-name gone --out x.h5",
        1,
        "no subject could be used: bert: missing: subjects/bert/mri/gone.mgz",
    ),
    Row("prep freesurfer subjects --align transforms --out x.h5", 1, "no subject could be used: bert: missing:"),
    Row("prep freesurfer subjects", 2, "Missing option '--out'."),
    Row("prep bids gone --out x.h5", 2, "gone: there is no such folder"),
    Row("prep bids folder --out x.h5", 2, "folder: holds no image called sub-*_T1w.nii.gz in an anat folder"),
    Row("prep bids bids --derivatives gone --out x.h5", 2, "--derivatives gone: there is no such folder"),
    Row("prep bids bids --desc gone --out x.h5", 2, "--derivatives bids/derivatives: holds no segmentation called"),
    Row(
        "prep bids bids --image-suffix T2w --out x.h5",
        2,
        "bids: holds no image called sub-*_T2w.nii.gz in an anat folder",
    ),
    Row("prep bids bids --align transforms --out x.h5", 2, "--align transforms: prep bids takes none, rigid or affine"),
    Row("prep oasis2d gone --out x.h5", 2, "FOLDER gone: there is no such folder"),
    Row(
        "prep oasis2d folder --out x.h5",
        2,
        "folder: expected folders with slice_norm.nii.gz and slice_seg24.nii.gz; found",
    ),
    Row(
        "prep oasis2d subjects --out x.h5",
        2,
        "subjects: expected folders with slice_norm.nii.gz and slice_seg24.nii.gz;",
    ),
    Row("prep oasis2d subjects --axis axial --out x.h5", 2, "No such option '--axis'."),
)
def test_prep(place: Place, row: Row) -> None:
    place.refuses(row)
