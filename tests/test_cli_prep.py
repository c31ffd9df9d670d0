"""The commands that make caches from files, from the command line to the cache; long, as all of them share fixtures."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.head_phantom import as_muse, head_image, head_labels, save

from metasynth.cli.main import main
from metasynth.data.cache import Cache


@pytest.fixture
def cli(monkeypatch, tmp_path) -> Callable[..., Result]:
    """The command line in an empty folder, one process."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [*arguments, "--jobs", "1"])


@pytest.fixture
def heads(tmp_path) -> Path:
    """Three heads: images, FreeSurfer label maps and MUSE label maps, in three orientations."""
    for i, orientation in enumerate(("RAS", "LIA", "PSR")):
        ids = head_labels(seed=i)
        save(tmp_path / "images" / f"s{i}.nii.gz", head_image(ids, seed=i), orientation)
        save(tmp_path / "aseg" / f"s{i}.nii.gz", ids, orientation)
        save(tmp_path / "muse" / f"s{i}.nii.gz", as_muse(ids), orientation)
    return tmp_path


def one_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("subjects: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_label_maps_and_images_of_two_atlases_are_interchangeable(cli, heads):
    result = cli("prep", "labels", "aseg", "--mapping", "freesurfer-4", "--out", "a.h5")
    assert result.exit_code == 0, result.output
    assert result.stdout == ("Subjects: 3 used, 0 left out\nCache: a.h5 (48 slices of 48 x 48)\nMontage: a.png\n")
    assert "subjects: 3/3" in result.stderr
    result = cli("prep", "nifti", "--images", "images", "--labels", "muse", "--mapping", "muse-4", "--out", "b.h5")
    assert result.exit_code == 0, result.output
    assert (heads / "b.png").read_bytes().startswith(b"\x89PNG")
    with Cache("a.h5") as a, Cache("b.h5") as b:
        assert (a.has_images, b.has_images) == (False, True)
        assert a.class_names == b.class_names
        assert (a.info.axis, a.info.orientation, a.shape) == (b.info.axis, b.info.orientation, b.shape)
        np.testing.assert_array_equal(a.read_labels(range(a.n)), b.read_labels(range(b.n)))
        assert a.info.source == "label maps: aseg"
    assert {p.name for p in heads.iterdir()} == {
        *("images", "aseg", "muse", "a.h5", "a.png", "a.report.json", "b.h5", "b.png", "b.report.json"),
    }


def test_structures_of_two_atlases_are_interchangeable(cli, heads):
    given = ("--spacing", "1.5", "--generate")
    result = cli(
        "prep", "labels", "aseg", "--mapping", "freesurfer-5", "--out", "a.h5", *given, "freesurfer-structures"
    )
    assert result.exit_code == 0, result.output
    scans = ("--images", "images", "--labels", "muse", "--mapping", "muse-5")
    result = cli("prep", "nifti", *scans, "--out", "b.h5", *given, "muse-structures")
    assert result.exit_code == 0, result.output
    result = cli("prep", "labels", "aseg", "--mapping", "freesurfer-5", "--spacing", "1.5", "--out", "c.h5")
    assert result.exit_code == 0, result.output
    with Cache("a.h5") as a, Cache("b.h5") as b, Cache("c.h5") as plain:
        assert a.generation_names == b.generation_names
        assert a.target.tolist() == b.target.tolist()
        assert a.slice_index.tolist() == b.slice_index.tolist() == plain.slice_index.tolist()
        mine, theirs = a.read_structures(range(a.n)), b.read_structures(range(b.n))
        np.testing.assert_array_equal(mine, theirs)
        assert a.generation_names[18] == "fluid outside the ventricles"
        assert (mine == 18).any()
        counts = [np.bincount(each.read_labels(range(each.n)).ravel(), minlength=6)[1:].tolist() for each in (a, plain)]
        assert counts[0] == counts[1]
    looked = CliRunner().invoke(main, ["inspect", "a.h5"]).stdout.splitlines()
    assert any(line.startswith("structure 18  fluid outside the ventricles: ") for line in looked)


def test_structures_from_a_file(cli, heads):
    rows = ["0,background,background", "507,background,background", "24,background,fluid", "16,white,stem"]
    rows += [f"{i},{name}" for i, name in ((2, "white,white"), (41, "white,white"), (3, "grey,cortex"))]
    rows += [f"{i},{name}" for i, name in ((42, "grey,cortex"), (10, "grey,thalamus"), (49, "grey,thalamus"))]
    rows += ["4,fluid,ventricle", "43,fluid,ventricle"]
    (heads / "mine.csv").write_text("\n".join(["id,class,structure", *rows]))
    result = cli("prep", "labels", "aseg", "--mapping", "mine.csv", "--out", "a.h5", "--slices", "all", "--no-montage")
    assert result.exit_code == 0, result.output
    with Cache("a.h5") as cache:
        assert cache.class_names == ("background", "white", "grey", "fluid")
        assert cache.generation_names == ("background", "fluid", "stem", "white", "cortex", "thalamus", "ventricle")
        assert cache.target.tolist() == [0, 0, 1, 1, 2, 2, 3]
        found = np.unique(cache.read_structures(range(cache.n)))
        assert found.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_cache_is_never_replaced_unasked(cli, heads):
    assert cli("prep", "labels", "aseg", "--out", "a.h5", "--no-montage").exit_code == 0
    assert one_line(cli("prep", "labels", "aseg", "--out", "a.h5"), 2) == (
        "Error: --out a.h5: exists already; give another name or --overwrite"
    )
    assert cli("prep", "labels", "aseg", "--out", "a.h5", "--overwrite", "--slices", "all").exit_code == 0


def test_a_bad_subject_is_named_and_the_others_are_kept(cli, heads):
    (heads / "aseg" / "s1.nii.gz").write_bytes(b"\x1f\x8b\x08")
    save(heads / "aseg" / "s2.nii.gz", np.where(head_labels() == 16, 4000, head_labels()).astype(np.int16))
    result = cli("prep", "labels", "aseg", "--mapping", "freesurfer-24", "--out", "a.h5", "--unknown", "background")
    assert result.exit_code == 0, result.output
    assert "Subjects: 2 used, 1 left out" in result.stdout
    assert "\nLeft out: s1: aseg/s1.nii.gz: is truncated, damaged or no NIfTI or MGH file" in "\n" + result.stderr
    assert json.loads((heads / "a.report.json").read_text())["left_out"][0]["name"] == "s1"


def test_unknown_ids_are_listed(cli, heads):
    odd = head_labels()
    odd[0, 0, :5] = 9999
    save(heads / "one" / "s.nii", odd)
    line = one_line(cli("prep", "labels", "one", "--out", "a.h5"), 1)
    assert "one/s.nii: mapping freesurfer-4 does not name id 9999 (5 voxels); --unknown background" in line


def test_volumes_spacing_and_size(cli, heads):
    arguments = ["prep", "nifti", "--images", "images", "--labels", "aseg", "--no-montage"]
    assert cli(*arguments, "--out", "v.h5", "--3d", "--spacing", "2", "--divisor", "8").exit_code == 0
    with Cache("v.h5") as cache:
        assert cache.shape == (24, 24, 24)
        assert cache.info.spacing_mm == (2.0, 2.0, 2.0)
    result = CliRunner().invoke(main, ["inspect", "v.h5", "--montage", "v.png"])
    assert result.exit_code == 0, result.output
    assert "3 volumes of 24 x 24 x 24" in result.stdout
    result = cli(*arguments, "--out", "s.h5", "--size", "16,64", "--axis", "sagittal", "--slices", "14,20")
    assert "Note: s0: " in result.stderr
    with Cache("s.h5") as cache:
        assert cache.shape == (16, 64)
        assert (cache.info.axis, cache.info.orientation) == ("sagittal", "IP")
        assert cache.slice_index.tolist() == [14, 20] * 3


def test_freesurfer_subjects_with_their_talairach_transform(cli, tmp_path):
    ids = head_labels()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-72, -100, -60]
    save(tmp_path / "subjects" / "bert" / "mri" / "aseg.mgz", ids, "LIA", affine=affine)
    save(tmp_path / "subjects" / "bert" / "mri" / "norm.mgz", head_image(ids), "LIA", affine=affine)
    xfm = tmp_path / "subjects" / "bert" / "mri" / "transforms" / "talairach.xfm"
    xfm.parent.mkdir()
    xfm.write_text("MNI Transform File\nLinear_Transform =\n1 0 0 0\n0 1 0 0\n0 0 1 4;\n")
    for align in ("none", "transforms"):
        result = cli("prep", "freesurfer", "subjects", "--align", align, "--out", f"{align}.h5", "--no-montage")
        assert result.exit_code == 0, result.output
        with Cache(f"{align}.h5") as cache:
            assert cache.subjects == ("bert",)
            assert cache.has_images
    given = ("--generate", "freesurfer-structures", "--out", "fine.h5", "--no-montage")
    assert cli("prep", "freesurfer", "subjects", *given).exit_code == 0
    with Cache("fine.h5") as fine, Cache("none.h5") as plain:
        assert len(np.unique(fine.read_structures(range(fine.n)))) == 7
        np.testing.assert_array_equal(fine.read_labels(range(fine.n)), plain.read_labels(range(plain.n)))


