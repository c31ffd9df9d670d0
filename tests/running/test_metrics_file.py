import pytest

from metasynth.errors import DataError, RunError
from metasynth.running.integrity.checks import SUMS
from metasynth.running.manifest import make_manifest
from metasynth.running.records import METRICS, RESULTS, RunFolder

MANIFEST = make_manifest("noise", "quick", 0, {"sigma": [0.1]}, {"path": "a.h5", "digest": "d", "given": False})


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def test_metrics_on_a_disk_that_fills_up_stay_whole(out):
    class Filling:
        """A file on a disk with room for half a line."""

        def __init__(self, file):
            self.file, self.room = file, 5

        def write(self, data):
            if not self.room:
                raise OSError(28, "No space left on device")
            room, self.room = self.room, 0
            return self.file.write(data[:room])

        def __getattr__(self, name):
            return getattr(self.file, name)

    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0})
        folder._metrics._file = Filling(folder._metrics._file)
        with pytest.raises(RunError, match=rf"{METRICS}: cannot be written: No space left on device"):
            folder.append({"step": 1})
        assert (out / METRICS).read_bytes() == b'{"step":0}\n'
        assert folder.position == len(b'{"step":0}\n')


def test_metrics_are_strict_json_lines(out):
    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0, "loss": 0.5})
        with pytest.raises(RunError, match=r"loss\.real is not a finite number"):
            folder.append({"step": 1, "loss": {"real": float("nan")}})
        with pytest.raises(RunError, match="a is not a finite number"):
            folder.write_json("x.json", {"a": float("inf")})
        folder.append({"step": 1})
        assert folder.read_metrics() == [{"step": 0, "loss": 0.5}, {"step": 1}]
    assert not (out / "x.json").exists()


def test_metrics_are_cut_back_to_a_checkpoint(out):
    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0})
        known = folder.sync()
        assert known == folder.position == (out / METRICS).stat().st_size
        folder.append({"step": 1})
    with (out / METRICS).open("ab") as file:
        file.write(b'{"step":')  # as a kill may leave it
    with RunFolder.resume(out, MANIFEST) as folder:
        assert folder.read_metrics() == [{"step": 0}, {"step": 1}]
        folder.truncate(known)
        folder.append({"step": 7})
        assert folder.read_metrics() == [{"step": 0}, {"step": 7}]
        with pytest.raises(RunError, match="fewer than the 999 of the checkpoint"):
            folder.truncate(999)


def test_results_are_not_made_of_records_that_another_program_changed(out):
    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0})
        (out / METRICS).write_bytes(b'{"step":1}\n')
        with pytest.raises(DataError) as refused:
            folder.write_json(RESULTS, {"rows": []})
    assert str(refused.value) == f"{out / METRICS}: was changed by another program while the run was writing it"
    assert not {RESULTS, SUMS} & {path.name for path in out.iterdir()}


@pytest.mark.parametrize("line", ["{", "[1]", "NaN x"])
def test_a_damaged_line_is_named(out, line):
    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0})
    with (out / METRICS).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=rf"{METRICS}: line 2"):
        RunFolder.open(out).read_metrics()


def test_who_follows_is_told_the_position_after_every_change(out):
    with RunFolder.create(out, MANIFEST) as folder:
        told = []
        folder.follow(told.append)
        folder.append({"step": 0})
        folder.append({"step": 1})
        folder.truncate(11)
        assert told == [11, 22, 11]
