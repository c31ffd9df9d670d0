"""Files that are no cache, or a damaged one."""

from bad_input.table import Place, Row, table


@table(
    Row("inspect caches/others.h5", 1, "caches/others.h5: is not a metasynth-cache file (no attribute 'format')"),
    Row("inspect caches/nothing.h5", 1, "caches/nothing.h5: is not a metasynth-cache file (no attribute 'format')"),
    Row("inspect caches/cut.h5", 1, "caches/cut.h5: is truncated or damaged (Unable to synchronously open file"),
    Row("inspect caches/format.h5", 1, "caches/format.h5: is not a metasynth-cache file (format 'zarr')"),
    Row("inspect caches/version.h5", 1, "caches/version.h5: format versions 1 to 4 are supported, got 5"),
    Row(
        "inspect caches/version-text.h5",
        1,
        "caches/version-text.h5: format versions 1 to 4 are supported, got 1 as text",
    ),
    Row("inspect caches/no-classes.h5", 1, "caches/no-classes.h5: attribute 'class_names' is missing"),
    Row("inspect caches/no-spacing.h5", 1, "caches/no-spacing.h5: attribute 'spacing_mm' is missing"),
    Row("inspect caches/no-axis.h5", 1, "caches/no-axis.h5: attribute 'axis' is missing"),
    Row("inspect caches/no-digest.h5", 1, "caches/no-digest.h5: attribute 'digest' is missing"),
    Row("inspect caches/no-labels.h5", 1, "caches/no-labels.h5: dataset 'labels' is missing"),
    Row("inspect caches/no-subject.h5", 1, "caches/no-subject.h5: dataset 'subject' is missing"),
    Row("inspect caches/no-subjects.h5", 1, "caches/no-subjects.h5: dataset 'subjects' is missing"),
    Row("inspect caches/no-slice.h5", 1, "caches/no-slice.h5: dataset 'slice' is missing"),
    Row(
        "inspect caches/spacing-nan.h5",
        1,
        "caches/spacing-nan.h5: spacing_mm must be 2 positive numbers, got [nan, 1.0]",
    ),
    Row(
        "inspect caches/spacing-zero.h5",
        1,
        "caches/spacing-zero.h5: spacing_mm must be 2 positive numbers, got [0.0, 1.0]",
    ),
    Row(
        "inspect caches/spacing-text.h5", 1, "caches/spacing-text.h5: attribute 'spacing_mm' must be a list of numbers"
    ),
    Row(
        "inspect caches/spacing-three.h5",
        1,
        "caches/spacing-three.h5: spacing_mm must be 2 positive numbers, got [1.0,",
    ),
    Row("inspect caches/one-class.h5", 1, "caches/one-class.h5: class_names must hold at least 2 names, got 1"),
    Row(
        "inspect caches/same-classes.h5",
        1,
        "caches/same-classes.h5: class name 'a' is listed twice; names must be unique",
    ),
    Row(
        "inspect caches/numbers-as-classes.h5",
        1,
        "caches/numbers-as-classes.h5: attribute 'class_names' must be a list of text",
    ),
    Row("inspect caches/axis-number.h5", 1, "caches/axis-number.h5: attribute 'axis' must be text, got np.int64(3)"),
    Row("inspect caches/label.h5", 1, "caches/label.h5: label 3 in slice 7 is beyond the 3 classes of class_names (0"),
    Row("inspect caches/nan.h5", 1, "caches/nan.h5: images hold NaN or infinite values, first in slice 4"),
    Row("inspect caches/infinite.h5", 1, "caches/infinite.h5: images hold NaN or infinite values, first in slice 4"),
    Row("inspect caches/bright.h5", 1, "caches/bright.h5: image value 1.5 in slice 4 is outside [0, 1]"),
    Row("inspect caches/subject-beyond.h5", 1, "caches/subject-beyond.h5: subject index 9 of slice 3 is out of range;"),
    Row(
        "inspect caches/subject-negative.h5",
        1,
        "caches/subject-negative.h5: subject index -1 of slice 3 is out of range;",
    ),
    Row(
        "inspect caches/labels-flat.h5", 1, "caches/labels-flat.h5: labels must be (N, H, W) or (N, D, H, W), got shape"
    ),
    Row("inspect caches/labels-float.h5", 1, "caches/labels-float.h5: labels must be uint8 or int16, got float32"),
    Row("inspect caches/labels-long.h5", 1, "caches/labels-long.h5: labels must be uint8 or int16, got int64"),
    Row("inspect caches/labels-none.h5", 1, "caches/labels-none.h5: holds no slices; labels have shape (0, 16, 16)"),
    Row(
        "inspect caches/images-other.h5", 1, "caches/images-other.h5: images and labels must have one shape, got images"
    ),
    Row(
        "inspect caches/images-integer.h5", 1, "caches/images-integer.h5: images must be float16 or float32, got uint8"
    ),
    Row(
        "inspect caches/subject-short.h5",
        1,
        "caches/subject-short.h5: subject must have shape (10,) like labels, got (3,)",
    ),
    Row("inspect caches/subject-float.h5", 1, "caches/subject-float.h5: subject must hold integers, got float32"),
    Row("inspect caches/slice-text.h5", 1, "caches/slice-text.h5: slice must hold integers, got |S1"),
    Row("inspect caches/subjects-numbers.h5", 1, "caches/subjects-numbers.h5: dataset 'subjects' must hold text"),
    Row(
        "inspect caches/subjects-same.h5",
        1,
        "caches/subjects-same.h5: subject 's' is listed twice; names must be unique",
    ),
    Row(
        "inspect caches/subjects-blank.h5",
        1,
        "caches/subjects-blank.h5: a subject must be printable text of one line, got ''",
    ),
    Row("inspect caches/slice-of-1-TB.h5", 1, "caches/slice-of-1-TB.h5: dataset 'labels' claims a slice of 1000000 x"),
    Row(
        "inspect caches/four-million.h5",
        1,
        "caches/four-million.h5: dataset 'labels' claims 4000000 x 16 x 16 values and",
    ),
    Row(
        "inspect caches/subjects-huge.h5",
        1,
        "caches/subjects-huge.h5: dataset 'subjects' claims an array of 1000000000000,",
    ),
    Row("inspect caches/labels-shapeless.h5", 1, "caches/labels-shapeless.h5: dataset 'labels' has no shape"),
    Row("inspect", 2, "Missing argument 'CACHE'."),
    Row("inspect gone.h5", 1, "gone.h5: cannot be opened: No such file or directory"),
    Row("inspect folder", 1, "folder: cannot be opened: Is a directory"),
    Row("inspect empty.h5", 1, "empty.h5: is not an HDF5 file; expected a metasynth-cache file"),
    Row("inspect text.h5", 1, "text.h5: is not an HDF5 file; expected a metasynth-cache file"),
    Row("inspect model.pt", 1, "model.pt: is not an HDF5 file; expected a metasynth-cache file"),
    Row("inspect images/s0.nii.gz", 1, "images/s0.nii.gz: is not an HDF5 file; expected a metasynth-cache file"),
    Row("inspect run", 1, "run: cannot be opened: Is a directory"),
    Row("inspect ''", 2, "Invalid value for 'CACHE': expected a path, got ''"),
    Row("inspect c.h5 maps.h5", 2, "Got unexpected extra argument (maps.h5)"),
    Row("inspect c.h5 --montage folder", 2, "--montage folder: expected a name that ends in .png, for a picture"),
    Row("inspect c.h5 --montage gone/x.png", 2, "--montage gone/x.png: the folder gone does not exist"),
    Row(
        "inspect c.h5 --montage thesis.tex/x.png", 2, "--montage thesis.tex/x.png: the folder thesis.tex does not exist"
    ),
    Row("inspect c.h5 --montage", 2, "Option '--montage' requires an argument."),
)
def test_inspect(place: Place, row: Row) -> None:
    place.refuses(row)
