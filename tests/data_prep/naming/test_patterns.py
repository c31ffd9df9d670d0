import glob
from pathlib import Path

import pytest
from metasynth.data_prep.naming.patterns import find_matching


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.nii", "a/b/x.nii", "a/b/c/y.nii", "z.nii", "[odd]/x.nii", ".hidden/x.nii"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern", ["*.nii", "**/*.nii", "a/**/*.nii", "**/b/**/*.nii", "a/**", "*/x.nii", "**/x.*", "no/**/*", "**/../a/*"]
)
@pytest.mark.parametrize("absolute", [False, True])
def test_without_links_it_is_glob(tree, pattern, absolute):
    pattern = f"{tree}/{pattern}" if absolute else pattern
    found = {path for path in find_matching(pattern) if path.is_file()}
    assert {p.resolve() for p in found} == {
        Path(p).resolve() for p in glob.glob(pattern, recursive=True) if Path(p).is_file()
    }
    assert len(found) == len({p.resolve() for p in found}) or ".." in pattern


def test_links_that_lead_back_are_looked_into_once(tree):
    for n in range(12):
        Path(f"a/b/loop{n}").symlink_to(tree)
    Path("self").symlink_to("self")
    Path("0").symlink_to("a")  # a second name that comes first
    assert [str(path) for path in find_matching("**/*.nii")] == [
        "[odd]/x.nii",
        "a/b/c/y.nii",
        "a/b/x.nii",
        "a/x.nii",
        "z.nii",
    ]


def test_links_to_other_folders_are_followed(tree, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "w.nii").touch()
    Path("a/link").symlink_to(other)
    assert find_matching("a/**/w.nii") == [Path("a/link/w.nii")]
