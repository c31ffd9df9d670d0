import json
import math
import re

import numpy as np
import pytest
from metasynth.data_prep.mappings import MAPPINGS, load_mapping
from support.head_phantom import as_muse, head_labels, save

from metasynth.errors import DataError, UsageError
from metasynth.predict.evaluate import Classes, classes_of, find_pairs, score
from metasynth.predict.summary import summary
from metasynth.segment.metrics import hausdorff_distance
from metasynth.text import shortened

FOUR = MAPPINGS["freesurfer-4"]


@pytest.fixture
def truth():
    return FOUR.apply(head_labels())


def pairs(tmp_path, predicted, reference, **place):
    save(tmp_path / "p" / "s1.nii.gz", predicted, **place)
    save(tmp_path / "r" / "s1.nii.gz", reference, **place)
    return find_pairs(str(tmp_path / "p"), str(tmp_path / "r"))[0][0]


def test_scores_by_hand(tmp_path, truth):
    predicted = np.where(truth == 4, 0, np.roll(truth, 2, axis=1)).astype(np.uint8)
    spacing = (1.0, 1.5, 2.0)
    scan = pairs(tmp_path, predicted, truth, spacing=spacing)
    records = score(scan, Classes(FOUR.class_names))
    assert [record["class"] for record in records] == list(FOUR.class_names[1:])
    for k, record in enumerate(records, 1):
        p, t = predicted == k, truth == k
        assert record["subject"] == "s1"
        assert record["dice"] == pytest.approx(2 * (p & t).sum() / (p.sum() + t.sum()))
        assert record["hd95_mm"] == pytest.approx(hausdorff_distance(p, t, spacing))
        assert record["volume_ml"] == pytest.approx(0.003 * p.sum())
        assert record["reference_ml"] == pytest.approx(0.003 * t.sum())
        assert record["volume_error_percent"] == pytest.approx(100 * (p.sum() / t.sum() - 1))


def test_the_orientation_of_the_files_does_not_matter(tmp_path, truth):
    predicted = np.roll(truth, 1, axis=0)
    plain = score(pairs(tmp_path / "a", predicted, truth, spacing=(1, 2, 1)), Classes(FOUR.class_names))
    save(tmp_path / "b" / "p" / "s1.nii.gz", predicted, "LIA", (1, 2, 1))
    save(tmp_path / "b" / "r" / "s1.mgz", truth, "PSR", (1, 2, 1))
    turned = score(find_pairs(str(tmp_path / "b/p"), str(tmp_path / "b/r"))[0][0], Classes(FOUR.class_names))
    assert turned == [pytest.approx(record) for record in plain]


def test_a_mapping_merges_the_reference(tmp_path, truth):
    for name, ids in (("freesurfer-4", head_labels()), ("muse-4", as_muse(head_labels()))):
        scan = pairs(tmp_path / name, truth, ids)
        assert {record["dice"] for record in score(scan, classes_of(name, MAPPINGS[name], "error"))} == {1.0}
    with pytest.raises(DataError, match=r"r.s1\.nii\.gz: holds label 101; the classes are 0 to 4 \(background, white"):
        score(scan, Classes(FOUR.class_names))
    ids = np.where(head_labels() == 16, 9999, head_labels())
    scan = pairs(tmp_path / "odd", truth, ids)
    with pytest.raises(DataError, match="does not name id 9999"):
        score(scan, Classes(FOUR.class_names, mapping=FOUR))
    assert score(scan, Classes(FOUR.class_names, mapping=FOUR, unknown="background"))[0]["dice"] < 1


def test_structures_that_are_missing(tmp_path, truth):
    scan = pairs(tmp_path, truth * (truth == 1), truth * (truth == 3))
    white, cortex, deep, fluid = score(scan, Classes(FOUR.class_names))
    for record, volume, reference in ((white, True, False), (deep, False, True)):
        assert (record["dice"], record["hd95_mm"]) == (0.0, math.inf)
        assert (record["volume_ml"] > 0, record["reference_ml"] > 0) == (volume, reference)
    assert white["volume_error_percent"] is None
    assert deep["volume_error_percent"] == -100.0
    for record in (cortex, fluid):
        assert math.isnan(record["dice"])
        assert math.isnan(record["hd95_mm"])


