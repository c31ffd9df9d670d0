"""Sealed files: no bit of one can change without a line that says so."""

import io
import random
import zipfile

import numpy as np
import pytest
import torch
from metasynth.data_prep.parts import _is_part, _save, load_part
from metasynth.data_prep.prepare import Prepared
from support.tiny_model import CLASSES, describe
from support.tiny_noise import session

from metasynth.errors import DataError, RunError
from metasynth.running.checkpoint import load_checkpoint, save_checkpoint
from metasynth.running.examples import load_examples, save_examples
from metasynth.sealed import DamagedFileError, read_zip, seal
from metasynth.segment.model_file import load_model, save_model
from metasynth.segment.unet import UNet


def write_checkpoint(folder):
    save_checkpoint(folder / "a.pt", {"weights": torch.arange(6.0), "step": 3, "names": ["a", None]})
    return folder / "a.pt", load_checkpoint


def write_model(folder):
    save_model(folder / "m.pt", UNet(len(CLASSES), ndim=2, widths=(1, 1), norm=None), describe())
    return folder / "m.pt", load_model


def write_examples(folder):
    with session(folder / "run") as context:
        save_examples(context.folder, {"0.1/real": np.arange(6.0), "0.1/truth": np.arange(3)})
    return folder / "run" / "examples.npz", lambda path: load_examples(context.folder)


def write_part(folder):
    part = Prepared(np.eye(3, dtype=np.uint8)[None], np.ones((1, 3, 3), np.float32), np.zeros(1, int), (1.0, 2.0, 3.0))
    _save(folder / "p.npz", part)
    return folder / "p.npz", load_part


KINDS = {"checkpoint": write_checkpoint, "model": write_model, "examples": write_examples, "part": write_part}


def refused_with_one_bit_changed(path, read, bits):
    whole = path.read_bytes()
    read(path)
    for position, bit in bits(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << bit
        path.write_bytes(data)
        with pytest.raises((DataError, RunError)) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert path.suffix != ".npz" or not _is_part(path)
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_can_change_unnoticed(tmp_path, kind):
    draw = random.Random(0)
    path, read = KINDS[kind](tmp_path)
    most = 400

    def some(size):
        ends = [*range(120), *range(size - 200, size)]  # the seal and the last records among them
        return [(position, draw.randrange(8)) for position in {*ends, *draw.sample(range(size), min(size, most))}]

    refused_with_one_bit_changed(path, read, some)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_not_one_bit_can_change_unnoticed(tmp_path, kind):
    path, read = KINDS[kind](tmp_path)
    refused_with_one_bit_changed(path, read, lambda size: ((at, bit) for at in range(size) for bit in range(8)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sealed_file_cut_short_is_no_unsealed_one(tmp_path, kind):
    path, read = KINDS[kind](tmp_path)
    whole = path.read_bytes()
    seal_length = len(b"metasynth sha256 ") + 64
    for kept in (0, 1, 21, 22, len(whole) // 2, len(whole) - seal_length, len(whole) - 64, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises((DataError, RunError)):
            read(path)


def test_any_program_reads_a_sealed_file(tmp_path):
    path, _ = write_checkpoint(tmp_path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.arange(6.0))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"metasynth sha256 ")
    path, _ = write_examples(tmp_path)
    with np.load(path) as arrays:
        assert np.array_equal(arrays["0.1/real"], np.arange(6.0))


def test_files_from_before_there_were_seals_are_read_unless_one_is_asked_for(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.arange(3)}, path)
    assert torch.equal(load_checkpoint(path)["x"], torch.arange(3))
    with pytest.raises(RunError, match=r"is damaged \(it does not carry its SHA-256, so another program wrote it\)$"):
        load_checkpoint(path, sealed=True)
    data = path.read_bytes()
    path.write_bytes(data + b"x")
    with pytest.raises(RunError, match=r"is damaged \(it does not end as a zip file\)$"):
        load_checkpoint(path)


def test_where_a_file_is_damaged_is_told_where_its_checksums_know(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(100.0), b=np.arange(100.0) + 0.5)
    data = bytearray(seal(buffer))
    at = data.find((np.arange(100.0) + 0.5).tobytes()[80:160])
    data[at] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"^at b\.npy$"):
        read_zip(tmp_path / "a.npz")
    data[at] ^= 1
    data[-1] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"^its SHA-256 is not the one it carries$"):
        read_zip(tmp_path / "a.npz")