def test_bids(cli, tmp_path):
    ids = head_labels()
    anat = tmp_path / "study" / "sub-1" / "anat"
    save(anat / "sub-1_T1w.nii.gz", head_image(ids))
    save(tmp_path / "study" / "derivatives" / "fs" / "sub-1" / "anat" / "sub-1_desc-aseg_dseg.nii.gz", ids)
    result = cli("prep", "bids", "study", "--out", "b.h5", "--no-montage")
    assert result.exit_code == 0, result.output
    with Cache("b.h5") as cache:
        assert cache.subjects == ("sub-1",)
    given = ("--generate", "freesurfer-structures", "--out", "fine.h5", "--no-montage")
    assert cli("prep", "bids", "study", *given).exit_code == 0
    with Cache("fine.h5") as fine:
        assert fine.n_generation == 22


def test_oasis_slices_with_structures_of_a_file(cli, tmp_path):
    folder = tmp_path / "oasis" / "OASIS_OAS1_0001_MR1"
    folder.mkdir(parents=True)
    labels = np.zeros((160, 192, 1), np.float32)
    labels[20:140, 30:160] = np.random.default_rng(0).integers(1, 5, (120, 130, 1))
    nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "slice_seg24.nii.gz")
    nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "slice_norm.nii.gz")
    (tmp_path / "mine.csv").write_text("1,white,white\n2,grey,cortex\n3,grey,nuclei\n4,background,fluid\n")
    result = cli("prep", "oasis2d", "oasis", "--mapping", "mine.csv", "--out", "o.h5", "--no-montage")
    assert result.exit_code == 0, result.output
    with Cache("o.h5") as cache:
        counts = np.bincount(labels.astype(int).ravel())
        assert np.bincount(cache.read_structures([0]).ravel()).tolist() == counts.tolist()
        air, white, cortex, nuclei, fluid = counts.tolist()
        assert np.bincount(cache.read_labels([0]).ravel()).tolist() == [air + fluid, white, cortex + nuclei]


