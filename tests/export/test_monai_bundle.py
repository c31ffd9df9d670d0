"""Segmenters as MONAI bundles, which monai.bundle runs: their labels are those of predict."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from metasynth.data_prep.volumes.volumes import read_image
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import CLASSES, describe, random_unet, save_random

from metasynth.cli.main import main
from metasynth.export.bundle.network import UNet
from metasynth.export.bundle_config import inference
from metasynth.export.monai_bundle import SCRIPTS, write_bundle
from metasynth.predict.network import posteriors_of
from metasynth.predict.scan import segment
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.monai_networks import monai_network

pytest.importorskip("monai")
from monai.bundle import ConfigWorkflow, load
from monai.bundle import run as monai_run
from monai.inferers import SliceInferer

from metasynth.export.bundle.inference import EachView, EvenWindows

# What MONAI says of every bundle that its functions load.
TRUSTED = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
HEAD = {"brain_only": False, "scaled_by": "head", "brain_share": 0.3}
VIEWS = {"axis": "coronal,axial,sagittal", "orientation": "IR,PR,IP"}


@pytest.fixture(autouse=True)
def _scripts_of_each_bundle():
    """A process runs one bundle, as a rule: the modules of the next have the same names."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        del sys.modules[name]


@pytest.fixture
def scans(tmp_path):
    """A stripped brain and a head of voxels that are no cubes, in an orientation of its own."""
    ids = head_labels(0)
    head, brain = head_image(ids), (ids > 0) & (ids != 507)
    save(tmp_path / "brain" / "a.nii.gz", head * brain, "LIA", (1.1, 0.9, 1.4))
    save(tmp_path / "head" / "a.nii.gz", head, "LIA", (1.1, 0.9, 1.4))
    return tmp_path


def run(bundle, scans, out):
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(scans),
        output_dir=str(out),
        device="$torch.device('cpu')",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    return nib.load(out / "a_dseg.nii.gz")


def dice(found, expected) -> list[float]:
    return [
        2 * np.count_nonzero((found == k) & (expected == k)) / np.count_nonzero(np.r_[found == k, expected == k])
        for k in np.unique(expected)
    ]


@pytest.mark.parametrize("spacing", [1.0, 1.6])
@pytest.mark.parametrize(
    ("ndim", "takes", "views"),
    [
        *[(ndim, takes, {}) for ndim in (2, 3) for takes in ("brain", "head")],
        (2, "brain", VIEWS),
        (2, "head", VIEWS),
        (2, "brain", {"axis": "sagittal,coronal", "orientation": "IP,IR", "shape": (48, 24)}),
    ],
)
def test_its_labels_are_those_of_predict(scans, tmp_path, ndim, takes, views, spacing):
    described = describe(ndim, spacing, **(HEAD if takes == "head" else {}), **views)
    model = TrainedModel(random_unet(ndim, "instance").eval(), described)
    write_bundle(model, tmp_path / "bundle")
    made = run(tmp_path / "bundle", scans / takes, tmp_path / "labels")
    image = read_image(scans / takes / "a.nii.gz")
    expected = segment(model, image).labels
    found = np.asarray(made.dataobj)
    assert found.shape == expected.shape
    np.testing.assert_allclose(made.affine, image.affine, atol=1e-5)
    assert found.dtype == np.uint8
    assert len(np.unique(expected)) > 2
    assert min(dice(found, expected)) > 0.98


@pytest.mark.parametrize("stride", [None, 1])
def test_every_view_counts_as_in_predict(stride):
    """Of an image whose lengths differ, in windows too, and with planes without content on both sides."""
    network = random_unet().eval()

    class Network(torch.nn.Module):
        recipe = network.recipe

        def forward(self, images):
            return network(images)

    model = TrainedModel(Network(), describe(shape=(12, 8), **VIEWS))
    model.network.stride = stride
    image = np.zeros((20, 16, 14), np.float32)
    image[3:18, 1:15, 5:9] = np.random.default_rng(0).random((15, 14, 4), dtype=np.float32)
    expected = posteriors_of(model, image, image > 0, "cpu")
    made = inference(model)["inferer"]
    assert made["views"] == ["AIR", "SPR", "RIP"]
    inner = made["inferer"]
    assert inner.pop("_target_") == ("SliceInferer" if stride else "scripts.inference.EvenWindows")
    inferer = EachView((SliceInferer if stride else EvenWindows)(**inner), made["views"], made["threshold"])
    with torch.no_grad():
        found = inferer(torch.from_numpy(image)[None, None], torch.nn.Sequential(network, torch.nn.Softmax(dim=1)))[0]
    assert np.abs(expected - expected.mean(axis=(1, 2, 3), keepdims=True)).max() > 0.1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_network_of_another_package_is_made_by_this_one(scans, tmp_path):
    generator = torch.Generator().manual_seed(0)
    network = monai_network("UNet", len(CLASSES), (32, 32), generator=generator, channels=[4, 8], strides=[2]).eval()
    model = TrainedModel(network, describe())
    write_bundle(model, tmp_path / "bundle")
    config = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    assert config["network_def"]["_target_"] == "metasynth.segment.table.from_recipe"
    needed = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())["required_packages_version"]
    assert list(needed) == ["scipy", "metasynth-toolkit"]
    made = run(tmp_path / "bundle", scans / "brain", tmp_path / "labels")
    expected = segment(model, read_image(scans / "brain" / "a.nii.gz")).labels
    assert min(dice(np.asarray(made.dataobj), expected)) > 0.98


