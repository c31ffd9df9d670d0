"""The example of docs/guides/processes.md, as a user starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "processes.md"


@pytest.mark.slow
def test_the_example_gives_the_same_with_one_and_two_processes(tmp_path: Path) -> None:
    script = next(
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "main()" in block
    )
    printed, states = [], []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "train.py").write_text(script)
        launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(count), "train.py"]
        done = subprocess.run(
            [sys.executable, "-m", *launch],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.splitlines())
        states.append(torch.load(folder / "checkpoint.pt", weights_only=True))
    single, double = printed
    assert [line.split(":")[0] for line in double] == ["step 20", "step 40", "step 60"]
    for one, two in zip(single, double, strict=True):
        pairs = zip(re.findall(r"\d\.\d+", one), re.findall(r"\d\.\d+", two), strict=True)
        assert all(float(a) == pytest.approx(float(b), abs=2e-3) for a, b in pairs), (single, double)
    sigma = float(double[-1].split()[-1])
    assert 0.07 < sigma < 0.4  # it began at 0.05
    assert states[1]["inner_steps"] == states[1]["outer_steps"] == 60
