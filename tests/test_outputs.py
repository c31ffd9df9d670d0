"""No command writes over what it reads, nor over what this program did not write for the same purpose."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.caches import make
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import save_random

from metasynth.cli.main import main
from metasynth.errors import UsageError
from metasynth.outputs import Kind, Output, check_outputs, is_picture, same_file

SHAPE = (10, 12, 10)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two scans, their labels and masks, a model, a cache, what `prep` and `evaluate` make, and a user's own files."""
    folder = tmp_path_factory.mktemp("made")
    for seed in range(2):
        ids = head_labels(seed, SHAPE)
        save(folder / "scans" / f"s{seed}.nii.gz", head_image(ids, seed))
        save(folder / "labels" / f"s{seed}.nii.gz", ids)
        save(folder / "masks" / f"s{seed}.nii.gz", (ids > 0).astype(np.uint8))
    save_random(folder / "m.pt")
    (folder / "volumes.csv").write_text("name,dark,medium,bright\ns0,1,2,3\n")
    (folder / "scores.csv").write_text(
        "subject,class,dice,hd95_mm,volume_ml,reference_ml,volume_error_percent\ns0,dark,1,0,1,1,0\n"
    )
    for name in ("user/posteriors/s0.nii.gz", "drawn/qc/s0.png", "user/qc/scores.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mine")
    make(folder / "c.h5")
    make(folder / "d.h5", seed=1)
    (folder / "mine").mkdir()
    (folder / "folder.h5").mkdir()
    for name in ("mine/mine.h5", "mine/mine.png", "mine/mine.csv", "mine.txt", "o.png", "p.report.json"):
        (folder / name).write_bytes(b"mine")
    (folder / "q.h5.work").mkdir()
    (folder / "q.h5.work" / "thesis.tex").write_bytes(b"mine")
    (folder / "w.h5.work").write_bytes(b"mine")
    (folder / "map.csv").write_text("id,class\n2,white\n3,grey\n")
    return folder


