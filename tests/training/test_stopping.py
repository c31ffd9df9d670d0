"""What the core raises in a run becomes one line, whichever study it is."""

import pytest
from click.testing import CliRunner

from metasynth.bilevel.step_report import NonFiniteError
from metasynth.cli.main import main
from metasynth.errors import DataError, RunError
from metasynth.training.stopping import stopped_in_one_line

WORKER = (
    "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  ...\nsaid so\n"
)


@pytest.mark.parametrize(
    ("error", "ending", "line"),
    [
        (NonFiniteError(3, "loss", float("inf")), "", "run: x stopped: loss is inf at step 3"),
        (ValueError("no such thing"), "go on", "run: x stopped: no such thing; go on"),
        (ValueError("the first line\nand more"), "", "run: x stopped: the first line"),
        (ValueError(WORKER), "", "run: x stopped: said so"),
        (ValueError(), "", "run: x stopped: ValueError"),
    ],
)
def test_lines(error, ending, line):
    with pytest.raises(RunError) as caught, stopped_in_one_line("run: x", ending):
        raise error
    assert str(caught.value) == line
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [DataError("c.h5: damaged"), RunError("a/b"), KeyboardInterrupt(), TypeError("a bug")]
)
def test_what_is_shown_already_or_no_users_fault_passes(error):
    with pytest.raises(type(error)) as caught, stopped_in_one_line("run: x"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("study", "changed", "stopped"),
    [
        ("ridge", ("lr=1e30", "problems=1", "strategies=unrolled"), "inner loss is inf at step 7"),
        ("ridge", ("lr=1e30", "problems=1", "strategies=implicit", "start=0.01"), "inner loss is inf at step 7"),
        ("sinusoid", ("inner_lr=1e30",), "inner loss is nan at step 2"),
        ("hyper_cleaning", ("lr=1e38", "steps=5", "repeats=1"), "outer loss is inf at step 1"),
    ],
)
def test_studies_without_stages(tmp_path, study, changed, stopped):
    out = tmp_path / "run"
    words = ["run", study, "--out", str(out), "--device", "cpu", "--threads", "1", "--quiet"]
    found = CliRunner().invoke(main, [*words, *(word for one in changed for word in ("--set", one))])
    assert found.exit_code == 1
    assert found.output.splitlines()[-1] == f"Error: {out}: {study} stopped: {stopped}"
    assert "Traceback" not in found.output


def test_a_baseline_that_diverges(tmp_path):
    """Of plain training too: here from weights that are not finite."""
    import torch
    from metasynth.experiments.hyper_cleaning.problem import train_weighted
    from metasynth.experiments.hyper_cleaning.settings import HyperCleaningConfig

    config = HyperCleaningConfig(train=20, validation=10, steps=2, batch_size=5)
    data = torch.rand(20, 64), torch.zeros(20, dtype=torch.long)
    with pytest.raises(NonFiniteError, match=r"^loss is nan at step 1$"):
        train_weighted(config, 0, data, torch.full((20,), float("nan")))
