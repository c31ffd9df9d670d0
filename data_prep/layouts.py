"""The layouts of known data sets: FreeSurfer's subjects folder, BIDS with derivatives, neurite-OASIS in 2D."""

from pathlib import Path

from metasynth.data_prep.label_tables import STRUCTURES_24
from metasynth.data_prep.sources import SUFFIXES, Scan, Sources

from metasynth.errors import DataError, UsageError

BIDS_SUFFIXES = (".nii.gz", ".nii")
DERIVED = ("space", "desc", "res", "den", "label", "hemi", "atlas", "seg")  # entities only derivatives have


def freesurfer_scans(folder: Path, image: str | None, labels: str, transform: str | None = None) -> Sources:
    """Subjects of a SUBJECTS_DIR: every folder with `mri/` in it, fsaverage apart.

    Args:
        folder: SUBJECTS_DIR.
        image: Name in mri/ of the image, such as "norm"; None for label maps alone.
        labels: Name in mri/ of the label map, such as "aseg".
        transform: File below the subject's folder that leads to the template's space, or None.

    Raises:
        UsageError: The folder does not exist or holds no subject.

    """
    subjects = [
        p for p in _folders(folder, "SUBJECTS_DIR") if (p / "mri").is_dir() and not p.name.startswith("fsaverage")
    ]
    if not subjects:
        raise UsageError(f"{folder}: expected FreeSurfer subjects, folders with mri/ in them; found none")
    scans, left_out = [], []
    for subject in subjects:
        files = {
            **({"image": _with_suffix(subject / "mri" / image, ".mgz")} if image else {}),
            "labels": _with_suffix(subject / "mri" / labels, ".mgz"),
            **({"transform": subject / transform} if transform else {}),
        }
        missing = [str(path) for path in files.values() if not path.is_file()]
        if missing:
            left_out.append((subject.name, f"missing: {', '.join(missing)}"))
        else:
            scans.append(Scan(subject.name, **files))
    return Sources(scans, left_out)


def oasis2d_scans(folder: Path, segmentation: str) -> Sources:
    """Subjects of neurite-OASIS 2D: folders with slice_norm.nii.gz and slice_seg24.nii.gz or slice_seg4.nii.gz.

    Args:
        folder: The folder with the subjects' folders.
        segmentation: "slice_seg24" or "slice_seg4".

    Raises:
        UsageError: The folder does not exist or holds no subject.

    """
    scans, left_out = [], []
    for subject in _folders(folder, "FOLDER"):
        image, labels = (subject / f"{name}.nii.gz" for name in ("slice_norm", segmentation))
        if not image.is_file() and not labels.is_file():
            continue
        if image.is_file() and labels.is_file():
            scans.append(Scan(subject.name, labels, image))
        else:
            missing = labels if image.is_file() else image
            left_out.append((subject.name, f"missing: {missing}"))
    if not scans:
        raise UsageError(f"{folder}: expected folders with slice_norm.nii.gz and {segmentation}.nii.gz; found none")
    return Sources(scans, left_out)


def check_oasis_table(folder: Path) -> None:
    """Require that seg24_labels.txt, where the folder has one, names the ids as this project does.

    Raises:
        DataError: An id has another name.

    """
    path = folder / "seg24_labels.txt"
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) < 2 or not words[0].isdigit() or not 0 < int(words[0]) < len(STRUCTURES_24):
            continue
        ours = STRUCTURES_24[int(words[0])]
        if _plain(words[1]) != _plain(ours):
            raise DataError(
                f"{path}: id {words[0]} is {words[1]}, expected {ours!r}; give --mapping a CSV file of id,class"
            )


def _plain(name: str) -> str:
    """A structure's name without the differences between spellings."""
    out = "".join(c for c in name.lower() if c.isalnum())
    for long, short in (
        ("diencephalon", "dc"),
        ("ventricle", "vent"),
        ("inferior", "inf"),
        ("lateral", "lat"),
        ("third", "3rd"),
        ("cerebral", ""),
        ("proper", ""),
    ):
        out = out.replace(long, short)
    return out


def bids_scans(folder: Path, derivatives: Path | None, suffix: str, description: str | None) -> Sources:
    """Images of a BIDS data set and the `_dseg` files that belong to them.

    A segmentation belongs to an image when all their entities but those of derivatives (space, desc, ...) agree.
    Sessions and runs of one person become one subject.

    Args:
        folder: The data set; images lie in sub-*/anat or sub-*/ses-*/anat.
        derivatives: Where the segmentations lie; `derivatives` in the data set by default. Searched to any depth.
        suffix: Suffix of the images, such as "T1w".
        description: `desc` of the segmentations, such as "aseg"; None takes those without one.

    Raises:
        UsageError: A folder does not exist, or there is no image or no segmentation.

    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    derived = folder / "derivatives" if derivatives is None else derivatives
    if not derived.is_dir():
        raise UsageError(f"--derivatives {derived}: there is no such folder")
    images = [p for p in _bids_files(folder, suffix) if (folder / "derivatives") not in p.parents]
    images = [p for p in images if derived not in p.parents or derived == folder]
    images = [p for p in images if "space" not in _entities(p)]
    if not images:
        raise UsageError(f"{folder}: holds no image called sub-*_{suffix}.nii.gz in an anat folder")
    segmentations = [p for p in _bids_files(derived, "dseg") if _entities(p).get("desc") == description]
    if not segmentations:
        wanted = f"_desc-{description}_dseg" if description else "_dseg"
        raise UsageError(f"--derivatives {derived}: holds no segmentation called sub-*{wanted}.nii.gz")
    scans, left_out = [], []
    for image in images:
        name = image.name.rpartition("_")[0]
        own = _entities(image)
        matches = [p for p in segmentations if _own_part(_entities(p)) == _own_part(own)]
        native = [p for p in matches if "space" not in _entities(p)] or matches
        if len(native) == 1:
            scans.append(Scan(name, native[0], image, subject=f"sub-{own['sub']}"))
        elif native:
            left_out.append((name, f"several segmentations: {', '.join(map(str, native))}"))
        else:
            left_out.append((name, f"{image}: has no segmentation in {derived}"))
    return Sources(scans, left_out)


def _bids_files(folder: Path, suffix: str) -> list[Path]:
    found = (p for p in folder.rglob(f"sub-*_{suffix}.nii*") if p.parent.name == "anat")
    return sorted(p for p in found if p.name.endswith(BIDS_SUFFIXES))


def _entities(path: Path) -> dict[str, str]:
    """Entities of a BIDS file name: sub-01_ses-2_T1w.nii.gz -> {"sub": "01", "ses": "2"}."""
    parts = path.name.partition(".")[0].split("_")[:-1]
    return dict(part.split("-", 1) for part in parts if "-" in part)


def _own_part(entities: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in entities.items() if key not in DERIVED}


def _folders(folder: Path, name: str) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{name} {folder}: there is no such folder")
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _with_suffix(path: Path, suffix: str) -> Path:
    """The path with an ending where it has none."""
    return path if path.name.endswith(SUFFIXES) else path.with_name(path.name + suffix)
