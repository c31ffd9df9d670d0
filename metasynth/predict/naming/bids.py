"""A derivative data set of BIDS: where a scan's files lie in it, and what it says about itself."""

import json
from pathlib import Path

from metasynth import __version__
from metasynth.data_prep.naming.bids_names import entities
from metasynth.data_prep.naming.names import stem
from metasynth.predict.naming.names import TABLES

DESCRIPTION = "dataset_description.json"
BIDS_VERSION = "1.9.0"
NOT_BIDS = (
    "qc",
    "volumes.*",
    "segmentation.json",
    ".segmentation.lock",
    *(name for name in TABLES if name != "dseg.tsv"),
)
"""What lies beside the data set's own files, for its `.bidsignore`."""


def derived_place(image: Path, ending: str) -> Path:
    """Where what is made of an image lies in the data set: sub-1/ses-2/anat/sub-1_ses-2_ENDING of sub-1_ses-2_T1w.

    Parameters
    ----------
    image : Path
        Whose name is one of BIDS.
    ending : str
        Suffix and ending, such as "dseg.nii.gz".
    """
    name = stem(image)
    said = entities(name)
    folders = [f"{key}-{said[key]}" for key in ("sub", "ses") if key in said]
    return Path(*folders, "anat", f"{name.rpartition('_')[0]}_{ending}")


def person_and_session(image: Path) -> tuple[str, str]:
    """`participant_id` and `session_id` of an image, "n/a" where its name says no session."""
    said = entities(stem(image))
    return f"sub-{said['sub']}", f"ses-{said['ses']}" if "ses" in said else "n/a"


def dataset_files(digest: str) -> dict[str, str]:
    """What is in the files that make a folder a derivative data set, by name.

    Parameters
    ----------
    digest : str
        SHA-256 of the model's file.
    """
    made_by = {
        "Name": "metasynth",
        "Version": __version__,
        "Description": f"predict, with the model of SHA-256 {digest}",
    }
    description = {
        "Name": "Segmentations made by metasynth",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
    }
    ignored = "\n".join([*NOT_BIDS, ""])
    return {DESCRIPTION: json.dumps(description, indent=2) + "\n", ".bidsignore": ignored}
