"""A raw data set of nnU-Net with small heads, two channels or one."""

import json
from pathlib import Path
from typing import Any

from metasynth.data_prep.mappings import MAPPINGS
from support.head_phantom import head_image, head_labels, save

TISSUES = {
    "background": 0,
    "white matter": 1,
    "cortical grey matter": 2,
    "subcortical grey matter": 3,
    "ventricles": 4,
}


def described(folder: Path, **changes: Any) -> Path:
    """Write a description, of which an entry of None is left out."""
    content = {
        "channel_names": {"0": "T1"},
        "labels": TISSUES,
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(kept))
    return folder


def make_dataset(folder: Path, cases: int = 2, channels: int = 1, **changes: Any) -> Path:
    """The data set; channel 1 is the image turned to its negative."""
    names = {str(number): name for number, name in zip(range(channels), ("T1", "PD"), strict=False)}
    described(folder, **{"channel_names": names, "numTraining": cases, **changes})
    for seed in range(cases):
        ids = head_labels(seed)
        image = head_image(ids, seed)
        classes = MAPPINGS["freesurfer-4"].apply(ids)
        save(folder / "labelsTr" / f"head_{seed}.nii.gz", classes)
        for channel in range(channels):
            own = image if channel == 0 else image.max() - image
            save(folder / "imagesTr" / f"head_{seed}_{channel:04d}.nii.gz", own)
    return folder
