"""Studies whose hypergradients follow several inner steps: they run, resume, and report what they learned."""

import json
from contextlib import suppress

import pytest
from click.testing import CliRunner
from metasynth.experiments.real_world import EXPERIMENT as REAL_WORLD
from support import tiny_comparison
from support.tiny_noise import arguments, make_cache, results

from metasynth.cli.main import main
from metasynth.running.records import RunFolder


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def with_hypergradient(run, stage):
    return [record["step"] for record in records(run) if record["stage"] == stage and "hypergradient_norm" in record]


def interrupted_before(stage, step, carry_out):
    """Carry out until a record of a stage is to be written, among those of the steps that were taken as one."""
    append = RunFolder.append

    def stopping(folder, record):
        if (record["stage"], record["step"]) == (stage, step):
            raise KeyboardInterrupt
        append(folder, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        with suppress(KeyboardInterrupt):
            carry_out()


def metasynth(command):
    return CliRunner().invoke(main, command, catch_exceptions=False)


def test_noise(tmp_path):
    cache = make_cache(tmp_path / "c.h5")
    settings = {"outer__horizon": "5", "outer__mean_of": "3", "outer__every": "10", "segmenter__steps": "26"}

    def asked(name, **others):
        return arguments(tmp_path / name, cache, baselines="false", **settings | others)

    done = metasynth(asked("whole"))
    assert done.exit_code == 0, done.output
    assert with_hypergradient(tmp_path / "whole", "sigma=0.1/learn") == [10, 20]  # the third window would end at 30
    assert [record["step"] for record in records(tmp_path / "whole")] == list(range(1, 27))
    interrupted_before("sigma=0.1/learn", 18, lambda: metasynth(asked("again")))
    assert len(records(tmp_path / "again")) == 17
    done = metasynth(["run", "noise", "--resume", "--out", str(tmp_path / "again"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert records(tmp_path / "again") == records(tmp_path / "whole")
    assert results(tmp_path / "again") == results(tmp_path / "whole")
    (row,) = results(tmp_path / "whole")["rows"]
    assert row["sigma_learned"] == records(tmp_path / "whole")[19]["sigma"] != 0.4
    assert "learned σ" in (tmp_path / "again" / "report.html").read_text()
    assert metasynth(["report", str(tmp_path / "whole")]).exit_code == 0


def test_real_images(tmp_path):
    cache = tiny_comparison.real_cache(tmp_path / "c.h5", subjects=6)
    settings = {"methods": "parametric_fixed", "outer.horizon": "3", "outer.mean_of": "2", "outer.every": "3"}
    settings |= {"segmenter.steps": "9", "subjects.train": "2", "select_every": "2"}

    def carry_out(name, resume=False):
        return tiny_comparison.carry_out(REAL_WORLD, tmp_path / name, cache, resume=resume, **settings)

    carry_out("whole")
    (stage,) = {record["stage"] for record in records(tmp_path / "whole")}
    assert with_hypergradient(tmp_path / "whole", stage) == [5, 8]
    looks = [record["step"] for record in records(tmp_path / "whole") if "validation" in record]
    assert looks == [2, 5, 8, 9]  # 4, 6 and 8 are of a window of the steps 3 to 5 or 6 to 8
    interrupted_before(stage, 7, lambda: carry_out("again"))
    assert len(records(tmp_path / "again")) == 6
    carry_out("again", resume=True)
    assert records(tmp_path / "again") == records(tmp_path / "whole")
    assert tiny_comparison.results(tmp_path / "again") == tiny_comparison.results(tmp_path / "whole")