@pytest.mark.parametrize("norm", [None, "instance", "batch"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_its_u_net_is_that_of_the_package(ndim, norm):
    own = random_unet(ndim, norm).eval()
    copy = UNet(**own.recipe).eval()
    copy.load_state_dict(own.state_dict())
    images = torch.rand(2, 1, *(8, 12, 16)[:ndim])
    with torch.no_grad():
        assert torch.equal(copy(images), own(images))


@TRUSTED
def test_monai_loads_its_weights_into_its_network(tmp_path, monkeypatch):
    own = random_unet(2, "instance").eval()
    write_bundle(TrainedModel(own, describe()), tmp_path / "bundle")
    monkeypatch.chdir(tmp_path / "bundle")
    found = load("bundle", bundle_dir=str(tmp_path), workflow_type="inference")
    images = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(found.eval()(images), own(images))


@TRUSTED
def test_the_command_writes_a_whole_bundle_that_runs_in_its_folder(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_random(tmp_path / "run" / "models" / "a.pt", provenance={"experiment": "noise", "seed": 3})
    done = CliRunner().invoke(main, ["export", "monai-bundle", "run", "--out", "bundle"])
    assert (done.exit_code, done.output) == (0, "Bundle: bundle (of run/models/a.pt)\n")
    found = {str(path.relative_to(tmp_path / "bundle")) for path in (tmp_path / "bundle").rglob("*.*")}
    scripts = {f"scripts/{name}.py" for name in ("__init__", *SCRIPTS)}
    assert found == {
        *("configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.pt"),
        *scripts,
    }
    assert (
        (tmp_path / "bundle" / "LICENSE")
        .read_text()
        .startswith("The weights (models/model.pt): the model does not say.\n")
    )
    (tmp_path / "brain").rename(tmp_path / "bundle" / "scans")
    monkeypatch.chdir(tmp_path / "bundle")
    monai_run(config_file="configs/inference.json", workflow_type="infer", logging_file=False)
    assert set(np.unique(nib.load("labels/a_dseg.nii.gz").dataobj)) <= {0, 1, 2, 3}
    again = CliRunner().invoke(main, ["export", "monai-bundle", "../run", "--out", "../bundle"])
    assert (again.exit_code, again.stderr) == (2, "Error: --out ../bundle: exists already; give another name\n")


def test_what_it_is_stands_in_its_metadata_and_its_page(tmp_path):
    described = describe(3, **HEAD, provenance={"experiment": "label_maps", "seed": 3})
    card = {"summary": "Five classes.", "data": "20 maps", "licence": "Apache-2.0", "not_for": "diagnosis"}
    write_bundle(TrainedModel(random_unet(3), described), tmp_path / "bundle", card)
    found = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert (found["description"], found["copyright"], found["data_source"]) == (
        "Five classes.",
        "Apache-2.0",
        "20 maps",
    )
    assert (found["task"], found["intended_use"]) == ("Segmentation of heads in MR scans", "Not for: diagnosis")
    assert found["pred_classes"] == "0: background, 1: dark, 2: medium, 3: bright"
    formats = found["network_data_format"]
    assert formats["inputs"]["image"]["spatial_shape"] == ["2*n", "2*n", "2*n"]
    assert formats["outputs"]["pred"]["channel_def"] == {str(k): name for k, name in enumerate(CLASSES)}
    assert found["required_packages_version"] == {"scipy": "1.11"}
    assert found["metasynth"]["spacing_mm"] == [1.0, 1.0, 1.0]
    page = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    assert "Where it comes from: experiment label_maps, seed 3. metasynth " in page
    assert "1. Scale the whole head linearly and cut it to [0, 1]" in page
    assert "Scans of heads are taken as they come.\n" in page
    assert page.endswith("\nData: 20 maps\nLicence: Apache-2.0\nNot for: diagnosis\n")
    assert (tmp_path / "bundle" / "LICENSE").read_text().startswith("The weights (models/model.pt): Apache-2.0\n")


def test_all_views_stand_in_its_metadata_and_its_page(tmp_path):
    write_bundle(TrainedModel(random_unet(), describe(**VIEWS)), tmp_path / "bundle")
    found = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())["metasynth"]
    assert (found["axis"], found["orientation"]) == ("coronal,axial,sagittal", "AIR,SPR,RIP")
    page = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    for line in (*found["preprocessing"], *found["postprocessing"]):
        assert f". {line}.\n" in page
