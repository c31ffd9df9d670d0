"""Studies on caches whose images are synthesised from finer labels than the classes of the segmenter."""

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.experiments import cross_contrast, unpaired
from support import tampering, tiny_comparison
from support.tiny_comparison import real_cache, rename
from support.tiny_noise import CLASSES, arguments

from metasynth.cli.main import main
from metasynth.run import execute
from metasynth.segment.model_file import load_model
from metasynth.synthesis.generator import SeededGenerator
from metasynth.training.segmenter_settings import SegmenterSettings

STUDIES = ("noise", "inu", "real_world", "unpaired")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return real_cache(tmp_path_factory.mktemp("fine") / "fine.h5", subjects=8, generation=True)


@pytest.fixture
def seen(monkeypatch):
    """(labels of a generator, largest that it was given) and (channels of a network, largest label of its loss)."""
    found = {"generator": set(), "loss": set()}
    check, loss_of = SeededGenerator.check, SegmenterSettings.loss_of

    def checked(self, labels):
        found["generator"].add((self.n_classes, int(labels.max())))
        check(self, labels)

    def loss(self, logits, labels):
        found["loss"].add((logits.shape[1], int(labels.max())))
        return loss_of(self, logits, labels)

    monkeypatch.setattr(SeededGenerator, "check", checked)
    monkeypatch.setattr(SegmenterSettings, "loss_of", loss)
    return found


def check_models(run):
    paths = list((run / "models").rglob("*.pt"))
    assert paths
    assert all(load_model(path).description.class_names == CLASSES for path in paths)


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_synthesises_from_structures_and_segments_classes(tmp_path, cache, seen, study):
    tampering.carry_out(study, tmp_path / "run", cache)
    assert seen == {"generator": {(5, 4)}, "loss": {(3, 2)}}
    check_models(tmp_path / "run")
    for row in json.loads((tmp_path / "run" / "results.json").read_text())["rows"]:
        for scores in row["dice"].values():
            assert list(scores["per_class"]) == list(CLASSES)


def test_every_method_on_contrasts_that_were_not_seen(tmp_path, cache, seen):
    other = real_cache(tmp_path / "other.h5", contrast=0.5, subjects=8)  # tests need the classes only
    methods = "naive,clustered,mixed,supervised,parametric_fixed,optimised"
    settings = {"methods": methods, "tests": f"T2={other}", "clustered__clusters": "2"}
    tiny_comparison.carry_out(cross_contrast.EXPERIMENT, tmp_path / "run", cache, **settings)
    assert seen == {"generator": {(5, 4), (9, 7)}, "loss": {(3, 2)}}  # the core is small
    check_models(tmp_path / "run")


def test_label_maps_of_structures_go_with_scans_of_classes_where_no_image_is_made_of_both(tmp_path, cache, seen):
    scans = real_cache(tmp_path / "scans.h5", subjects=8)
    settings = {"methods": "naive,supervised,parametric_fixed", "labels": str(cache), "outer__reference": "none"}
    tiny_comparison.carry_out(tampering.real_world.EXPERIMENT, tmp_path / "run", scans, **settings)
    assert seen == {"generator": {(5, 4), (3, 2)}, "loss": {(3, 2)}}  # those of the scans are deformed with them
    refused = ["run", "real_world", "--data", scans, "--labels", cache, "--set", "methods=parametric_fixed"]
    refused += ["--set", "outer.reference=matched"]
    done = CliRunner().invoke(main, [*map(str, refused), "--set", "subjects.train=2", "--out", str(tmp_path / "no")])
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(f"Error: {cache}: expected the generation labels of {scans}, as ")
    assert not (tmp_path / "no").exists()


def test_contrasts_of_structures_are_learned_from_scans_whose_own_labels_are_not_looked_at(tmp_path, cache, seen):
    scans = rename(real_cache(tmp_path / "scans.h5", subjects=8), lambda index, name: f"other {name}")
    settings = tampering.STUDIES["unpaired"][1] | {"methods": "naive,intensities", "discriminator.steps": "4"}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    options = {"seed": 1, "labels": cache, "device": "cpu", "threads": 1, "quiet": True}
    execute(unpaired.EXPERIMENT, tmp_path / "run", overrides=overrides, data=scans, **options)
    assert seen == {"generator": {(5, 4)}, "loss": {(3, 2)}}
    row = json.loads((tmp_path / "run" / "results.json").read_text())["rows"][1]
    assert [name for name in row["learned"] if name.startswith("mean_")] == [f"mean_{g}" for g in range(1, 5)]
    assert list(row["intensities"]) == list(CLASSES[1:])


def test_scans_are_segmented_and_scored_from_the_command_line(tmp_path, cache):
    assert CliRunner().invoke(main, arguments(tmp_path / "run", cache, baselines="false")).exit_code == 0
    rng = np.random.default_rng(0)
    scan = rng.random((16, 16, 16), dtype=np.float32)
    nib.save(nib.Nifti1Image(scan, np.diag([3.0, 3.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((16, 16, 16), np.uint8), np.diag([3.0, 3.0, 3.0, 1.0])), tmp_path / "mask.nii.gz")
    (model,) = (tmp_path / "run" / "models").rglob("*.pt")
    command = ["predict", model, tmp_path / "scan.nii.gz", "--masks", tmp_path / "mask.nii.gz", "--out", tmp_path / "o"]
    done = CliRunner().invoke(main, [*map(str, command), "--device", "cpu", "--quiet"])
    assert done.exit_code == 0, done.output
    (found,) = (path for path in (tmp_path / "o").rglob("*.nii.gz"))
    assert set(np.unique(np.asarray(nib.load(found).dataobj)).tolist()) <= {0, 1, 2}