@pytest.fixture
def cli(made, tmp_path, monkeypatch):
    """The command line in a copy of that folder whose files have further names."""
    copied = tmp_path / "here"
    shutil.copytree(made, copied)
    monkeypatch.chdir(copied)
    os.symlink("c.h5", "soft.png")
    os.link("c.h5", "hard.png")
    os.link("c.h5", "hard.h5")
    os.symlink("map.csv", "soft.h5")
    os.symlink("mine", "l.h5.work")
    os.symlink("labels/s0.nii.gz", "soft.csv")
    os.symlink("nowhere", "dangling.png")
    os.mkfifo("fifo.png")
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def content(folder: Path) -> dict[str, object]:
    """Every file: its bytes, or where it points to."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


LABELS = ["prep", "labels", "labels", "--jobs", "1"]
REMAP = ["prep", "remap", "c.h5", "--curve", "inverted"]
PREDICT = ["predict", "m.pt", "scans", "--stripped", "--device", "cpu", "--threads", "1", "--quiet"]
EVALUATE = ["evaluate", "labels", "labels", "--quiet"]
NOT_OURS = "is there and is no {} that metasynth wrote; give another name"
CLASHES = {
    "cache over text": ([*LABELS, "--out", "mine.txt"], "--out mine.txt: expected a name that ends in .h5 or .hdf5"),
    "cache named as a picture": ([*LABELS, "--out", "x.png"], "--out x.png: expected a name that ends in .h5 or .hdf5"),
    "cache over a user's": (
        [*LABELS, "--out", "mine/mine.h5", "--overwrite"],
        "--out mine/mine.h5: is there and is no cache that metasynth wrote; give another name",
    ),
    "cache unasked": ([*LABELS, "--out", "c.h5"], "--out c.h5: exists already; give another name or --overwrite"),
    "cache over the mapping": (
        [*LABELS, "--out", "soft.h5", "--mapping", "map.csv", "--overwrite"],
        "--out soft.h5: is the input map.csv; give another name",
    ),
    "cache over a folder": (
        [*LABELS, "--out", "folder.h5", "--overwrite"],
        "--out folder.h5: is a folder; give another name",
    ),
    "cache without a folder": ([*LABELS, "--out", "no/a.h5"], "--out no/a.h5: the folder no does not exist"),
    "picture beside": (
        [*LABELS, "--out", "o.h5", "--overwrite"],
        "--out o.h5: o.png is there and is no picture that metasynth wrote; give another name",
    ),
    "report beside": (
        [*LABELS, "--out", "p.h5", "--overwrite", "--no-montage"],
        "--out p.h5: p.report.json is there and is no report that metasynth wrote; give another name",
    ),
    "work folder": (
        [*LABELS, "--out", "q.h5"],
        "--out q.h5: q.h5.work holds thesis.tex, which metasynth did not write; move it, or give another --out",
    ),
    "work link": (
        [*LABELS, "--out", "l.h5"],
        "--out l.h5: l.h5.work is no folder; subjects are prepared in a folder of this name: move it, or give another "
        "--out",
    ),
    "work file": (
        [*LABELS, "--out", "w.h5"],
        "--out w.h5: w.h5.work is no folder; subjects are prepared in a folder of this name: move it, or give another "
        "--out",
    ),
    "remapped over its cache": (
        [*REMAP, "--out", "c.h5", "--overwrite"],
        "--out c.h5: is the input; give another name",
    ),
    "remapped over its second name": (
        [*REMAP, "--out", "hard.h5", "--overwrite"],
        "--out hard.h5: is the input c.h5; give another name",
    ),
    "remapped over a user's": (
        [*REMAP, "--out", "mine/mine.h5", "--overwrite"],
        "--out mine/mine.h5: is there and is no cache that metasynth wrote; give another name",
    ),
    "remapped over text": (
        [*REMAP, "--out", "mine.txt", "--overwrite"],
        "--out mine.txt: expected a name that ends in .h5 or .hdf5, for a cache",
    ),
    "remapped unasked": ([*REMAP, "--out", "d.h5"], "--out d.h5: exists already; give another name or --overwrite"),
    "remapped without a folder": ([*REMAP, "--out", "no/a.h5"], "--out no/a.h5: the folder no does not exist"),
    "cohort over a user's": (
        ["prep", "template", "--out", "mine/mine.h5"],
        "--out mine/mine.h5: exists already; give another name",
    ),
    "cohort over text": (
        ["prep", "template", "--out", "new.txt"],
        "--out new.txt: expected a name that ends in .h5 or .hdf5, for a cache",
    ),
    "cohort below a file": (
        ["prep", "template", "--out", "mine.txt/a.h5"],
        "--out mine.txt/a.h5: mine.txt is no folder; give another name",
    ),
    "montage over its cache": (
        ["inspect", "c.h5", "--montage", "c.h5", "--overwrite"],
        "--montage c.h5: expected a name that ends in .png, for a picture",
    ),
    "montage over a link to it": (
        ["inspect", "c.h5", "--montage", "soft.png", "--overwrite"],
        "--montage soft.png: is the input c.h5; give another name",
    ),
    "montage over its second name": (
        ["inspect", "c.h5", "--montage", "./scans/../hard.png", "--overwrite"],
        "--montage scans/../hard.png: is the input c.h5; give another name",
    ),
    "montage over a user's": (
        ["inspect", "c.h5", "--montage", "mine/mine.png", "--overwrite"],
        "--montage mine/mine.png: is there and is no picture that metasynth wrote; give another name",
    ),
    "montage over a link to nowhere": (
        ["inspect", "c.h5", "--montage", "dangling.png", "--overwrite"],
        "--montage dangling.png: is there and is no picture that metasynth wrote; give another name",
    ),
    "montage into a pipe": (
        ["inspect", "c.h5", "--montage", "fifo.png", "--overwrite"],
        "--montage fifo.png: is there and is no picture that metasynth wrote; give another name",
    ),
    "volumes over a scan": (
        [*PREDICT, "--out", "o", "--volumes", "scans/s0.nii.gz", "--overwrite"],
        "--volumes scans/s0.nii.gz: expected a name that ends in .csv or .tsv, for a table of volumes",
    ),
    "volumes over the model": (
        [*PREDICT, "--out", "o", "--volumes", "m.pt", "--overwrite"],
        "--volumes m.pt: expected a name that ends in .csv or .tsv, for a table of volumes",
    ),
    "volumes over a link to a mask": (
        [*PREDICT, "--masks", "labels", "--out", "o", "--volumes", "soft.csv", "--overwrite"],
        "--volumes soft.csv: is the input labels/s0.nii.gz; give another name",
    ),
    "volumes over a user's": (
        [*PREDICT, "--out", "o", "--volumes", "mine/mine.csv", "--overwrite"],
        f"--volumes mine/mine.csv: {NOT_OURS.format('table of volumes')}",
    ),
    "volumes over another table of ours": (
        [*PREDICT, "--out", "o", "--volumes", "scores.csv", "--overwrite"],
        f"--volumes scores.csv: {NOT_OURS.format('table of volumes')}",
    ),
    "volumes over those of another folder": (
        [*PREDICT, "--out", "o", "--volumes", "volumes.csv"],
        "--volumes volumes.csv: exists already; give another name or --overwrite",
    ),
    "volumes below a file": (
        [*PREDICT, "--out", "o", "--volumes", "mine.txt/v.csv"],
        "--volumes mine.txt/v.csv: mine.txt is no folder; give another name",
    ),
    "label maps among the scans": (
        [*PREDICT, "--out", "./masks/../scans"],
        "--out masks/../scans: is where the input scans/s0.nii.gz lies; give another folder",
    ),
    "label maps among the masks": (
        [*PREDICT, "--masks", "masks", "--out", "masks", "--overwrite"],
        "--out masks: is where the input masks/s0.nii.gz lies; give another folder",
    ),
    "label maps over a user's": (
        [*PREDICT, "--out", "labels", "--overwrite"],
        f"--out labels: labels/s0.nii.gz {NOT_OURS.format('label map')}",
    ),
    "posteriors over a user's": (
        [*PREDICT, "--out", "user", "--posteriors", "--overwrite"],
        f"--out user: user/posteriors/s0.nii.gz {NOT_OURS.format('label map')}",
    ),
    "pictures over a user's": (
        [*PREDICT, "--out", "drawn", "--qc", "--overwrite"],
        f"--out drawn: drawn/qc/s0.png {NOT_OURS.format('picture')}",
    ),
    "certainties over a user's": (
        [*PREDICT, "--out", "user", "--qc", "--overwrite"],
        f"--out user: user/qc/scores.csv {NOT_OURS.format('table of scores')}",
    ),
    "label maps into a file": ([*PREDICT, "--out", "mine.txt"], "--out mine.txt: is no folder; give another name"),
    "scores over a reference": (
        [*EVALUATE, "--out", "labels/s0.nii.gz", "--overwrite"],
        "--out labels/s0.nii.gz: expected a name that ends in .csv, for a table of scores",
    ),
    "scores over a link to one": (
        [*EVALUATE, "--out", "soft.csv", "--overwrite"],
        "--out soft.csv: is the input labels/s0.nii.gz; give another name",
    ),
    "scores over the mapping": (
        [*EVALUATE, "--out", "map.csv", "--mapping", "map.csv", "--overwrite"],
        "--out map.csv: is the input; give another name",
    ),
    "scores over a user's": (
        [*EVALUATE, "--out", "mine/mine.csv", "--overwrite"],
        f"--out mine/mine.csv: {NOT_OURS.format('table of scores')}",
    ),
    "scores over another table of ours": (
        [*EVALUATE, "--out", "volumes.csv", "--overwrite"],
        f"--out volumes.csv: {NOT_OURS.format('table of scores')}",
    ),
    "scores unasked": (
        [*EVALUATE, "--out", "scores.csv"],
        "--out scores.csv: exists already; give another name or --overwrite",
    ),
    "a run into a user's folder": (
        ["run", "noise", "--out", "mine"],
        "mine: is not empty (it holds mine.csv); give another --out",
    ),
    "a run over its cache": (
        ["run", "noise", "--data", "c.h5", "--out", "c.h5"],
        "c.h5: cannot hold a run: a file is in the way; give another --out",
    ),
    "a run below a file": (
        ["run", "noise", "--out", "mine.txt/run"],
        "mine.txt/run: cannot hold a run: a file is in the way; give another --out",
    ),
    "a run into a file": (
        ["run", "noise", "--out", "mine.txt"],
        "mine.txt: cannot hold a run: a file is in the way; give another --out",
    ),
    "a grid into a user's folder": (
        ["run", "noise", "--seeds", "2", "--out", "mine"],
        "mine: is not empty (it holds mine.csv); give another --out",
    ),
    "montage without a folder": (
        ["inspect", "c.h5", "--montage", "no/m.png"],
        "--montage no/m.png: the folder no does not exist",
    ),
}


@pytest.mark.parametrize("case", CLASHES)
def test_what_must_not_be_replaced_is_not(cli, case):
    arguments, line = CLASHES[case]
    before = content(Path())
    result = cli(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    said = [text for text in result.stderr.splitlines() if not text.startswith(("Run folder: ", "Model: "))]
    assert len(said) == 1
    assert said[0].startswith(f"Error: {line}")
    assert content(Path()) == before


def test_our_own_are_replaced_when_asked(cli):
    arguments = (*LABELS, "--out", "new.h5")
    assert cli(*arguments).exit_code == 0
    assert is_picture(Path("new.png"))
    before = content(Path())
    assert cli(*arguments).stderr.endswith("--out new.h5: exists already; give another name or --overwrite\n")
    Path("new.h5").rename("away.h5")  # its picture and report alone
    assert cli(*arguments).stderr == (
        "Error: --out new.h5: new.report.json exists already; give another name or --overwrite\n"
    )
    Path("away.h5").rename("new.h5")
    assert content(Path()) == before
    assert cli(*arguments, "--overwrite", "--slices", "all").exit_code == 0
    changed = {name for name, was in content(Path()).items() if was != before[name]}
    assert changed >= {"new.h5", "new.png"}
    assert changed <= {"new.h5", "new.png", "new.report.json"}
    assert cli("inspect", "c.h5", "--montage", "new.png").exit_code == 2
    assert cli("inspect", "c.h5", "--montage", "new.png", "--overwrite").exit_code == 0


def test_a_work_folder_keeps_what_is_not_ours(cli):
    assert cli(*LABELS, "--out", "new.h5", "--keep-work").exit_code == 0
    parts = sorted(Path("new.h5.work").iterdir())
    assert [path.name[:3] for path in parts] == ["s0-", "s1-"]
    (Path("new.h5.work") / "notes.txt").write_text("mine")
    result = cli(*LABELS, "--out", "new.h5", "--overwrite")
    assert result.exit_code == 2
    assert "new.h5.work holds notes.txt, which metasynth did not write" in result.stderr
    (Path("new.h5.work") / "notes.txt").unlink()
    assert cli(*LABELS, "--out", "new.h5", "--overwrite").exit_code == 0
    assert not Path("new.h5.work").exists()


@pytest.mark.parametrize("when", ["report", "picture", "cache"])
def test_what_was_stopped_at_the_end_goes_on_with_the_same_command(cli, monkeypatch, when):
    from metasynth.data_prep import collect, montage

    assert cli(*LABELS, "--out", "whole.h5").exit_code == 0
    place = {"report": (collect, "_write_report"), "picture": (montage, "write_montage"), "cache": (Path, "replace")}
    with monkeypatch.context() as patch:

        def stop(*arguments):
            raise KeyboardInterrupt

        patch.setattr(*place[when], stop)
        assert cli(*LABELS, "--out", "new.h5").exit_code == 130
    assert not Path("new.h5").exists()
    result = cli(*LABELS, "--out", "new.h5")
    assert result.exit_code == 0, result.output
    assert Path("new.h5").read_bytes() == Path("whole.h5").read_bytes()
    assert Path("new.png").read_bytes() == Path("whole.png").read_bytes()
    assert not Path("new.h5.work").exists()


def test_files_are_compared_as_the_system_knows_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("x")
    Path("folder").mkdir()
    os.symlink("folder", "link")
    os.link("a", "b")
    assert same_file(Path("a"), Path("b"))
    assert same_file(Path("folder/../a"), tmp_path / "a")
    assert same_file(Path("link/new"), Path("folder/new"))
    assert not same_file(Path("a"), Path("folder"))
    anything = Kind("file", (), lambda path: True)
    twice = [Output(f"--{name}:", Path(name) / "new", anything, True) for name in ("link", "folder")]
    with pytest.raises(UsageError, match=r"^--folder: is what --link is too; give another name$"):
        check_outputs(twice, [])
