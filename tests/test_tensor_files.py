"""Files of tensors: what is written is read, and each reason why one is not is one line of the caller's kind."""

import pickle
from pathlib import Path

import pytest
import torch

from metasynth.errors import DataError, RunError
from metasynth.tensor_files import load_tensors, save_tensors


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = {"weights": torch.arange(3.0), "rest": [1, ("two", None)]}
    save_tensors(tmp_path / "new" / "a.pt", content)
    found = load_tensors(tmp_path / "new" / "a.pt", "the file", DataError, sealed=True)
    assert torch.equal(found["weights"], content["weights"])
    assert found["rest"] == content["rest"]


def unsealed(path: Path) -> None:
    torch.save({}, path)


def changed(path: Path) -> None:
    save_tensors(path, {"a": torch.zeros(3)})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("failure", [DataError, RunError])
@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda path: None, "the file cannot be read: No such file or directory"),
        (lambda path: path.write_text("text"), "the file is damaged or no such file (it does not end as a zip file)"),
        (changed, "the file is damaged (its SHA-256 is not the one it carries)"),
        (unsealed, "the file is damaged (it does not carry its SHA-256, so another program wrote it)"),
        (lambda path: save_tensors(path, {"a": pickle.Pickler}), "the file holds more than tensors and plain values"),
    ],
    ids=["missing", "text", "changed", "unsealed", "code"],
)
def test_why_a_file_is_not_read(tmp_path, failure, spoil, line):
    path = tmp_path / "a.pt"
    spoil(path)
    with pytest.raises(failure) as refused:
        load_tensors(path, "the file", failure, sealed=True, otherwise=" or no such file")
    assert str(refused.value) == f"{path}: {line}"


def test_what_is_no_dict_is_told(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "a.pt")
    with pytest.raises(DataError) as refused:
        load_tensors(tmp_path / "a.pt", "the file", DataError)
    assert str(refused.value) == f"{tmp_path / 'a.pt'}: the file holds a list, not a dict"
