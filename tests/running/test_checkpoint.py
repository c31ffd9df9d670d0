import random

import numpy as np
import pytest
import torch

from metasynth.errors import RunError
from metasynth.running.checkpoint import (
    capture_random_states,
    load_checkpoint,
    restore_random_states,
    save_checkpoint,
)


def draws():
    return random.gauss(0, 1), float(np.random.normal()), float(torch.randn(()))  # noqa: NPY002


def test_state_comes_back(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 3,
        "name": "a",
        "none": None,
    }
    save_checkpoint(tmp_path / "new" / "a.pt", state)
    loaded = load_checkpoint(tmp_path / "new" / "a.pt")
    assert loaded["step"] == 3
    assert loaded["none"] is None
    assert torch.equal(loaded["model"]["weight"], model.weight)
    moments = loaded["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moments, optimizer.state_dict()["state"][0]["exp_avg"])


def test_random_states_come_back_through_a_file(tmp_path):
    draws()  # an odd number of Gaussian draws leaves a second one waiting in the state
    save_checkpoint(tmp_path / "a.pt", capture_random_states())
    expected = [draws() for _ in range(3)]
    draws()
    restore_random_states(load_checkpoint(tmp_path / "a.pt"))
    assert [draws() for _ in range(3)] == expected


def test_the_random_state_of_a_device_comes_back_through_a_file(tmp_path, device):
    torch.rand(3, device=device)
    save_checkpoint(tmp_path / "a.pt", capture_random_states())
    expected = torch.randn(5, device=device)
    torch.rand(7, device=device)
    restore_random_states(load_checkpoint(tmp_path / "a.pt"))
    assert torch.equal(torch.randn(5, device=device), expected)


def test_what_was_on_a_device_is_read_on_the_cpu(tmp_path, device):
    """So a run goes on where there is no GPU."""
    value = torch.arange(5.0, device=device)
    save_checkpoint(tmp_path / "a.pt", {"x": [value]})
    (found,) = load_checkpoint(tmp_path / "a.pt")["x"]
    assert found.device.type == "cpu"
    assert torch.equal(found, value.cpu())


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"x": torch.arange(100)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(RunError, match=r"a\.pt: the checkpoint is damaged"):
        load_checkpoint(path)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"x": torch.arange(1000.0)})
    data = bytearray(path.read_bytes())
    at = data.find(torch.arange(1000.0).numpy().tobytes()[400:440])
    data[at] ^= 1
    path.write_bytes(data)
    assert at > 0
    assert not torch.equal(torch.load(path, weights_only=True)["x"], torch.arange(1000.0))
    with pytest.raises(RunError, match=r"a\.pt: the checkpoint is damaged"):
        load_checkpoint(path)


def test_other_content_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(RunError, match=r"a\.pt: the checkpoint cannot be read: No such file"):
        load_checkpoint(path)
    torch.save({"call": random.Random}, path)
    with pytest.raises(RunError, match="more than tensors and plain values"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(RunError, match="holds a list, not a dict"):
        load_checkpoint(path)


def test_a_failed_write_keeps_the_earlier_checkpoint(tmp_path, full_disk):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"x": 1})
    with full_disk(), pytest.raises(RunError, match=r"a\.pt: cannot be written: No space left on device"):
        save_checkpoint(path, {"x": 2})
    assert load_checkpoint(path) == {"x": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]
