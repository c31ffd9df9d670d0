"""What may go wrong once the noise study runs: a full disk, a number that is not finite. It can be resumed."""

import resource
from dataclasses import dataclass

import pytest
import torch
from click.testing import CliRunner
from metasynth.experiments.recovery import study as recovery_study
from support.tiny_noise import arguments, make_cache, results

from metasynth.cli.main import main
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.records import RunFolder
from metasynth.running.seeding import derive_seed
from metasynth.training import loop
from metasynth.training.sources import Corrupted

SMALL = {"segmenter.steps": "10", "outer.warmup": "3", "baselines": "false"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache") / "c.h5")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    run = tmp_path_factory.mktemp("whole") / "run"
    done = CliRunner().invoke(main, arguments(run, cache, **SMALL), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return run


@pytest.fixture
def fill_disk():
    """A function after which no file can grow beyond so many bytes, until the disk is emptied again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(limit=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, before if limit is None else (limit, before[1]))

    yield fill
    fill()


def failed(result):
    """The one line of a failure, after those of the progress."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    *before, last = result.stderr.splitlines()
    assert all(line.startswith(("Run folder: ", "sigma=")) for line in before)
    assert last.startswith("Error: ")
    return last.removeprefix("Error: ")


def resumes(run, whole):
    done = CliRunner().invoke(main, ["run", "noise", "--resume", "--out", str(run)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert results(run) == results(whole)
    names = [{path.relative_to(run).as_posix() for path in run.rglob("*")} for run in (run, whole)]
    assert names[0] == names[1]
    return True


def at_call(patch, owner, name, count, act):
    """Have ``act(*arguments)`` run before the ``count``-th call of a function."""
    function, calls = getattr(owner, name), []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == count:
            act(*arguments)
        return function(*arguments)

    patch.setattr(owner, name, counted)


@pytest.mark.parametrize("step", [2, 8])
def test_the_disk_fills_up_while_records_are_written(tmp_path, cache, whole, fill_disk, step):
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, RunFolder, "append", step, lambda folder, _: fill_disk(folder.position + 10))
        line = failed(CliRunner().invoke(main, arguments(tmp_path / "run", cache, **SMALL)))
        fill_disk()
    assert line == f"{tmp_path / 'run' / 'metrics.jsonl'}: cannot be written: File too large"
    written = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert written.count(b"\n") == step - 1
    assert (whole / "metrics.jsonl").read_bytes().startswith(written)
    assert resumes(tmp_path / "run", whole)


@pytest.mark.parametrize(("save", "name"), [(1, "latest.pt"), (4, "final.pt")])
def test_the_disk_fills_up_while_a_checkpoint_is_written(tmp_path, cache, whole, fill_disk, save, name):
    folder = tmp_path / "run" / "checkpoints" / "sigma=0.1-learn"
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, loop, "save_checkpoint", save, lambda path, state: fill_disk(5000))
        line = failed(CliRunner().invoke(main, arguments(tmp_path / "run", cache, **SMALL)))
        fill_disk()
    assert line == f"{folder / name}: cannot be written: File too large"
    kept = [path.name for path in folder.iterdir()]
    assert kept == ([] if save == 1 else ["latest.pt"])
    if save > 1:  # the earlier checkpoint is whole
        assert load_checkpoint(folder / "latest.pt")["step"] == 3 * (save - 1)
    assert resumes(tmp_path / "run", whole)


@pytest.mark.parametrize("name", ["examples.npz", "results.json", "figures/images.png"])
def test_the_disk_fills_up_while_results_are_written(tmp_path, cache, whole, fill_disk, name):
    write = RunFolder.write_bytes

    def filling(folder, written, data):
        fill_disk(100 if written == name else None)
        return write(folder, written, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write_bytes", filling)
        line = failed(CliRunner().invoke(main, arguments(tmp_path / "run", cache, **SMALL)))
        fill_disk()
    assert line == f"{tmp_path / 'run' / name}: cannot be written: File too large"
    assert not (tmp_path / "run" / name).exists()
    assert resumes(tmp_path / "run", whole)


def test_a_disk_that_is_full_from_the_start(tmp_path, cache, full_disk):
    with full_disk():
        line = failed(CliRunner().invoke(main, arguments(tmp_path / "run", cache, **SMALL)))
    assert line == f"{tmp_path / 'run' / 'config.json'}: cannot be written: No space left on device"
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


@dataclass(frozen=True)
class Spoiled:
    """The real examples, of which one voxel is not a number at one step."""

    source: Corrupted
    seed: int

    def __call__(self, batch, generator):
        example = self.source(batch, generator)
        if generator.initial_seed() == self.seed:
            example.images[0, 0, 0, 0] = torch.nan
        return example


def test_a_loss_that_is_not_finite(tmp_path, cache, whole):
    with pytest.MonkeyPatch.context() as patch:
        seed = derive_seed(0, "outer", 7)
        patch.setattr(recovery_study, "Corrupted", lambda *parts: Spoiled(Corrupted(*parts), seed))
        line = failed(CliRunner().invoke(main, arguments(tmp_path / "run", cache, **SMALL)))
    latest = tmp_path / "run" / "checkpoints" / "sigma=0.1-learn" / "latest.pt"
    assert line == (
        f"{tmp_path / 'run'}: stage sigma=0.1/learn stopped: outer loss is nan at step 8; "
        f"last good checkpoint: {latest} (step 6)"
    )
    assert load_checkpoint(latest)["step"] == 6
    assert resumes(tmp_path / "run", whole)