def test_label_maps_without_names(tmp_path):
    scan = pairs(tmp_path, head_labels(), head_labels(seed=1))
    found = [record["class"] for record in score(scan, Classes())]
    assert found == [str(i) for i in np.unique(head_labels()) if i]
    assert [r["class"] for r in score(scan, Classes().choose("49, 3,49, 60"))] == ["49", "3", "60"]
    empty = pairs(tmp_path / "empty", np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8))
    assert score(empty, Classes()) == []
    assert math.isnan(score(empty, Classes().choose("2"))[0]["dice"])


def test_which_classes_are_scored(tmp_path, truth):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "segmentation.json").write_text(json.dumps({"classes": FOUR.class_names}))
    folder = str(tmp_path / "p")
    for named in (folder, f"{folder}/s1.nii.gz", f"{folder}/*.nii.gz"):
        assert classes_of(named, None, "error").names == FOUR.class_names
    assert classes_of(folder, FOUR, "error").mapping is FOUR
    with pytest.raises(UsageError, match=r"^--mapping freesurfer-tissue: has the classes background, .*; the label m"):
        classes_of(folder, MAPPINGS["freesurfer-tissue"], "error")
    assert classes_of(str(tmp_path), None, "error").names is None
    chosen = Classes(FOUR.class_names).choose("ventricles,1")
    scan = pairs(tmp_path, truth, truth)
    assert [record["class"] for record in score(scan, chosen)] == ["ventricles", "white matter"]
    for wrong in ("ventricle", "5", "", "1,,2", "\u00b2", "9" * 5000):
        with pytest.raises(
            UsageError,
            match=rf"^--classes {re.escape(shortened(wrong))}: expected numbers or names of background, white",
        ):
            Classes(FOUR.class_names).choose(wrong)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float64])
def test_ids_of_any_size_are_told_apart(tmp_path, dtype):
    ids = np.zeros((4, 5, 6), dtype=dtype)
    ids[1], ids[2], ids[3] = 20_000_000, 20_000_001, 2**31 - 1
    swapped = ids.copy()
    swapped[1], swapped[2] = ids[2], ids[1]
    records = score(pairs(tmp_path, swapped, ids), Classes())
    assert [(record["class"], record["dice"]) for record in records] == [
        ("20000000", 0.0),
        ("20000001", 0.0),
        ("2147483647", 1.0),
    ]
    chosen = score(pairs(tmp_path, ids, ids), Classes().choose("20000001,614454277"))
    assert [(record["class"], record["reference_ml"]) for record in chosen] == [("20000001", 0.03), ("614454277", 0.0)]
    assert (chosen[0]["dice"], math.isnan(chosen[1]["dice"])) == (1.0, True)


def test_ids_of_nine_digits_are_mapped(tmp_path):
    (tmp_path / "atlas.csv").write_text("id,class\n0,0\n614454277,1\n614454278,2\n")
    ids = np.array([0, 614_454_277, 614_454_278, 0] * 6, dtype=np.int32).reshape(4, 3, 2)
    mapping = load_mapping(str(tmp_path / "atlas.csv"))
    records = score(pairs(tmp_path, mapping.apply(ids), ids), Classes(mapping.class_names, mapping=mapping))
    assert [(record["class"], record["dice"]) for record in records] == [("class 1", 1.0), ("class 2", 1.0)]


def test_a_mapping_with_structures_merges_the_reference_to_classes(tmp_path):
    (tmp_path / "atlas.csv").write_text("id,class,structure\n0,0,0\n2,1,1\n16,1,2\n3,2,3\n24,0,4\n")
    ids = np.array([0, 2, 16, 3, 24, 0] * 4, dtype=np.int32).reshape(4, 3, 2)
    classes = np.array([0, 1, 1, 2, 0, 0] * 4, dtype=np.uint8).reshape(4, 3, 2)
    mapping = load_mapping(str(tmp_path / "atlas.csv"))
    records = score(pairs(tmp_path, classes, ids), Classes(mapping.class_names, mapping=mapping))
    assert [(record["class"], record["dice"]) for record in records] == [("class 1", 1.0), ("class 2", 1.0)]


