"""The layouts of known data sets: FreeSurfer's subjects folder, BIDS with derivatives, neurite-OASIS in 2D."""

import re
from pathlib import Path

from metasynth.data_prep.label_tables import STRUCTURES_24
from metasynth.data_prep.naming.bids_names import bids_pairs, entities
from metasynth.data_prep.naming.names import SUFFIXES, as_name, copies_note, name_files, stem, without_copies
from metasynth.data_prep.naming.pairing import resolve
from metasynth.data_prep.naming.people import by_person
from metasynth.data_prep.sources import Scan, Sources

from metasynth.errors import DataError, UsageError
from metasynth.text import read_lines, shortened, whole_number

BIDS_SUFFIXES = (".nii.gz", ".nii")
TIMEPOINTS = "base-tps"  # in the folder of a base of FreeSurfer's longitudinal stream: its timepoints, one a line


def freesurfer_scans(
    folder: Path, image: str | None, labels: str, transform: str | None = None, person: str | None = None
) -> Sources:
    """Subjects of a SUBJECTS_DIR: every folder with `mri/` in it, fsaverage apart.

    Timepoints and bases of the longitudinal stream are scans of one person (see `metasynth.data_prep.naming.people`).

    Parameters
    ----------
    folder : Path
        SUBJECTS_DIR.
    image : str or None
        Name in mri/ of the image, such as "norm"; None for label maps alone.
    labels : str
        Name in mri/ of the label map, such as "aseg".
    transform : str or None
        File below the subject's folder that leads to the template's space, or None.
    person : str or None
        Regular expression that finds the person in a folder's name (see `people.by_person`).

    Raises
    ------
    UsageError
        The folder does not exist or holds no subject.
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
            left_out.append((as_name(subject.name), f"missing: {', '.join(missing)}"))
        else:
            scans.append(Scan(as_name(subject.name), **files))
    links, notes = _timepoints(subjects)
    return by_person(Sources(scans, left_out, notes), person, links)


def _timepoints(subjects: list[Path]) -> tuple[list[tuple[str, str]], list[str]]:
    """(timepoint, base) of every base's own list, and notes on lists that cannot be read."""
    links, notes = [], []
    for base in subjects:
        if (base / TIMEPOINTS).is_file():
            try:
                lines = read_lines(base / TIMEPOINTS)
            except DataError as error:
                notes.append(f"{error}; whose scans {base.name} was made of is read from names alone")
            else:
                links += [(as_name(line.strip()), as_name(base.name)) for line in lines if line.strip()]
    return links, notes


def oasis2d_scans(folder: Path, segmentation: str) -> Sources:
    """Subjects of neurite-OASIS 2D: folders with slice_norm.nii.gz and slice_seg24.nii.gz or slice_seg4.nii.gz.

    Parameters
    ----------
    folder : Path
        The folder with the subjects' folders.
    segmentation : str
        "slice_seg24" or "slice_seg4".

    Raises
    ------
    UsageError
        The folder does not exist or holds no subject.
    """
    scans, left_out = [], []
    for subject in _folders(folder, "FOLDER"):
        image, labels = (subject / f"{name}.nii.gz" for name in ("slice_norm", segmentation))
        if not image.is_file() and not labels.is_file():
            continue
        if image.is_file() and labels.is_file():
            scans.append(Scan(as_name(subject.name), labels, image))
        else:
            missing = labels if image.is_file() else image
            left_out.append((as_name(subject.name), f"missing: {missing}"))
    if not scans:
        raise UsageError(f"{folder}: expected folders with slice_norm.nii.gz and {segmentation}.nii.gz; found none")
    return Sources(scans, left_out)


def check_oasis_table(folder: Path) -> None:
    """Require that seg24_labels.txt, where the folder has one, names the ids as this project does.

    Raises
    ------
    DataError
        An id has another name.
    """
    path = folder / "seg24_labels.txt"
    if not path.is_file():
        return
    for line in read_lines(path):
        words = line.split()
        number = whole_number(words[0]) if len(words) > 1 else None
        if number is None or not 0 < number < len(STRUCTURES_24):
            continue
        ours = STRUCTURES_24[number]
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


