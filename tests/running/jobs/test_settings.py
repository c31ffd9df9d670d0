"""What ``--launcher-set`` takes."""

import pytest

from metasynth.errors import UsageError
from metasynth.running.jobs.settings import LOCAL, SLURM, read_settings


def test_values_have_the_types_that_submitit_wants():
    texts = ["partition=gpu, gpus_per_node=1,timeout_min=240", "mem_gb=7.5", "exclusive=True;nodelist=a1,a2"]
    texts += ["setup=module load cuda", "srun_args=--cpu-bind none"]
    assert read_settings(texts, SLURM) == {
        "partition": "gpu",
        "gpus_per_node": 1,
        "timeout_min": 240,
        "mem_gb": 7.5,
        "exclusive": True,
        "nodelist": "a1,a2",
        "setup": ["module load cuda"],
        "srun_args": ["--cpu-bind", "none"],
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timeout_min", "timeout_min: expected KEY=VALUE,..., for example timeout_min=240"),
        ("", ": expected KEY=VALUE,..., for example timeout_min=240"),
        ("partition=gpu,", "partition=gpu,: expected KEY=VALUE,..., for example timeout_min=240"),
        ("partiton=gpu", "partiton: there is no such setting: did you mean 'partition'?"),
        ("timeout_min=0", "timeout_min: expected a whole number of at least 1, got '0'"),
        ("timeout_min=2h", "timeout_min: expected a whole number of at least 1, got '2h'"),
        ("mem_gb=nan", "mem_gb: expected a number of gigabytes, got 'nan'"),
        ("exclusive=user", "exclusive: expected true or false, got 'user'"),
        ("srun_args='a", 'srun_args: expected words, got "\'a"'),
        ("timeout_min=5,timeout_min=6", "timeout_min: is given twice"),
    ],
)
def test_what_cannot_be_is_told(text, told):
    with pytest.raises(UsageError) as caught:
        read_settings([text], SLURM)
    assert str(caught.value) == f"--launcher-set {told}"


def test_this_machine_has_no_partitions():
    with pytest.raises(UsageError, match="--launcher-set partition: there is no such setting: choose from "):
        read_settings(["partition=gpu"], LOCAL)