@pytest.mark.parametrize(
    ("mapping", "segmentation", "k"), [("oasis-4", "seg24", 5), ("oasis-24", "seg24", 25), ("oasis-tissue", "seg4", 5)]
)
def test_oasis_slices(cli, tmp_path, mapping, segmentation, k):
    rng = np.random.default_rng(0)
    for i in range(3):
        folder = tmp_path / "oasis" / f"OASIS_OAS1_000{i}_MR1"
        folder.mkdir(parents=True)
        labels = np.zeros((160, 192, 1), np.float32)
        labels[20:140, 30:160] = rng.integers(1, 25 if segmentation == "seg24" else 5, (120, 130, 1))
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / f"slice_{segmentation}.nii.gz")
        nib.save(nib.Nifti1Image(rng.random((160, 192, 1), np.float32), np.eye(4)), folder / "slice_norm.nii.gz")
    result = cli("prep", "oasis2d", "oasis", "--mapping", mapping, "--out", "o.h5", "--no-montage")
    assert result.exit_code == 0, result.output
    with Cache("o.h5") as cache:
        assert (cache.n, cache.shape, cache.n_classes) == (3, (192, 160), k)
        assert (cache.info.axis, cache.info.orientation) == ("coronal", "IR")
        assert cache.info.spacing_mm == (1.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels", "absent", "--out", "a.h5"], "PATHS absent: there is no such file or folder"),
        (["labels", "aseg", "--out", "no/a.h5"], "--out no/a.h5: the folder no does not exist"),
        (["labels", "aseg", "--out", "a.h5", "--mapping", "freesurfer4"], "did you mean 'freesurfer-4'?"),
        (["labels", "aseg", "--out", "a.h5", "--slices", "some"], "--slices some: expected all, around:N"),
        (["labels", "aseg", "--out", "a.h5", "--spacing", "0"], "--spacing 0: expected one number of mm above 0"),
        (["labels", "aseg", "--out", "a.h5", "--spacing", "1,2"], "--spacing 1,2: expected one number"),
        (["labels", "aseg", "--out", "a.h5", "--size", "20,20"], "--size 20 x 20: expected lengths divisible by 16"),
        (["labels", "aseg", "--out", "a.h5", "--size", "32"], "--size 32: expected H,W or D,H,W"),
        (["labels", "aseg", "--out", "a.h5", "--3d", "--size", "32,32"], "expected three lengths for volumes"),
        (["labels", "aseg", "--out", "a.h5", "--every", "0"], "--every: expected a number of mm above 0, got 0"),
        (["labels", "aseg", "--out", "a.h5", "--align", "transforms"], "--align transforms: needs --transforms PATH"),
        (
            ["labels", "aseg", "--out", "a.h5", "--align", "rigid", "--transforms", "aseg"],
            "cannot go with --transforms",
        ),
        (["freesurfer", "aseg", "--out", "a.h5"], "aseg: expected FreeSurfer subjects"),
        (["freesurfer", "absent", "--out", "a.h5"], "SUBJECTS_DIR absent: there is no such folder"),
        (["bids", "absent", "--out", "a.h5"], "absent: there is no such folder"),
        (["oasis2d", "aseg", "--out", "a.h5"], "aseg: expected folders with slice_norm.nii.gz"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(cli, heads, arguments, message):
    before = {p.name for p in heads.iterdir()}
    line = one_line_without_transforms(cli, heads, arguments)
    assert message in line
    assert {p.name for p in heads.iterdir()} == before


def one_line_without_transforms(cli, heads, arguments):
    if "--transforms" in arguments:
        arguments = [*arguments[:-1], str(heads / "aseg" / "s0.nii.gz")]
    return one_line(cli("prep", *arguments), 2)


def test_ctrl_c_says_how_to_go_on(cli, heads, monkeypatch):
    from metasynth.data_prep import parts

    def interrupt(scan, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "prepare", interrupt)
    result = cli("prep", "labels", "aseg", "--out", "a.h5")
    assert result.exit_code == 130
    assert result.stderr.split("\n") == [
        "What was prepared is kept; the same command goes on from there.",
        "",
        "Interrupted.",
        "",
    ]


def test_a_full_disk_is_one_line(cli, heads, full_disk):
    with full_disk():
        line = one_line(cli("prep", "labels", "aseg", "--out", "a.h5"), 1)
    assert line.endswith("cannot be written: No space left on device")
    assert not (heads / "a.h5").exists()


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom metasynth.cli.main import main\n"
        "try:\n    main(['prep', 'nifti', '--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'numpy', 'nibabel', 'torch', 'h5py', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--resample-labels" in result.stdout
