"""Trainings that begin with the weights of a model: in every study, in resumed runs, and from the command line."""

import hashlib
import json

import pytest
import torch
from click.testing import CliRunner
from metasynth.experiments import cross_contrast, inu, label_maps, noise, real_world, unpaired
from support import tiny_comparison, tiny_noise, tiny_unpaired
from support.tiny_comparison import real_cache
from support.tiny_model import describe
from support.tiny_noise import CLASSES

from metasynth.cli.main import main
from metasynth.errors import UsageError
from metasynth.run import execute
from metasynth.running.integrity.json_files import with_digest, without_digest
from metasynth.running.records import RunFolder
from metasynth.segment.model_file import load_model, save_model
from metasynth.segment.unet import UNet

STILL = {"segmenter.lr": "1e-12"}  # too little to move a weight that single precision tells apart
COMPARED = {
    **tiny_comparison.SETTINGS,
    "methods": "naive,supervised,finetuned,interpolated,mixed,parametric_fixed",
    "segmenter.steps": "3",
    "finetune.lr": "1e-12",
}
NOISE = {**tiny_noise.SETTINGS, "sigma": "0.1", "segmenter.steps": "8"}
OF_MAPS = {key: value for key, value in NOISE.items() if key.split(".")[0] in ("segmenter", "pace", "synthesis")}
STUDIES = {
    "noise": (noise, NOISE),
    "inu": (inu, {**NOISE, "network": "4,4"}),
    "label_maps": (label_maps, OF_MAPS),
    "real_world": (real_world, COMPARED),
    "cross_contrast": (cross_contrast, COMPARED),
    "unpaired": (unpaired, tiny_unpaired.SETTINGS),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return real_cache(tmp_path_factory.mktemp("starts") / "c.h5", subjects=8)


def saved(path, seed=0, widths=(4, 6)):
    network = UNet(len(CLASSES), widths=widths, norm="instance", generator=torch.Generator().manual_seed(seed))
    save_model(path, network, describe(class_names=CLASSES, spacing_mm=(3.0, 3.0)))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of widths that no preset has."""
    return saved(tmp_path_factory.mktemp("model") / "m.pt")


def carry_out(name, out, cache, start=None, resume=False, **changed):
    module, settings = STUDIES[name]
    own = {key: value for key, value in settings.items() if key != "segmenter.widths"} | changed
    if name == "cross_contrast":
        own["tests"] = f"FLASH={cache}"
    overrides = [f"{key}={value}" for key, value in own.items()]
    options = {"resume": resume, "seed": 1, "device": "cpu", "threads": 1, "quiet": True}
    return execute(module.EXPERIMENT, out, overrides=overrides, data=cache, start=start, **options).path


def weights(path):
    return load_model(path).network.state_dict()


@pytest.mark.parametrize("name", STUDIES)
def test_every_segmenter_of_a_study_begins_with_the_weights_of_the_model(name, cache, model, tmp_path):
    run = carry_out(name, tmp_path / "run", cache, model, **STILL)
    kept = sorted((run / "models").glob("*.pt"))
    assert len(kept) == {"noise": 3, "inu": 3, "label_maps": 1, "unpaired": 4}.get(name, 12)
    for path in kept:
        torch.testing.assert_close(weights(path), weights(model), rtol=0, atol=1e-7)
        assert load_model(path).description.provenance["start"] == "m.pt"
    config = json.loads((run / "config.json").read_text())
    segmenter = config["config"]["segmenter"]
    assert (segmenter["start"], segmenter["widths"], segmenter["norm"]) == (str(model), [4, 6], "instance")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert config["data"]["others"]["segmenter.start"] == {"path": str(model), "digest": digest}


def interrupted(monkeypatch, run, cache, start=None):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            carry_out("label_maps", run, cache, start)


def test_a_run_goes_on_with_the_same_model_only(cache, tmp_path, monkeypatch):
    model, other, run = saved(tmp_path / "m.pt"), saved(tmp_path / "other.pt", seed=1), tmp_path / "run"
    interrupted(monkeypatch, run, cache, model)
    old, new = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (model, other))
    with pytest.raises(UsageError) as refused:
        carry_out("label_maps", run, cache, other, resume=True)
    line = "cannot resume with other settings: data.others.segmenter.start.digest"
    assert str(refused.value) == f"{run}: {line}: {old!r} -> {new!r}"
    with pytest.raises(UsageError, match=r"data\.others\.segmenter\.start\.digest: .* -> None"):
        carry_out("label_maps", run, cache, resume=True, **{"segmenter.widths": "4,6"})
    model.rename(tmp_path / "moved.pt")
    with pytest.raises(UsageError, match=r"m\.pt: there is no such model file or folder of a run$"):
        execute(label_maps.EXPERIMENT, run, resume=True, quiet=True)
    execute(label_maps.EXPERIMENT, run, start=tmp_path / "moved.pt", resume=True, quiet=True)  # all else as it was
    whole = carry_out("label_maps", tmp_path / "whole", cache, tmp_path / "moved.pt")
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_run_from_before_there_was_such_a_setting_goes_on(cache, tmp_path, monkeypatch):
    run = tmp_path / "run"
    interrupted(monkeypatch, run, cache)
    config = without_digest(json.loads((run / "config.json").read_text()))
    assert config["config"]["segmenter"].pop("start") == ""
    assert "others" not in config["data"]
    (run / "config.json").write_text(json.dumps(with_digest(config)))
    execute(label_maps.EXPERIMENT, run, resume=True, quiet=True)
    whole = carry_out("label_maps", tmp_path / "whole", cache)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_the_command_line_takes_a_run(cache, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = carry_out("label_maps", tmp_path / "before", cache, model)
    overrides = {key: value for key, value in OF_MAPS.items() if key != "segmenter.widths"} | STILL
    words = [word for key, value in overrides.items() for word in ("--set", f"{key}={value}")]
    command = ["run", "label_maps", "--data", str(cache), "--start", "before", "--out", "run", "--quiet", *words]
    done = CliRunner().invoke(main, [*command, "--device", "cpu", "--threads", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    kept = [path / "models" / "segmenter.pt" for path in (before, tmp_path / "run")]
    torch.testing.assert_close(weights(kept[1]), weights(kept[0]), rtol=0, atol=1e-7)
    assert load_model(kept[1]).description.provenance["start"] == "segmenter.pt"


def test_several_models_can_be_tried_side_by_side(cache, model, tmp_path):
    """Each brings its network, where none is set."""
    wide = saved(tmp_path / "wide.pt", widths=(6, 8))
    command = ["run", "label_maps", "--data", str(cache), "--vary", f"segmenter.start={model},{wide}", "--quiet"]
    command += ["--out", str(tmp_path / "grid"), "--print-commands"]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for path in (model, wide):
        assert f"segmenter.start={path}" in done.output
