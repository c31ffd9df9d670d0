"""A study makes its results of what it learned as it went on: it never reads the records that it writes."""

import pytest
from metasynth.experiments.noise import EXPERIMENT as NOISE
from metasynth.experiments.real_world import EXPERIMENT as REAL_WORLD
from support import tiny_noise, tiny_unpaired
from support.tiny_comparison import carry_out, real_cache

from metasynth.run import execute
from metasynth.running.records import RunFolder


def noise(out, cache):
    overrides = [f"{key}={value}" for key, value in (tiny_noise.SETTINGS | {"sigma": "0.1"}).items()]
    execute(NOISE, out, overrides=overrides, seed=0, data=cache, device="cpu", threads=1, quiet=True)


STUDIES = {
    "noise": noise,
    "real_world": lambda out, cache: carry_out(REAL_WORLD, out, cache, methods="parametric_fixed"),
    "unpaired": lambda out, cache: tiny_unpaired.carry_out(out, cache, methods="intensities"),
}


@pytest.mark.parametrize("study", STUDIES)
def test_records_are_read_for_the_report_alone(study, tmp_path, monkeypatch):
    read, read_metrics = [], RunFolder.read_metrics

    def watched(folder):
        read.append(folder.finished)
        return read_metrics(folder)

    monkeypatch.setattr(RunFolder, "read_metrics", watched)
    STUDIES[study](tmp_path / "run", real_cache(tmp_path / "c.h5", subjects=6))
    assert set(read) == {True}
