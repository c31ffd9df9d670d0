"""A small head with FreeSurfer ids, left and right told apart, saved in any orientation."""

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (36, 44, 40)
FREESURFER_T1 = {2: 110, 41: 110, 3: 75, 42: 75, 10: 85, 49: 85, 4: 25, 43: 25, 16: 100, 24: 20, 507: 60}
# Ids of another atlas for the same structures.
MUSE = {2: 81, 41: 82, 3: 100, 42: 101, 10: 59, 49: 60, 4: 51, 43: 52, 16: 35, 24: 46, 507: 0, 0: 0}


def head_labels(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """(X, Y, Z) ids in RAS order; the head is longer in front and wider on the right, so that no axis is symmetric."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    x, y, z = x - 0.03, y + 0.05 + 0.02 * rng.random(), z - 0.05
    right = x > 0
    radius = np.sqrt((x / (0.72 + 0.06 * right)) ** 2 + (y / (0.8 - 0.08 * (y < 0))) ** 2 + (z / 0.72) ** 2)
    ids = np.zeros(shape, dtype=np.int32)
    ids[radius < 1.2] = 507
    ids[radius < 1.06] = 24
    ids[radius < 1.0] = np.where(right, 42, 3)[radius < 1.0]
    ids[radius < 0.75] = np.where(right, 41, 2)[radius < 0.75]
    deep = ((np.abs(x) - 0.22) / 0.14) ** 2 + (y / 0.3) ** 2 + ((z + 0.05) / 0.16) ** 2 < 1
    ids[deep] = np.where(right, 49, 10)[deep]
    fluid = ((np.abs(x) - 0.12) / 0.09) ** 2 + (y / 0.4) ** 2 + ((z - 0.25) / 0.14) ** 2 < 1
    ids[fluid] = np.where(right, 43, 4)[fluid]
    stem = (np.abs(x) < 0.1) & (np.abs(y + 0.15) < 0.12) & (z < -0.3) & (z > -0.95)
    ids[stem] = 16
    return ids


def head_image(ids: np.ndarray, seed: int = 0) -> np.ndarray:
    """T1-like intensities (X, Y, Z) float32 of the ids, with noise and bright scalp."""
    rng = np.random.default_rng(seed)
    out = np.zeros(ids.shape, dtype=np.float32)
    for label, value in FREESURFER_T1.items():
        out[ids == label] = value
    out[ids == 507] = 200
    return np.clip(out + rng.normal(0, 2, ids.shape), 0, None).astype(np.float32)


def as_muse(ids: np.ndarray) -> np.ndarray:
    """The same anatomy with MUSE ids."""
    return np.vectorize(MUSE.get)(ids).astype(np.int32)


def save(path: Path, data: np.ndarray, orientation: str = "RAS", spacing=(1.0, 1.0, 1.0), affine=None) -> Path:
    """Save an array (X, Y, Z) of RAS order with its axes stored in another orientation."""
    if affine is None:
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-10.0, 5.0, -20.0]
    image = nib.Nifti1Image(data, affine)
    wanted = nib.orientations.axcodes2ornt(tuple(orientation))
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted)
    image = image.as_reoriented(turn)
    if path.name.endswith(".mgz"):
        image = nib.MGHImage(np.asarray(image.dataobj), image.affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path
