"""Real label maps and scans, where a developer has them; the data are never part of the repository."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from metasynth.data_prep import label_tables as tables
from metasynth.data_prep.collect import Job, make_cache
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.options import Options
from metasynth.data_prep.slicing import Frame, SliceChoice
from metasynth.data_prep.sources import find_files, label_scans, pair

from metasynth.data.cache import Cache

SHARED = Path(os.environ.get("METASYNTH_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")


def folder(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"{path} is absent; METASYNTH_SHARED_DATA names the folder that holds {name}")
    return path


def counted(path: Path, classes: dict[int, int]) -> np.ndarray:
    """Voxels of every class above 0, counted in the file itself."""
    counts = np.bincount(np.asarray(nib.load(path).dataobj).astype(int).ravel(), minlength=max(classes) + 1)
    return np.array([sum(counts[i] for i, c in classes.items() if c == k) for k in range(1, 5)])


def test_label_maps_keep_their_volumes(tmp_path):
    files = find_files([str(folder("label_maps20"))], "PATHS")[:2]
    options = Options(MAPPINGS["freesurfer-4"], slices=SliceChoice("all"), min_content=0.0)
    make_cache(label_scans(files), Job(tmp_path / "c.h5", options, Frame(), "test", "shared data"))
    with Cache(tmp_path / "c.h5") as cache:
        assert all(n % 16 == 0 for n in cache.shape)
        for i, path in enumerate(files):
            labels = cache.read_labels(np.flatnonzero(cache.subject_index == i))
            found = np.bincount(labels.ravel(), minlength=5)[1:]
            np.testing.assert_allclose(found, counted(path, tables.FREESURFER_4), rtol=0.02)


def test_scans_keep_their_volumes_and_lie_in_the_frame_of_the_label_maps(tmp_path):
    root = folder("ixi10")
    images, labels = (find_files([str(root / name)], name)[:3] for name in ("images", "labels"))
    options = Options(MAPPINGS["muse-4"], volumes=True)
    make_cache(pair(images, labels), Job(tmp_path / "c.h5", options, Frame(), "test", "shared data"))
    with Cache(tmp_path / "c.h5") as cache:
        assert cache.class_names == MAPPINGS["freesurfer-4"].class_names
        assert cache.info.orientation == "AIR"
        for i, path in enumerate(labels):
            item = cache.read_labels([i])[0]
            found = np.bincount(item.ravel(), minlength=5)[1:]
            np.testing.assert_allclose(found, counted(path, tables.MUSE_4), rtol=0.02)
            image = cache.read_images([i])[0]
            assert image[item == 1].mean() > image[item == 2].mean() > image[item == 4].mean()
            # The ventricles do not lie far below the middle of the white matter: the slices are upright.
            rows = [np.argwhere(item == k).mean(axis=0)[1] for k in (4, 1)]
            assert rows[0] < rows[1] + 10
