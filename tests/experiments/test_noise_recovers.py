"""The study finds the noise: smaller than the quick preset, and large enough to tell."""

import pytest
from click.testing import CliRunner
from tiny_noise import arguments, make_cache, results

from metasynth.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_sigma_is_pulled_from_a_wrong_start_to_the_truth(tmp_path, seed):
    cache = make_cache(tmp_path / "c.h5", subjects=20, shape=(32, 32))
    small = {
        "start": "0.3",
        "segmenter.widths": "8,16",
        "segmenter.batch_size": "8",
        "segmenter.steps": "500",
        "outer.batch_size": "8",
        "outer.warmup": "100",
        "pace.checkpoint_every": "100",
        "baselines": "false",
    }
    done = CliRunner().invoke(main, arguments(tmp_path / "run", cache, seed=seed, **small), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (row,) = results(tmp_path / "run")["rows"]
    assert abs(row["sigma_learned"] - 0.1) < 0.03
    assert row["sigma_sd"] < 0.02
    assert row["dice"]["0.1"]["mean"] > 0.7
