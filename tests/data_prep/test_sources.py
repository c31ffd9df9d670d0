from pathlib import Path

import pytest
from metasynth.data_prep.sources import find_files, label_scans, name_files, pair, stem, with_files

from metasynth.errors import UsageError


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def test_folders_patterns_files_and_lists(tmp_path, monkeypatch):
    a, b, c = touch(tmp_path / "seg", "b.nii.gz", "a.nii", "c.mgz")
    touch(tmp_path / "seg", "LICENSE.txt", ".hidden.nii", "below/d.nii")
    (tmp_path / "list.txt").write_text("# two of them\nseg/c.mgz\n\nseg/a.nii  # last\n")
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in find_files(["seg"], "PATHS")] == ["a.nii", "b.nii.gz", "c.mgz"]
    assert find_files([str(tmp_path / "seg" / "*.nii*")], "PATHS") == [b, a]
    assert find_files(["seg/**/*.nii"], "PATHS") == [Path("seg/a.nii"), Path("seg/below/d.nii")]
    assert find_files([str(tmp_path / "list.txt")], "PATHS") == [c, b]
    assert find_files([str(a), str(a)], "PATHS") == [a]


@pytest.mark.parametrize(
    ("given", "message"), [("none", "there is no such file or folder"), ("*.nii", "holds no file")]
)
def test_what_is_not_there(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        find_files([given], "--images")


def test_lists_as_editors_write_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = touch(tmp_path, "odd/a#1.nii.gz", "odd/b c.nii.gz")
    for encoding, end in (("utf-8-sig", "\r\n"), ("utf-16", "\r"), ("utf-8", "\n")):
        lines = ["# all", "odd/a#1.nii.gz  # first", "\todd/b c.nii.gz\t", "~nobody-of-that-name/c.nii", ""]
        (tmp_path / "list.txt").write_bytes(end.join(lines).encode(encoding))
        third = tmp_path / "~nobody-of-that-name" / "c.nii"
        assert find_files([str(tmp_path / "list.txt")], "PATHS") == [first, second, third]


def test_quotes_around_the_paths_of_a_list(tmp_path):
    files = touch(tmp_path, "a.nii", "b #1.nii", "c.nii", "'d.nii'", "'e.nii")
    lines = ['"a.nii"', '  "b #1.nii"  # the first', "'c.nii'", "'d.nii'", "'e.nii", '"']
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert find_files([str(tmp_path / "list.txt")], "PATHS") == [*files, tmp_path / '"']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a.nii\n" + b"x" * 200_000,
            r"^PATHS list.txt, line 2: expected a path, got 'x{40}\.\.\.x{20}' \(200000 char",
        ),
        (b"a.nii\nb\0.nii", "^PATHS list.txt, line 2: expected text, got a NUL byte; save the file as UTF-8$"),
        (
            b"a.nii\ncaf\xe9.nii",
            "^PATHS list.txt, line 2: expected text in UTF-8, got the byte 0xE9; save the file as U",
        ),
        (b"\n# none\n", "^PATHS list.txt: holds no file that ends in"),
    ],
)
def test_lists_that_are_none(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        find_files(["list.txt"], "PATHS")


def test_endings_in_capitals_and_odd_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "A.NII.GZ", "B.MGZ", "c.nii.GZ", "d.txt")
    assert [path.name for path in find_files(["."], "PATHS")] == ["A.NII.GZ", "B.MGZ", "c.nii.GZ"]
    for given in ("~nobody-of-that-name", "a\0b", "~nobody-of-that-name/*.nii", "*\0"):
        with pytest.raises(UsageError, match=r"there is no such file or folder|holds no file"):
            find_files([given], "PATHS")


def test_an_empty_folder(tmp_path):
    with pytest.raises(UsageError, match=r"--images .*: holds no file that ends in \.nii\.gz, \.nii, \.mgz"):
        find_files([str(tmp_path)], "--images")


def test_names():
    assert stem(Path("x/sub-1.v2.nii.gz")) == "sub-1.v2"
    named = name_files([Path("s1/aseg.mgz"), Path("s2/aseg.mgz")])
    assert (list(named.files), named.doubles) == (["s1", "s2"], {})


def test_two_files_of_one_name_are_left_out_and_both_are_named():
    sources = label_scans([Path("a/s1.nii"), Path("b/s1.nii"), Path("b/s2.nii")])
    assert [scan.name for scan in sources.scans] == ["s2"]
    assert sources.left_out == [("s1", "2 files have this name: a/s1.nii, b/s1.nii")]
    sources = pair([Path("a/s1.nii"), Path("b/s1.nii"), Path("b/s2.nii")], [Path("c/s1.nii"), Path("c/s2.nii")])
    assert [scan.name for scan in sources.scans] == ["s2"]
    assert [name for name, _ in sources.left_out] == ["s1"]


def test_pairs_by_name_and_by_what_remains_of_it():
    sources = pair([Path("i/s2.nii"), Path("i/s1.nii.gz")], [Path("l/s1.mgz"), Path("l/s2.nii")])
    assert [(s.name, s.image, s.labels) for s in sources.scans] == [
        ("s1", Path("i/s1.nii.gz"), Path("l/s1.mgz")),
        ("s2", Path("i/s2.nii"), Path("l/s2.nii")),
    ]
    sources = pair([Path("s1_T1w.nii"), Path("s2_T1w.nii")], [Path("s2_x_seg.nii"), Path("s1_x_seg.nii")])
    assert [(s.name, s.labels.name) for s in sources.scans] == [("s1", "s1_x_seg.nii"), ("s2", "s2_x_seg.nii")]
    assert [s.name for s in pair([Path("s1_T1w.nii")], [Path("s1_seg.nii")]).scans] == ["s1"]


def test_a_missing_partner_is_left_out_and_named():
    sources = pair([Path("i/s1.nii"), Path("i/s2.nii")], [Path("l/s2.nii"), Path("l/s3.nii")])
    assert [s.name for s in sources.scans] == ["s2"]
    assert sources.left_out == [
        ("s1", "i/s1.nii: has no label map; none is called s1; they are called s2, s3"),
        ("s3", "l/s3.nii: has no image; none is called s3; they are called s1, s2"),
    ]


def test_masks_and_transforms_go_with_their_scans():
    sources = label_scans([Path("s1.nii"), Path("s2.nii")])
    sources = with_files(sources, [Path("m/s1_mask.nii")], "mask")
    assert [(s.name, s.mask) for s in sources.scans] == [("s1", Path("m/s1_mask.nii"))]
    reason = "has no mask; none of the 1 files given is called s2; they are called s1_mask"
    assert sources.left_out == [("s2", reason)]
