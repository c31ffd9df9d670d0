import pytest

from metasynth.errors import DataError
from metasynth.predict.tables import read_table, write_table


def test_a_table_that_another_program_has_saved(tmp_path):
    path = tmp_path / "scores.csv"
    assert read_table(path) == []
    write_table(path, [{"name": "s1", "all": 0.25}, {"name": "s,2", "all": None}])
    rows = [{"name": "s1", "all": "0.25"}, {"name": "s,2", "all": ""}]
    assert read_table(path) == rows
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "other.csv").write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
        assert read_table(tmp_path / "other.csv") == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,all\ncaf\xe9,1\n", r", line 2: expected text in UTF-8, got the byte 0xE9; save the file as UTF-8$"),
        (b"name,all\n" + b"x" * 200_000, r": cannot be read as a table: field larger than field limit \(131072\)$"),
    ],
)
def test_a_table_that_is_none(tmp_path, content, message):
    (tmp_path / "scores.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "scores.csv")
