"""Files of runs of every study that are edited, lost or exchanged: one line, or the same results."""

import shutil
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from support.tampering import STUDIES, carry_out, content, outcome, stopped, tamperings
from support.tiny_comparison import real_cache

from metasynth.cli.main import main


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return real_cache(tmp_path_factory.mktemp("cache") / "real.h5", subjects=7)


@pytest.fixture(scope="module")
def of(tmp_path_factory, cache):
    """Runs of a study, made once: a whole one, an unfinished one, and those of another seed."""
    made = {}

    def of(study):
        if study not in made:
            place = tmp_path_factory.mktemp(study)
            for name, seed in (("whole", 1), ("whole_other", 2)):
                carry_out(study, place / name, cache, seed=seed)
            records = (place / "whole" / "metrics.jsonl").read_bytes().count(b"\n")
            for name, seed in (("begun", 1), ("begun_other", 2)):
                stopped(study, place / name, cache, records - 1, seed=seed)
            names = ("whole", "whole_other", "begun", "begun_other")
            made[study] = SimpleNamespace(**{name: place / name for name in names})
        return made[study]

    return of


def check(run, command, tampered, wholes, may_lose=False):
    """A command on a tampered run said one line and touched nothing, or gave what an undisturbed one gives.

    With ``may_lose``, models may be gone, as users delete them.
    """
    before = content(run)
    done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exception is None or isinstance(done.exception, SystemExit), (tampered, done.exception)
    if done.exit_code:
        said = [
            line for line in done.stderr.splitlines() if not line.startswith(("Run folder: ", f"{run}: the run has"))
        ]
        assert len(said) == 1, (tampered, said)
        assert said[0].startswith("Error: "), (tampered, said)
        assert "internal error" not in said[0], (tampered, said)
        assert str(run) in said[0], (tampered, said)
        assert content(run) == before, (tampered, said)
    else:
        (whole,) = (one for one in wholes if content(one)["config.json"] == content(run)["config.json"])
        now, then = outcome(run), outcome(whole)
        lost = then.keys() - now.keys()
        assert all(may_lose and name.startswith("models/") for name in lost), (tampered, lost)
        assert [name for name in now.keys() & then.keys() if now[name] != then[name]] == [], tampered
    return done.exit_code


def each(run, other, place, stride):
    """A tampered copy of the run after another, or of every ``stride``-th way."""
    for tampered, change in list(tamperings(run, other))[::stride]:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(run, place)
        change(place)
        yield tampered


CASES = pytest.mark.parametrize(
    ("study", "stride"),
    [("unpaired", 23), ("ridge", 23), *(pytest.param(study, 1, marks=pytest.mark.slow) for study in STUDIES)],
)


@CASES
def test_an_unfinished_run_goes_on_to_the_same_results_or_not_at_all(tmp_path, of, study, stride):
    runs, run = of(study), tmp_path / "run"
    command = ["run", study, "--resume", "--out", run, "--quiet"]
    codes = [
        check(run, command, tampered, [runs.whole, runs.whole_other])
        for tampered in each(runs.begun, runs.begun_other, run, stride)
    ]
    assert 1 in codes or 2 in codes


@CASES
@pytest.mark.parametrize("command", ["report", "resume"])
def test_a_finished_run_is_reported_as_it_was_or_not_at_all(tmp_path, of, study, command, stride):
    runs, run = of(study), tmp_path / "run"
    words = ["report", run] if command == "report" else ["run", study, "--resume", "--out", run, "--quiet"]
    tampered_runs = each(runs.whole, runs.whole_other, run, stride)
    codes = [check(run, words, tampered, [runs.whole], may_lose=True) for tampered in tampered_runs]
    assert 1 in codes or 2 in codes
