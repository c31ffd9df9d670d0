"""Files that are wholly there or not at all, and what killed processes leave behind of them."""

import errno
import fcntl
import os

import pytest

from metasynth.files import is_leftover, remove_leftovers, write_atomically


def test_only_temporary_files_of_ours_are_left_over(tmp_path):
    ours, others = [".a.json.0a1b2c3d4e5f.tmp", ".c.pt.123.tmp"], [".notes.tmp", "a.json.0a1b.tmp", ".a.0a1b.tmp~"]
    for name in (*ours, *others):
        for folder in (tmp_path, tmp_path / "below"):
            folder.mkdir(exist_ok=True)
            (folder / name).write_text("x")
        assert is_leftover(name) == (name in ours)
    remove_leftovers(tmp_path, below=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "below"])
    assert len(list((tmp_path / "below").iterdir())) == 5
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == sorted(others)


def test_a_write_removes_what_killed_writes_of_the_file_left(tmp_path):
    dead, other = tmp_path / ".a.json.0a1b2c3d4e5f.tmp", tmp_path / ".b.json.0a1b2c3d4e5f.tmp"
    for path in (dead, other):
        path.write_text("x")
    write_atomically(tmp_path / "a.json", b"{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "a.json"]


@pytest.mark.parametrize("tidy", [lambda folder: write_atomically(folder / "a.json", b"{}"), remove_leftovers])
def test_what_is_being_written_is_not_removed(tmp_path, monkeypatch, tidy):
    replace, seen = os.replace, []

    def replaced(source, target):
        monkeypatch.setattr(os, "replace", replace)
        tidy(tmp_path)  # as another process that writes the same file, or takes up the folder
        seen.append(source.exists())
        replace(source, target)

    monkeypatch.setattr(os, "replace", replaced)
    write_atomically(tmp_path / "a.json", b"[]")
    assert seen == [True]
    assert (tmp_path / "a.json").read_bytes() == b"[]"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_is_removed_before_it_is_locked_is_begun_again(tmp_path, monkeypatch):
    flock, begun = fcntl.flock, []

    def late(file, operation):
        (path,) = tmp_path.glob(".*.tmp")
        begun.append(path.name)
        if len(begun) < 3:
            path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write_atomically(tmp_path / "a.json", b"{}")
    assert len(set(begun)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_without_locks_only_the_one_writer_of_a_folder_removes_temporary_files(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / ".a.json.0a1b.tmp").write_text("x")
    write_atomically(tmp_path / "a.json", b"{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.json.0a1b.tmp", "a.json"]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
