"""What a folder of label maps says about its numbers, in either numbering, and its tables of volumes."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.data_prep.mappings import load_mapping
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import CLASSES, save_random

from metasynth.cli.main import main
from metasynth.predict.naming.names import TABLES, labels_of
from metasynth.predict.volumes import columns

SHAPE = (10, 12, 10)
SIDED = ("background", "left hippocampus", "Right-Putamen", "brain stem")
NUMBERS = (0, 17, 51, 16)
OUT = Path("out")


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """`metasynth` in a folder with two scans, a model of classes that FreeSurfer knows, and one of others."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        save(tmp_path / "scans" / f"s{seed}.nii.gz", head_image(head_labels(seed, SHAPE), seed), spacing=(1, 2, 1.5))
    save_random(tmp_path / "sided.pt", class_names=SIDED)
    save_random(tmp_path / "model.pt")
    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)])


def predict(cli, *arguments):
    options = ("--stripped", "--out", "out", "--device", "cpu", "--threads", "1", "--quiet")
    return cli("predict", *arguments, *options)


def fine(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result, code=2):
    assert result.exit_code == code, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def array(path):
    return np.asanyarray(nib.load(path).dataobj)


def table(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if str(path).endswith(".tsv") else ","))


def test_tables_of_names_stand_beside_the_label_maps(cli):
    fine(predict(cli, "model.pt", "scans", "--posteriors"))
    assert {name: (OUT / name).read_text() for name in TABLES} == {
        name: written(labels_of(CLASSES)) for name, written in TABLES.items()
    }
    assert [row["name"] for row in table(OUT / "dseg.tsv")] == list(CLASSES)
    assert json.loads((OUT / "posteriors" / "probseg.json").read_text()) == {"LabelMap": list(CLASSES)}
    assert array(OUT / "posteriors" / "s0.nii.gz").shape[-1] == len(CLASSES)


def test_freesurfers_ids_are_the_classes_under_other_numbers(cli):
    fine(predict(cli, "sided.pt", "scans"))
    indices = array(OUT / "s0.nii.gz")
    assert len(np.unique(indices)) > 2
    assert refused(predict(cli, "sided.pt", "scans", "--ids", "freesurfer")) == (
        "--out out: holds label maps with other --ids; give another folder or --overwrite"
    )
    fine(predict(cli, "sided.pt", "scans", "--ids", "freesurfer", "--overwrite", "--qc"))
    numbers = array(OUT / "s0.nii.gz")
    np.testing.assert_array_equal(numbers, np.array(NUMBERS)[indices])
    assert numbers.dtype == np.uint8
    assert [(row["index"], row["name"]) for row in table(OUT / "dseg.tsv")] == [
        (str(number), name) for number, name in zip(NUMBERS, SIDED, strict=True)
    ]
    record = json.loads((OUT / "segmentation.json").read_text())
    assert (record["classes"], record["ids"], record["numbers"]) == (list(SIDED), "freesurfer", list(NUMBERS))
    assert predict(cli, "sided.pt", "scans", "--ids", "freesurfer").stdout == (
        "Label maps: out (0 made, 2 skipped as they are there already)\n"
    )


def test_other_ids_do_not_leave_the_rest_of_a_folder_behind(cli):
    fine(predict(cli, "sided.pt", "scans"))
    line = refused(predict(cli, "sided.pt", "scans/s0.nii.gz", "--ids", "freesurfer", "--overwrite"))
    assert line == "--out out: holds s1.nii.gz with other --ids, which is not made again now; give another folder"


def test_classes_that_freesurfer_does_not_know_are_refused_before_anything_is_made(cli):
    assert refused(predict(cli, "model.pt", "scans", "--ids", "freesurfer")) == (
        "--ids freesurfer: FreeSurfer has no id for 'dark', 'medium', 'bright'; expected classes that are one "
        "structure each, such as 'left hippocampus' (of freesurfer-24, say); leave --ids out"
    )
    assert not OUT.exists()


def test_label_maps_of_freesurfers_ids_are_scored_by_their_classes(cli):
    fine(predict(cli, "sided.pt", "scans", "--ids", "freesurfer"))
    fine(cli("evaluate", "out", "out", "--out", "t.csv", "--quiet"))
    scored = table("t.csv")
    assert {row["class"] for row in scored} == set(SIDED[1:])
    assert {row["dice"] for row in scored if row["dice"]} == {"1"}
    volume = next(row for row in scored if (row["subject"], row["class"]) == ("s0", "brain stem"))["volume_ml"]
    assert float(volume) == pytest.approx(0.003 * (array(OUT / "s0.nii.gz") == 16).sum(), rel=1e-5)


def test_a_reference_with_other_ids_is_named(cli):
    fine(predict(cli, "sided.pt", "scans", "--ids", "freesurfer"))
    image = nib.load(OUT / "s0.nii.gz")
    reference = np.where(array(OUT / "s0.nii.gz") == 16, 2, array(OUT / "s0.nii.gz"))
    Path("refs").mkdir()
    nib.save(nib.Nifti1Image(reference, image.affine), "refs/s0.nii.gz")
    result = cli("evaluate", "out", "refs", "--out", "t.csv", "--quiet")
    assert refused(result, 1) == "1 of 1 subjects failed: s0"
    assert (
        "Failed: s0: refs/s0.nii.gz: holds label 2; the classes are 0, 16, 17, 51 (background, left hippocampus, "
        "Right-Putamen, brain stem); --mapping merges a reference's labels"
    ) in result.stderr
    Path("ids.csv").write_text("0,background\n17,left hippocampus\n51,Right-Putamen\n16,brain stem\n2,brain stem\n")
    fine(cli("evaluate", "out", "refs", "--out", "t.csv", "--quiet", "--mapping", "ids.csv"))
    assert {row["dice"] for row in table("t.csv") if row["dice"]} == {"1"}


