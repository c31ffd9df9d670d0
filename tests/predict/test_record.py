"""What a folder of label maps says about each of its files, and what it keeps apart."""

import csv
import json
import shutil
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.data_prep.sources import Scan, Sources
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import describe, random_model, save_random

from metasynth.cli.main import main
from metasynth.errors import DataError, RunError, UsageError
from metasynth.predict import folder as folders
from metasynth.predict import making, volumes
from metasynth.predict.files import is_label_map, write_like
from metasynth.predict.naming.names import TABLES
from metasynth.predict.record import FolderRecord
from metasynth.predict.recorded import recorded_classes

SHAPE = (10, 12, 10)
OUT = Path("out")
UNASKED = "give another folder or --overwrite"


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """`metasynth predict` in a folder with three scans, masks of two kinds and two models."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        ids = head_labels(seed, SHAPE)
        save(tmp_path / "scans" / f"s{seed}.nii.gz", head_image(ids, seed))
        save(tmp_path / "masks" / f"s{seed}.nii.gz", (ids > 0).astype(np.uint8))
        save(tmp_path / "tight" / f"s{seed}.nii.gz", (ids > 100).astype(np.uint8))
    save_random(tmp_path / "a.pt")
    save_random(tmp_path / "b.pt", seed=1)
    options = ("--stripped", "--out", "out", "--device", "cpu", "--threads", "1", "--quiet")
    return lambda *arguments: CliRunner().invoke(main, ["predict", *arguments, *options])


def fine(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result):
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def record():
    return json.loads((OUT / "segmentation.json").read_text())


def content():
    return {path: path.read_bytes() for path in OUT.rglob("*") if path.is_file()}


def stop_at(monkeypatch, scan):
    """Have the process end before the label map of a scan is written, or after it."""

    def write(path, data, source):
        if source.name.startswith(scan):
            raise KeyboardInterrupt
        write_like(path, data, source)

    monkeypatch.setattr(making, "write_like", write)


def test_every_file_says_what_it_was_made_from(cli):
    fine(cli("a.pt", "scans/s0.nii.gz", "--masks", "masks/s0.nii.gz", "--qc", "--posteriors"))
    fine(cli("a.pt", "scans/s1.nii.gz"))
    outputs = record()["outputs"]
    assert list(outputs) == sorted(
        ["posteriors/s0.nii.gz", "qc/s0.png", "s0.nii.gz", "s1.nii.gz", "posteriors/probseg.json", *TABLES]
    )
    assert outputs["posteriors/s0.nii.gz"] == outputs["qc/s0.png"] == outputs["s0.nii.gz"]
    assert {made["model"] for made in outputs.values()} == {record()["sha256"]}
    assert outputs["s1.nii.gz"]["mask"] is None
    assert outputs["s0.nii.gz"]["scan"] != outputs["s1.nii.gz"]["scan"]
    assert all(is_label_map(OUT / name) for name in ("s0.nii.gz", "posteriors/s0.nii.gz"))


def test_maps_of_two_models_never_stand_under_one_record(cli, monkeypatch):
    fine(cli("a.pt", "scans"))
    of_a = content()
    with monkeypatch.context() as patch:
        stop_at(patch, "s1")
        assert cli("b.pt", "scans", "--overwrite").exit_code == 130
    line = refused(cli("b.pt", "scans"))
    assert line == f"--out out: out/s2.nii.gz was made by another model; {UNASKED}"
    scored = CliRunner().invoke(main, ["evaluate", "out", "out", "--out", "t.csv"])
    assert scored.exit_code == 1
    assert scored.stderr == (
        "Error: out/segmentation.json: s2.nii.gz is of another model; finish or repeat metasynth predict\n"
    )
    assert refused(cli("a.pt", "scans")) == f"--out out: holds label maps of another model; {UNASKED}"
    fine(cli("b.pt", "scans", "--overwrite"))
    of_b = content()
    shutil.rmtree(OUT)
    fine(cli("b.pt", "scans"))
    assert content() == of_b
    assert {path.name for path in of_a if of_b[path] == of_a[path]} == set(TABLES)  # of the same classes


def test_an_unfinished_map_is_made_again_unasked(cli, monkeypatch):
    fine(cli("a.pt", "scans"))
    whole = content()
    shutil.rmtree(OUT)
    with monkeypatch.context() as patch:
        stop_at(patch, "s1")
        assert cli("a.pt", "scans").exit_code == 130
    assert record()["outputs"]["s1.nii.gz"] is None
    (OUT / "s1.nii.gz").write_bytes(b"whatever was there")
    assert fine(cli("a.pt", "scans")) == "Label maps: out (2 made, 1 skipped as they are there already)\n"
    assert content() == whole


def test_another_model_does_not_leave_the_rest_of_a_folder_behind(cli):
    fine(cli("a.pt", "scans"))
    line = refused(cli("b.pt", "scans/s0.nii.gz", "--overwrite"))
    assert line == ("--out out: holds s1.nii.gz of another model, which is not made again now; give another folder")


@pytest.mark.parametrize(
    ("first", "then", "difference"),
    [
        ((), ("--masks", "masks"), "was made without a mask"),
        (("--masks", "masks"), (), "was made with another mask"),
        (("--masks", "masks"), ("--masks", "tight"), "was made with another mask"),
    ],
)
def test_a_mask_added_later_skips_nothing(cli, first, then, difference):
    fine(cli("a.pt", "scans", *first))
    before = content()
    assert refused(cli("a.pt", "scans", *then)) == f"--out out: out/s0.nii.gz {difference}; {UNASKED}"
    assert content() == before
    fine(cli("a.pt", "scans", *then, "--overwrite"))
    assert fine(cli("a.pt", "scans", *then)).endswith("(0 made, 3 skipped as they are there already)\n")


def test_another_scan_of_the_name_is_not_skipped(cli):
    fine(cli("a.pt", "scans"))
    shutil.copy("scans/s2.nii.gz", "scans/s1.nii.gz")
    line = refused(cli("a.pt", "scans"))
    assert line == f"--out out: out/s1.nii.gz was made of another scan of this name; {UNASKED}"
    Path("scans/s1.nii.gz").unlink()
    (Path("list.txt")).write_text("scans/s0.nii.gz\nscans/s1.nii.gz\n")
    result = cli("a.pt", "list.txt")
    assert result.exit_code == 1
    assert "Failed: s1: scans/s1.nii.gz: the file is missing" in result.stderr


def test_folders_of_earlier_versions_are_gone_on_with(cli):
    save(Path("scans") / "m.mgz", head_image(head_labels(5, SHAPE)))
    fine(cli("a.pt", "scans", "--qc"))
    old = record()
    del old["outputs"]
    (OUT / "segmentation.json").write_text(json.dumps(old))
    before = content()
    result = cli("a.pt", "scans", "--qc", "--masks", "masks")
    assert fine(result) == "Label maps: out (0 made, 4 skipped as they are there already)\n"
    assert result.stderr.splitlines()[-1] == (
        "Note: 4 label maps that were skipped do not say which scan and mask they were made of, as an earlier version "
        "made them (m, s0, s1, ...); --overwrite makes them again"
    )
    assert {p: c for p, c in content().items() if p.suffix != ".json"} == {
        p: c for p, c in before.items() if p.suffix != ".json"
    }
    assert refused(cli("b.pt", "scans")) == f"--out out: holds label maps of another model; {UNASKED}"
    fine(cli("b.pt", "scans", "--qc", "--overwrite"))


def test_a_file_of_somebody_else_is_neither_skipped_nor_replaced(cli):
    fine(cli("a.pt", "scans/s0.nii.gz"))
    shutil.copy("masks/s1.nii.gz", OUT / "s1.nii.gz")
    for more in ((), ("--overwrite",)):
        line = refused(cli("a.pt", "scans", *more))
        assert line == "--out out: out/s1.nii.gz is there and is no label map that metasynth wrote; give another name"
    (OUT / "s1.nii.gz").unlink()
    shutil.copy(OUT / "s0.nii.gz", OUT / "s1.nii.gz")
    line = refused(cli("a.pt", "scans"))
    assert line == f"--out out: out/s1.nii.gz is not in the folder's record; {UNASKED}"


def test_what_was_drawn_does_not_replace_labels_that_were_edited(cli):
    fine(cli("a.pt", "scans"))
    labels = nib.load(OUT / "s0.nii.gz")
    edited = np.asanyarray(labels.dataobj).copy()
    edited[0] = 3
    nib.save(nib.Nifti1Image(edited, labels.affine, labels.header), OUT / "s0.nii.gz")
    assert fine(cli("a.pt", "scans", "--qc")) == "Label maps: out (3 made)\n"
    np.testing.assert_array_equal(np.asanyarray(nib.load(OUT / "s0.nii.gz").dataobj), edited)


def test_a_table_of_volumes_goes_on_with_its_folder(cli):
    fine(cli("a.pt", "scans/s0.nii.gz", "--volumes", "v.csv"))
    fine(cli("a.pt", "scans", "--volumes", "v.csv"))
    with Path("v.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["s0", "s1", "s2"]
    Path("v.csv").write_text(Path("v.csv").read_text().replace("s0", "edited"))
    line = refused(cli("a.pt", "scans", "--volumes", "v.csv"))
    assert line == "--volumes v.csv: exists already; give another name or --overwrite"
    fine(cli("a.pt", "scans", "--volumes", "v.csv", "--overwrite"))


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("earlier", [[], ["scans/s0.nii.gz"]])
def test_a_command_that_ends_at_its_table_of_volumes_goes_on(cli, monkeypatch, earlier, written):
    for scan in earlier:
        fine(cli("a.pt", scan, "--volumes", "v.csv"))

    def write_and_end(path, data):
        if written:
            path.write_bytes(data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(volumes, "write_atomically", write_and_end)
        assert cli("a.pt", "scans", "--volumes", "v.csv").exit_code == 130
    assert Path("v.csv").exists() == (written or bool(earlier))
    fine(cli("a.pt", "scans", "--volumes", "v.csv"))
    with Path("v.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["s0", "s1", "s2"]
    before = content()
    fine(cli("a.pt", "scans", "--volumes", "v.csv"))
    assert content().keys() == before.keys()


def test_a_map_that_could_not_be_made_again_is_not_measured(cli):
    fine(cli("a.pt", "scans"))
    Path("scans/s1.nii.gz").write_bytes(b"broken")
    assert cli("a.pt", "scans", "--volumes", "v.csv", "--overwrite").exit_code == 1
    with Path("v.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["s0", "s2"]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"sha256": 3}',
        '{"sha256": "a", "outputs": []}',
        '{"sha256": "a", "outputs": {"s0.nii.gz": 3}}',
        '{"sha256": "a", "outputs": {"s0.nii.gz": {"model": "a", "scan": null, "mask": null}}}',
        "[" * 100_000,
        '{"sha256": "a", "sha256": "b"}',
    ],
)
def test_damaged_records(cli, content):
    OUT.mkdir()
    (OUT / "segmentation.json").write_text(content)
    line = refused(cli("a.pt", "scans"))
    assert line == "--out out: segmentation.json in it cannot be read; give another folder"
    assert (OUT / "segmentation.json").read_text() == content


def test_several_writers_lose_nothing_of_each_other(tmp_path):
    def write(start):
        for number in range(start, start + 20):
            one = FolderRecord(tmp_path / "out", describe(), "a")
            with one.locked():
                rows = (tmp_path / "rows").read_text() if (tmp_path / "rows").exists() else ""
                (tmp_path / "rows").write_text(f"{rows}{number}\n")
                one.note({tmp_path / "out" / f"s{number}": {"model": "a", "scan": "s", "mask": None}})

    FolderRecord(tmp_path / "out", describe(), "a").begin()
    threads = [threading.Thread(target=write, args=(20 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = json.loads((tmp_path / "out" / "segmentation.json").read_text())["outputs"]
    assert sorted(found) == sorted(f"s{i}" for i in range(80))
    assert sorted(map(int, (tmp_path / "rows").read_text().split())) == list(range(80))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["segmentation.json"]


def test_two_commands_that_fill_one_folder_keep_each_others_scores(tmp_path, monkeypatch):
    scans = []
    for seed in range(4):
        ids = head_labels(seed, SHAPE)
        scans.append(Scan(f"s{seed}", None, save(tmp_path / "scans" / f"s{seed}.nii.gz", head_image(ids, seed))))
    read = making.read_table

    def slowly(path):
        rows = read(path)
        time.sleep(0.05)  # for the other to come between
        return rows

    monkeypatch.setattr(making, "read_table", slowly)
    monkeypatch.setattr(making, "write_picture", lambda path, *rest: path.parent.mkdir(parents=True, exist_ok=True))
    job = folders.Job(tmp_path / "out", qc=True)
    fill = lambda half: folders.predict_all(random_model(), "a", Sources(half, []), job)  # noqa: E731
    threads = [threading.Thread(target=fill, args=(half,)) for half in (scans[:2], scans[2:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with (tmp_path / "out" / "qc" / "scores.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["s0", "s1", "s2", "s3"]
    with (tmp_path / "out" / "qc" / "qc.tsv").open() as file:
        assert sorted(row["name"] for row in csv.DictReader(file, delimiter="\t")) == ["s0", "s1", "s2", "s3"]


def test_a_folder_that_another_model_takes_meanwhile(tmp_path):
    one, other = (FolderRecord(tmp_path / "out", describe(), digest) for digest in "ab")
    one.begin()
    other.begin()
    with one.locked(), pytest.raises(RunError, match="another command writes label maps of another model into this"):
        one.note({})


def test_a_record_that_is_no_file(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(UsageError, match=r"^--out .*out: is no folder; give another name$"):
        FolderRecord(tmp_path / "out", describe(), "a")


def test_a_name_that_a_spreadsheet_would_calculate(cli):
    Path("scans/s0.nii.gz").rename("scans/=1+1.nii.gz")
    for _ in range(2):
        fine(cli("a.pt", "scans", "--qc", "--volumes", "v.csv", "--overwrite"))
    for table in (Path("v.csv"), OUT / "qc" / "scores.csv"):
        with table.open() as file:
            assert [row["name"] for row in csv.DictReader(file)] == ["'=1+1", "s1", "s2"]


def test_classes_of_a_record_with_a_key_twice_are_not_guessed(tmp_path):
    (tmp_path / "segmentation.json").write_text('{"sha256": "a", "classes": ["b", "c"], "classes": ["c", "b"]}')
    with pytest.raises(DataError) as caught:
        recorded_classes(tmp_path)
    assert str(caught.value) == f"{tmp_path}/segmentation.json: is not valid JSON: the key 'classes' is given twice"