def bids_scans(
    folder: Path, derivatives: Path | None, suffix: str, description: str | None, person: str | None = None
) -> Sources:
    """Images of a BIDS data set and the `_dseg` files that belong to them.

    A segmentation belongs to an image when all that its name says holds of the image, but what only derivatives say
    (space, desc, ...); what it leaves out (acq, run) may belong to one image alone. `run-01` is `run-1`. Sessions and
    runs of one person become one subject.

    Parameters
    ----------
    folder : Path
        The data set; images lie in sub-*/anat or sub-*/ses-*/anat.
    derivatives : Path or None
        Where the segmentations lie; `derivatives` in the data set by default. Searched to any depth.
    suffix : str
        Suffix of the images, such as "T1w".
    description : str or None
        `desc` of the segmentations, such as "aseg"; None takes those without one.
    person : str or None
        Regular expression that finds the person in a scan's name (see `people.by_person`).

    Raises
    ------
    UsageError
        A folder does not exist, or there is no image or no segmentation.
    """
    derived = folder / "derivatives" if derivatives is None else derivatives
    images = bids_images(folder, derived, suffix)
    if not derived.is_dir():
        raise UsageError(f"--derivatives {derived}: there is no such folder")
    segmentations = [p for p in _bids_files(derived, "dseg") if entities(stem(p)).get("desc") == description]
    if not segmentations:
        wanted = f"_desc-{description}_dseg" if description else "_dseg"
        raise UsageError(f"--derivatives {derived}: holds no segmentation called sub-*{wanted}.nii.gz")
    named = name_files(images)
    segmentations, copies = without_copies(segmentations)
    places: dict[str, list[Path]] = {}
    for path in segmentations:
        places.setdefault(stem(path), []).append(path)
    possible = bids_pairs(named.names, places)
    matches = resolve((rank, name, path) for rank, name, partner in possible for path in places[partner])
    scans, left_out = [], []
    for full in named.names:
        name = full.rpartition("_")[0]
        if full in named.doubles:
            left_out.append((name, named.doubles[full]))
        elif full in matches.pairs:
            subject = f"sub-{entities(full)['sub']}"
            scans.append(Scan(name, matches.pairs[full], named.files[full], subject=subject))
        elif full in matches.unclear:
            left_out.append((name, matches.unclear[full].reason("segmentation")))
        else:
            left_out.append((name, f"{named.files[full]}: has no segmentation in {derived}"))
    return by_person(Sources(scans, left_out, [*named.notes, *copies_note(copies)]), person)


def bids_images(folder: Path, derived: Path, suffix: str) -> list[Path]:
    """Images of a BIDS data set, but those of its derivatives, of a folder of others, and in another space.

    Parameters
    ----------
    folder : Path
        The data set; images lie in sub-*/anat or sub-*/ses-*/anat.
    derived : Path
        A folder of derivatives; it need not exist.
    suffix : str
        Suffix of the images, such as "T1w".

    Raises
    ------
    UsageError
        The folder does not exist, or there is no image.
    """
    if not re.fullmatch(r"[A-Za-z0-9_+-]+", suffix):
        raise UsageError(f"--image-suffix {shortened(suffix)}: expected letters and digits, such as T1w")
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    images = [p for p in _bids_files(folder, suffix) if (folder / "derivatives") not in p.parents]
    images = [p for p in images if derived not in p.parents or derived == folder]
    images = [p for p in images if "space" not in entities(stem(p))]
    if not images:
        raise UsageError(f"{folder}: holds no image called sub-*_{suffix}.nii.gz in an anat folder")
    return images


def _bids_files(folder: Path, suffix: str) -> list[Path]:
    found = (p for p in folder.rglob(f"sub-*_{suffix}.nii*") if p.parent.name == "anat")
    return sorted(p for p in found if p.name.endswith(BIDS_SUFFIXES))


def _folders(folder: Path, name: str) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{name} {folder}: there is no such folder")
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _with_suffix(path: Path, suffix: str) -> Path:
    """The path with an ending where it has none."""
    return path if path.name.endswith(SUFFIXES) else path.with_name(path.name + suffix)
