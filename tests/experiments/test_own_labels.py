"""Studies that synthesise from the label maps of the labelled people too: every method, and resumption."""

import pytest
from metasynth.experiments import cross_contrast, real_world
from metasynth.experiments.real_images import own_maps
from support.tiny_comparison import STEPS, carry_out, real_cache, rename, results
from support.tiny_noise import make_cache

from metasynth.running.records import RunFolder

METHODS = "naive,clustered,estimated,mixed,parametric_fixed,synthesis_estimated,optimised"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("own labels")


@pytest.fixture(scope="module")
def cache(folder):
    return real_cache(folder / "real.h5", subjects=8, generation=True)


@pytest.fixture(scope="module")
def labels(folder):
    path = make_cache(folder / "labels.h5", subjects=5, generation=True)
    return rename(path, lambda index, name: f"other {name}")


@pytest.fixture
def counted(monkeypatch):
    """How many own maps each batch of synthetic images has."""
    found = []
    among = own_maps.OwnMaps.among

    def counting(self, maps, own, chosen):
        found.append((len(own.labels), len(chosen)))
        return among(self, maps, own, chosen)

    monkeypatch.setattr(own_maps.OwnMaps, "among", counting)
    return found


def records(run):
    return (run / "metrics.jsonl").read_bytes()


def test_every_method_that_synthesises_does_so_from_own_maps_too(tmp_path, cache, labels, counted):
    asked = {"labels": str(labels), "subjects__train": "4", "methods": METHODS, "own_labels": "0.5"}
    carry_out(real_world.EXPERIMENT, tmp_path / "run", cache, **asked)
    checked = 2  # before their first step those that learn an augmenter take a hypergradient
    assert len(counted) == STEPS * len(METHODS.split(",")) + checked
    assert [n for _, n in counted].count(3) == STEPS  # mixed has a real one of four
    of_a_method = [own for own, n in counted if n == 4][:STEPS]
    assert 0 < sum(of_a_method) < 4 * STEPS
    assert [own for own, n in counted if n == 4][STEPS : 2 * STEPS] == of_a_method
    assert {row["method"] for row in results(tmp_path / "run")} >= set(METHODS.split(","))


def test_a_run_with_own_maps_and_windows_resumes_as_it_would_have_gone_on(tmp_path, cache, labels, monkeypatch):
    asked = {
        "labels": str(labels),
        "subjects__train": "2",
        "methods": "parametric_fixed",
        "tests": f"T2={cache}",
        "own_labels": "0.3",
        "outer__horizon": "2",
        "outer__every": "2",
    }
    carry_out(cross_contrast.EXPERIMENT, tmp_path / "whole", cache, **asked)
    append, taken = RunFolder.append, []

    def stopping(folder, record):
        taken.append(record)
        if len(taken) == 5:
            raise KeyboardInterrupt
        append(folder, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            carry_out(cross_contrast.EXPERIMENT, tmp_path / "again", cache, **asked)
    carry_out(cross_contrast.EXPERIMENT, tmp_path / "again", cache, resume=True, **asked)
    assert records(tmp_path / "again") == records(tmp_path / "whole")
    assert results(tmp_path / "again") == results(tmp_path / "whole")