def test_two_label_maps_may_be_stored_two_ways(tmp_path, truth):
    """Distances and volumes do not depend on it either."""
    predicted = np.roll(truth, 2, axis=1).astype(np.uint8)
    spacing = (1.0, 1.5, 2.0)
    expected = score(pairs(tmp_path, predicted, truth, spacing=spacing), Classes(FOUR.class_names))
    save(tmp_path / "p" / "s1.nii.gz", predicted, "LAS", spacing)
    save(tmp_path / "r" / "s1.nii.gz", truth, "PSL", spacing)
    scan = find_pairs(str(tmp_path / "p"), str(tmp_path / "r"))[0][0]
    for found, wanted in zip(score(scan, Classes(FOUR.class_names)), expected, strict=True):
        assert found == pytest.approx(wanted)


def test_pairs(tmp_path, truth):
    for name in ("p/a_seg.nii.gz", "p/b_seg.nii.gz", "p/c_seg.nii.gz", "r/a.nii.gz", "r/b.mgz", "r/d.nii.gz"):
        save(tmp_path / name, truth)
    scans, alone, unclear = find_pairs(str(tmp_path / "p"), str(tmp_path / "r"))
    assert [scan.name for scan in scans] == ["a", "b"]
    assert ([path.name for path in alone], unclear) == (["c_seg.nii.gz", "d.nii.gz"], [])
    scans, alone, _ = find_pairs(str(tmp_path / "p/a_seg.nii.gz"), str(tmp_path / "r/d.nii.gz"))
    assert ([scan.name for scan in scans], alone) == (["a_seg"], [])
    save(tmp_path / "q" / "z.nii.gz", truth)
    with pytest.raises(UsageError, match="no name is in both"):
        find_pairs(str(tmp_path / "q"), str(tmp_path / "r"))


@pytest.mark.parametrize(
    ("reference", "place", "came"),
    [
        (np.ones((4, 5, 6)), {}, "shapes 36 x 44 x 40 and 4 x 5 x 6$"),
        (None, {"spacing": (1.0, 1.0, 1.1)}, "affines that differ by 3.9 mm at a corner: "),
        (None, {"affine": np.eye(4)}, "affines that differ by 22.9 mm at a corner: "),
    ],
)
def test_other_voxels_are_refused(tmp_path, truth, reference, place, came):
    save(tmp_path / "p.nii", truth)
    path = save(tmp_path / "r.nii", truth if reference is None else reference, **place)
    scan = find_pairs(str(tmp_path / "p.nii"), str(path))[0][0]
    with pytest.raises(DataError, match=f"must have the same voxels, got {came}"):
        score(scan, Classes())


def record(subject, name, dice, distance, error):
    return {"subject": subject, "class": name, "dice": dice, "hd95_mm": distance, "volume_error_percent": error}


def test_a_summary_by_hand():
    rows = summary(
        [
            record("a", "x", 0.5, 2.0, 10.0),
            record("a", "y", 0.9, 1.0, -30.0),
            record("b", "x", 0.0, math.inf, -100.0),
            record("b", "y", math.nan, math.nan, None),
        ]
    )
    x, y, both = rows
    assert (x["class"], x["subjects"], x["dice"], x["hd95_mm"], x["missed"]) == ("x", 2, 0.25, 2.0, 1)
    assert x["dice_sd"] == pytest.approx(math.sqrt(0.125))
    assert x["volume_error_percent"] == -45.0
    assert (y["subjects"], y["dice"], y["dice_sd"], y["missed"], y["volume_error_percent"]) == (1, 0.9, None, 0, -30.0)
    # Classes of a subject first: a has .7 and 1.5 mm, b has 0 and no finite distance.
    assert (both["class"], both["dice"], both["hd95_mm"], both["missed"]) == ("all", pytest.approx(0.35), 1.5, 1)
    assert both["volume_error_percent"] == pytest.approx((-10 - 100) / 2)
    assert [row["class"] for row in summary([record("a", "x", 1.0, 0.0, 0.0)])] == ["x"]
