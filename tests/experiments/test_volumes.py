"""The studies on patches of volumes, from the command line's settings to models that segment scans."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.experiments import cross_contrast, noise, real_world
from support import tiny_comparison
from support.head_phantom import head_image, head_labels, save
from support.tiny_comparison import carry_out, real_cache
from support.tiny_noise import arguments, make_cache

from metasynth.cli.main import main
from metasynth.errors import UsageError
from metasynth.running.progress import Progress
from metasynth.running.settings.config import from_dict, to_dict
from metasynth.segment.model_file import load_model

SHAPE = (16, 16, 24)
PATCHES = {"segmenter__patch_size": "8", "segmenter__patch_foreground": "0.5"}
MONAI = '{"class": "UNet", "channels": [4, 8], "strides": [2]}'
NETWORKS = {
    "unet": {"segmenter__widths": "4,8"},
    "nnunet": {"segmenter__network": "nnunet", "segmenter__widths": "4,8"},
    "monai": {"segmenter__network": "monai", "segmenter__widths": "", "segmenter__network_arguments": MONAI},
}
STUDIES = {"noise": noise, "real_world": real_world, "cross_contrast": cross_contrast}


@pytest.fixture(autouse=True)
def _in_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def run(*words):
    result = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_noise_is_learned_on_patches_and_its_model_segments_scans(tmp_path):
    cache = make_cache(tmp_path / "v.h5", per_subject=1, shape=SHAPE)
    run(*arguments("run", cache, **PATCHES))
    row = next(row for row in json.loads((tmp_path / "run/results.json").read_text())["rows"] if row["model"] == "L")
    assert row["sigma_learned"] != pytest.approx(0.4, abs=1e-3)
    model = load_model(tmp_path / "run/models/sigma=0.1-learn.pt")
    assert (model.description.shape, model.description.patch_size) == (SHAPE, (8, 8, 8))
    for name, shape in (("large", (20, 22, 18)), ("small", (6, 7, 5))):
        ids = head_labels(0, shape)
        save(tmp_path / "scans" / f"{name}.nii.gz", head_image(ids), spacing=(3, 3, 3))
    run("predict", "run", "scans", "--stage", "sigma=0.1/learn", "--stripped", "--out", "out", "--device", "cpu")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["large.nii.gz", "small.nii.gz"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_trained_on_patches_and_sees_scans_in_windows_of_them(tmp_path, name):
    pytest.importorskip("dynamic_network_architectures")
    pytest.importorskip("monai")
    cache = make_cache(tmp_path / "v.h5", per_subject=1, shape=SHAPE)
    settings = {"baselines": "false", "test": "0.1", "segmenter__steps": "8", **NETWORKS[name], **PATCHES}
    run(*arguments("run", cache, **settings))
    model = load_model(tmp_path / "run/models/sigma=0.1-learn.pt")
    assert model.network.recipe.get("kind", "unet") == name
    assert model.description.patch_size == (8, 8, 8)
    save(tmp_path / "s.nii.gz", head_image(head_labels(0, (20, 13, 9))), spacing=(3, 3, 3))
    run("predict", "run", "s.nii.gz", "--stripped", "--out", "out", "--device", "cpu")
    assert (tmp_path / "out/s.nii.gz").is_file()


@pytest.mark.slow
def test_every_method_of_a_comparison_takes_patches(tmp_path):
    cache = real_cache(tmp_path / "v.h5", shape=SHAPE, subjects=8, per_subject=1)
    plain = "supervised,naive,clustered,atlas,estimated,mixed,finetuned,interpolated"
    methods = f"{plain},parametric_fixed,nonparametric_varying,synthesis_estimated,optimised"
    carry_out(real_world.EXPERIMENT, tmp_path / "run", cache, methods=methods, **PATCHES)
    rows = tiny_comparison.results(tmp_path / "run")
    assert {row["method"] for row in rows} >= set(methods.split(","))
    assert all(np.isfinite(row["dice"]["test"]["mean"]) for row in rows)
    augmented = np.load(tmp_path / "run/examples.npz")["augmentation/parametric_fixed/2/augmented"]
    assert augmented.shape == (8, 8)


@pytest.mark.parametrize("generation", [False, True])
def test_a_comparison_takes_patches(tmp_path, generation):
    cache = real_cache(tmp_path / "v.h5", shape=SHAPE, subjects=8, per_subject=1, generation=generation)
    asked = {"methods": "supervised,parametric_fixed", "tests": f"t={cache}", **PATCHES}
    carry_out(cross_contrast.EXPERIMENT, tmp_path / "run", cache, **asked)
    rows = tiny_comparison.results(tmp_path / "run")
    assert {row["method"] for row in rows} == {"supervised", "parametric_fixed"}
    assert load_model(tmp_path / "run/models/n=2-supervised-last.pt").description.patch_size == (8, 8, 8)


def test_label_maps_alone_are_learned_from_in_patches(tmp_path):
    cache = make_cache(tmp_path / "v.h5", per_subject=1, shape=SHAPE)
    settings = {"segmenter.widths": "4,8", "segmenter.batch_size": "2", "segmenter.steps": "3", "pace.workers": "0"}
    words = ["run", "label_maps", "--data", cache, "--out", "run", "--device", "cpu", "--threads", "1", "--quiet"]
    chosen = [*settings.items(), ("segmenter.patch_size", "8"), ("synthesis.elastic_nodes", "4")]
    run(*words, *(word for key, value in chosen for word in ("--set", f"{key}={value}")))
    (model,) = (tmp_path / "run/models").glob("*.pt")
    assert load_model(model).description.patch_size == (8, 8, 8)


@pytest.mark.parametrize("name", STUDIES)
def test_the_presets_for_volumes_need_some(name):
    study = STUDIES[name]
    config = study.PRESETS["quick-3d"]
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config
    assert len(config.segmenter.window) == 3
    assert all(n % 2 ** (len(config.segmenter.widths) - 1) == 0 for n in config.segmenter.window)
    with pytest.raises(
        UsageError, match=r"^segmenter.patch_size = \d\d x \d\d x \d\d needs --data, a cache of volumes"
    ):
        study.prepare(config, None, Progress(quiet=True))
