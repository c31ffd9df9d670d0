"""A folder with one of everything that commands take, whole and damaged; made once and copied for each bad request."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import torch
from click.testing import CliRunner
from support.head_phantom import as_muse, head_image, head_labels, save
from support.nnunet_dataset import described
from support.tiny_comparison import real_cache
from support.tiny_model import save_random
from support.tiny_noise import arguments, make_cache

from metasynth.cli.main import main
from metasynth.running.grid import Grid
from metasynth.running.grid_folder import GridFolder
from metasynth.running.integrity.json_files import with_digest, without_digest

SHAPE = (14, 18, 16)
TRANSFORMS = {
    "matrix": "1 0 0 0\n0 1 0 0\n0 0 1 0\n",
    "singular": "0 0 0 0\n0 0 0 0\n0 0 0 0\n",
    "words": "one two three\n",
    "short": "1 0 0\n0 1 0\n0 0 1\n",
    "tiny": "1e-4 0 0 0\n0 1e-4 0 0\n0 0 1 0\n",
    "endless": "1 0 0 inf\n0 1 0 0\n0 0 1 0\n",
}


def make_place(root: Path) -> None:
    """Fill an empty folder, which has to be the working directory."""
    _caches(root)
    _volumes(root)
    _damaged_files(root)
    _runs(root)
    save_random(root / "model.pt")
    _damaged_models(root)


def _caches(root: Path) -> None:
    real_cache(root / "c.h5", subjects=10)
    make_cache(root / "volumes.h5", shape=(16, 16, 16), images=True)
    make_cache(root / "maps.h5")
    make_cache(root / "two.h5", subjects=2, images=True)
    make_cache(root / "odd.h5", shape=(16, 15), images=True)
    (root / "caches").mkdir()
    for name, damage in DAMAGED_CACHES.items():
        path = make_cache(root / "caches" / f"{name}.h5", images=True)
        damage(path)


def _volumes(root: Path) -> None:
    for seed in range(2):
        ids = head_labels(seed, SHAPE)
        save(root / "images" / f"s{seed}.nii.gz", head_image(ids, seed))
        save(root / "aseg" / f"s{seed}.nii.gz", ids)
        save(root / "muse" / f"s{seed}.nii.gz", as_muse(ids))
        save(root / "masks" / f"s{seed}.nii.gz", ((ids > 0) & (ids != 507)).astype(np.uint8))
    ids = head_labels(0, SHAPE)
    save(root / "subjects" / "bert" / "mri" / "norm.mgz", head_image(ids))
    save(root / "subjects" / "bert" / "mri" / "aseg.mgz", ids)
    anat = Path("sub-01", "anat")
    save(root / "bids" / anat / "sub-01_T1w.nii.gz", head_image(ids))
    save(root / "bids" / "derivatives" / "fs" / anat / "sub-01_desc-aseg_dseg.nii.gz", ids)
    (root / "bids" / "dataset_description.json").write_text("{}")
    save(root / "others" / "x.nii.gz", ids)
    two = {"channel_names": {"0": "T1", "1": "PD"}}
    for name, changes in {
        "heads": two,
        "pictures": {"file_ending": ".png"},
        "gaps": {"labels": {"0": "a", "2": "b"}},
    }.items():
        described(root / "nnunet" / name, **changes)
    save(root / "nnunet" / "heads" / "imagesTr" / "s0_0000.nii.gz", head_image(ids))
    (root / "nnunet" / "heads" / "labelsTr").mkdir()
    for name, text in TRANSFORMS.items():
        (root / name).mkdir()
        (root / name / "s0.txt").write_text(text)
    (root / "map.csv").write_text("id,class\n2,white\n3,grey\n")
    (root / "map-negative.csv").write_text("id,class\n-2,white\n")
    (root / "map-twice.csv").write_text("id,class\n2,white\n2,grey\n")
    (root / "map-columns.csv").write_text("a,b,c,d\n1,2,3,4\n")
    (root / "map-structures.csv").write_text("id,class,structure\n2,white,white\n41,white\n")
    (root / "map-straddling.csv").write_text("2,white,tissue\n3,grey,tissue\n")
    (root / "map-halves.csv").write_text("2,left\n41,right\n")


def _damaged_files(root: Path) -> None:
    (root / "folder").mkdir()
    (root / "empty").touch()
    (root / "empty.h5").touch()
    (root / "empty.csv").touch()
    (root / "empty.nii.gz").touch()
    (root / "text.h5").write_text("subject,sigma\n")
    (root / "text.pt").write_text("no model\n")
    (root / "thesis.tex").write_text("x")
    (root / "full").mkdir()
    (root / "full" / "main.tex").write_text("x")
    (root / "Dataset500_Full").mkdir()
    (root / "Dataset500_Full" / "main.tex").write_text("x")
    (root / "list-gone.txt").write_text("gone/a.nii.gz\n")
    (root / "list-empty.txt").write_text("# nothing\n")
    (root / "broken").mkdir()
    (root / "broken" / "s0.nii.gz").write_bytes(b"\x1f\x8b\x08 no volume")
    series = nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.float32), np.eye(4))
    (root / "series").mkdir()
    nib.save(series, root / "series" / "s0.nii.gz")


def _runs(root: Path) -> None:
    small = {"segmenter.steps": "6", "baselines": "false"}
    done = CliRunner().invoke(main, arguments("run", "c.h5", **small), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    shutil.copytree(root / "run", root / "unfinished")
    (root / "unfinished" / "results.json").unlink()
    (root / "foreign").mkdir()
    config = without_digest(json.loads((root / "run" / "config.json").read_text()))
    (root / "foreign" / "config.json").write_text(json.dumps(with_digest({**config, "experiment": "inu"})))
    (root / "unknown").mkdir()
    (root / "unknown" / "config.json").write_text(json.dumps(with_digest({**config, "experiment": "gone"})))
    GridFolder.create(root / "grid", Grid("noise", "quick", (0, 1), {"start": ("0.3",)}, (), root / "c.h5")).close()
    (root / "grid-text").mkdir()
    (root / "grid-text" / "grid.json").write_text("no JSON")
    (root / "grid-list").mkdir()
    (root / "grid-list" / "grid.json").write_text("[]")
    for lock in root.rglob(".lock"):
        lock.unlink()


def _damaged_models(root: Path) -> None:
    whole = (root / "model.pt").read_bytes()
    (root / "short.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weights": torch.zeros(3)}, root / "foreign.pt")
    torch.save([1, 2], root / "list.pt")


def _edited(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def _without(name: str) -> Callable[[Path], None]:
    return _edited(lambda file: file.attrs.pop(name) if name in file.attrs else file.pop(name))


def _attribute(name: str, value: object) -> Callable[[Path], None]:
    return _edited(lambda file: file.attrs.__setitem__(name, value))


def _item(name: str, at: object, value: object) -> Callable[[Path], None]:
    return _edited(lambda file: file[name].__setitem__(at, value))


def _instead(name: str, value: object) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return _edited(change)


def _claimed(name: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, shape=shape, dtype=kind, chunks=chunks)

    return _edited(change)


def _hdf5_of_others(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((3, 8, 8))


def _hdf5_without_anything(path: Path) -> None:
    h5py.File(path, "w").close()


DAMAGED_CACHES: dict[str, Callable[[Path], None]] = {
    "others": _hdf5_of_others,
    "nothing": _hdf5_without_anything,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1000),
    "format": _attribute("format", "zarr"),
    "version": _attribute("version", 5),
    "version-text": _attribute("version", "1"),
    "no-classes": _without("class_names"),
    "no-spacing": _without("spacing_mm"),
    "no-axis": _without("axis"),
    "no-digest": _without("digest"),
    "no-labels": _without("labels"),
    "no-subject": _without("subject"),
    "no-subjects": _without("subjects"),
    "no-slice": _without("slice"),
    "spacing-nan": _attribute("spacing_mm", [np.nan, 1.0]),
    "spacing-zero": _attribute("spacing_mm", [0.0, 1.0]),
    "spacing-text": _attribute("spacing_mm", ["a", "b"]),
    "spacing-three": _attribute("spacing_mm", [1.0, 1.0, 1.0]),
    "one-class": _attribute("class_names", ["background"]),
    "same-classes": _attribute("class_names", ["background", "a", "a"]),
    "numbers-as-classes": _attribute("class_names", [1, 2, 3]),
    "axis-number": _attribute("axis", 3),
    "label": _item("labels", (7, 1, 1), 3),
    "nan": _item("images", (4, 0, 0), np.nan),
    "infinite": _item("images", (4, 0, 0), np.inf),
    "bright": _item("images", (4, 0, 0), 1.5),
    "subject-beyond": _item("subject", 3, 9),
    "subject-negative": _item("subject", 3, -1),
    "labels-flat": _instead("labels", np.zeros((10, 16), np.uint8)),
    "labels-float": _instead("labels", np.zeros((10, 16, 16), np.float32)),
    "labels-long": _instead("labels", np.zeros((10, 16, 16), np.int64)),
    "labels-shapeless": _instead("labels", h5py.Empty("uint8")),
    "labels-none": _instead("labels", np.zeros((0, 16, 16), np.uint8)),
    "images-other": _instead("images", np.zeros((10, 16, 8), np.float32)),
    "images-integer": _instead("images", np.zeros((10, 16, 16), np.uint8)),
    "subject-short": _instead("subject", np.zeros(3, np.int32)),
    "subject-float": _instead("subject", np.zeros(10, np.float32)),
    "slice-text": _instead("slice", np.array([b"a"] * 10)),
    "subjects-numbers": _instead("subjects", np.arange(5)),
    "subjects-same": _instead("subjects", np.array([b"s"] * 5)),
    "subjects-blank": _instead("subjects", np.array([b"s0", b"s1", b"s2", b"s3", b""])),
    "slice-of-1-TB": _claimed("labels", (10, 10**6, 10**6), (1, 1000, 1000)),
    "four-million": _claimed("labels", (4 * 10**6, 16, 16), (1, 16, 16)),
    "subjects-huge": _claimed("subjects", (10**12,), (1000,)),
}
