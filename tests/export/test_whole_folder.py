"""A folder that is wholly there or not at all."""

import pytest

from metasynth.errors import RunError, UsageError
from metasynth.export.whole_folder import whole_folder


def test_it_comes_to_its_place_in_the_end(tmp_path):
    out = tmp_path / "out"
    with whole_folder(out) as folder:
        (folder / "a").write_text("a")
        assert not out.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


def test_an_empty_folder_is_taken(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with whole_folder(out) as folder:
        (folder / "a").write_text("a")
    assert (out / "a").read_text() == "a"


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_nothing_is_left_where_it_fails(tmp_path, error):
    def fail():
        with whole_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("a")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_a_line(tmp_path):
    with pytest.raises(RunError) as found, whole_folder(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert str(found.value) == f"{tmp_path / 'out'}: cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_written_over(tmp_path):
    taken, lost = tmp_path / "a", tmp_path / "gone" / "a"
    taken.write_text("mine")
    for out, line in (
        (taken, f"--out {taken}: exists already; give another name"),
        (tmp_path, f"--out {tmp_path}: exists already; give another name"),
        (lost, f"--out {lost}: the folder {lost.parent} does not exist"),
    ):
        with pytest.raises(UsageError) as found, whole_folder(out):
            pass
        assert str(found.value) == line
    assert taken.read_text() == "mine"