@pytest.mark.parametrize("numbers", ["[0, 1]", "[0, 17, 17, 16]", '"all"', "[0, 1.5, 2, 3]"])
def test_a_record_whose_numbers_were_changed(cli, numbers):
    fine(predict(cli, "sided.pt", "scans", "--ids", "freesurfer"))
    record = json.loads((OUT / "segmentation.json").read_text())
    (OUT / "segmentation.json").write_text(json.dumps({**record, "numbers": json.loads(numbers)}))
    line = refused(cli("evaluate", "out", "out", "--out", "t.csv"), 1)
    assert line == (
        f"out/segmentation.json: numbers: expected a whole number for each class, got '{numbers}'".replace('"', "")
    )


def test_a_table_of_names_that_is_somebody_elses_stays(cli):
    OUT.mkdir()
    (OUT / "dseg.tsv").write_text("index\tname\n")
    for more in ((), ("--overwrite",)):
        assert refused(predict(cli, "model.pt", "scans", *more)) == (
            "--out out: out/dseg.tsv is there and is no description of label maps that metasynth "
            "wrote; give another name"
        )
    assert (OUT / "dseg.tsv").read_text() == "index\tname\n"


def test_colours_that_were_edited_stay_and_what_is_lost_is_written_again(cli):
    fine(predict(cli, "model.pt", "scans/s0.nii.gz"))
    (OUT / "itksnap-labels.txt").write_text("# mine\n")
    (OUT / "dseg.tsv").unlink()
    fine(predict(cli, "model.pt", "scans"))
    assert (OUT / "itksnap-labels.txt").read_text() == "# mine\n"
    assert (OUT / "dseg.tsv").read_text() == TABLES["dseg.tsv"](labels_of(CLASSES))


def test_a_name_table_can_be_a_mapping(cli):
    fine(predict(cli, "sided.pt", "scans", "--ids", "freesurfer"))
    mapping = load_mapping("out/dseg.tsv")
    assert mapping.class_names == SIDED
    assert mapping.classes == dict(zip(NUMBERS, range(4), strict=True))


def test_volumes_for_a_statistics_program(cli):
    fine(predict(cli, "sided.pt", "scans", "--ids", "freesurfer", "--volumes", "v.tsv"))
    text = Path("v.tsv").read_text()
    assert text.splitlines()[0] == "name\tbrain_ml\tleft_hippocampus_ml\tright_putamen_ml\tbrain_stem_ml"
    assert b"\r" not in Path("v.tsv").read_bytes()
    for row in table("v.tsv"):
        numbers = array(OUT / f"{row['name']}.nii.gz")
        for column, number in (("left_hippocampus_ml", 17), ("right_putamen_ml", 51), ("brain_stem_ml", 16)):
            assert float(row[column]) == pytest.approx(0.003 * (numbers == number).sum(), rel=1e-5)
        assert float(row["brain_ml"]) == pytest.approx(0.003 * (numbers > 0).sum(), rel=1e-5)
    described = json.loads(Path("v.json").read_text())
    assert list(described) == text.splitlines()[0].split("\t")
    assert described["right_putamen_ml"] == {"LongName": "Right-Putamen", "Index": 51, "Units": "mL"}
    assert described["brain_ml"]["Description"] == "all classes but the background together"
    fine(predict(cli, "sided.pt", "scans", "--ids", "freesurfer", "--volumes", "v.tsv"))


def test_volumes_with_the_classes_names(cli):
    fine(predict(cli, "model.pt", "scans", "--volumes", "v.csv"))
    for row in table("v.csv"):
        assert list(row) == ["name", "dark", "medium", "bright", "brain"]
        assert float(row["brain"]) == pytest.approx(sum(float(row[name]) for name in CLASSES[1:]), rel=1e-5)
    assert not Path("v.json").exists()
    # A table of an earlier version, which had no column of all classes together.
    Path("v.csv").write_text("name,dark,medium,bright\ns0,1,2,3\n")
    fine(predict(cli, "model.pt", "scans", "--volumes", "v.csv", "--overwrite"))
    assert "brain" in table("v.csv")[0]


def test_a_description_of_somebody_else_is_not_replaced(cli):
    Path("v.json").write_text('{"mine": 1}')
    assert refused(predict(cli, "model.pt", "scans", "--volumes", "v.tsv")) == (
        "--volumes v.tsv: v.json is there and is no description of volumes that metasynth wrote; give another name"
    )
    assert Path("v.json").read_text() == '{"mine": 1}'
    assert not OUT.exists()


def test_a_table_of_volumes_has_one_of_two_endings(cli):
    assert refused(predict(cli, "model.pt", "scans", "--volumes", "v.xlsx")) == (
        "--volumes v.xlsx: expected a name that ends in .csv or .tsv, for a table of volumes"
    )


def test_columns_of_odd_names_are_apart():
    names = ("background", "a b", "A-b", "3rd ventricle", "???", "brain")
    found = columns(Path("v.tsv"), labels_of(names))
    assert list(found) == ["name", "brain_ml", "a_b_ml", "a_b_2_ml", "class_3rd_ventricle_ml", "class_ml", "brain_5_ml"]
    assert list(columns(Path("v.csv"), labels_of(names))) == ["name", *names[1:]]


def test_a_description_of_volumes_does_not_replace_the_record_of_the_folder(cli):
    done = predict(cli, "sided.pt", "scans", "--volumes", str(OUT / "segmentation.tsv"))
    assert done.exit_code == 2
    beside = OUT / "segmentation.json"
    line = f"Error: --volumes {beside.with_suffix('.tsv')}: {beside} is the record of the folder; expected another name"
    assert done.stderr.splitlines()[-1] == line
