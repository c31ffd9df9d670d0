"""nnU-Net's raw data sets: `dataset.json`, `imagesTr/CASE_0000.nii.gz` and `labelsTr/CASE.nii.gz`.

The format is that of version 2 (its documentation/dataset_format.md and region_based_training.md). The data sets of
version 1 are read too: `modality` for `channel_names`, and labels the other way round.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metasynth.data_prep.datasets.nnunet_labels import NAME, Ids, ids_by_name
from metasynth.data_prep.naming.names import SUFFIXES, as_name, listed
from metasynth.data_prep.sources import Scan, Sources

from metasynth.errors import DataError, UsageError
from metasynth.schema import COUNT, TEXT, either, entries, expect, listing, mapping
from metasynth.text import parse_json, shortened, shown, whole_number

IMAGES, LABELS = "imagesTr", "labelsTr"
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_TOLD = ("name", "description", "reference", "licence", "license", "release")
_CONTENT = entries(
    {"labels": mapping(either(TEXT, either(listing(COUNT, least=1), COUNT)), least=2)},
    {
        "channel_names": mapping(TEXT, least=1),
        "modality": mapping(TEXT, least=1),
        "file_ending": TEXT,
        "numTraining": COUNT,
        "regions_class_order": listing(COUNT),
    },
)


@dataclass(frozen=True)
class NnunetDataset:
    """What a data set says of itself.

    Attributes
    ----------
    folder : Path
        Where it lies.
    channels : dict of int to str
        Names by number.
    ending : str
        Of all its files.
    labels : dict of str to (int or list of int)
        The id of each label, or the ids of each region, in their order.
    training : int or None
        How many training cases there are to be.
    notice : str
        What it says of its origin and licence, for a cache; empty where it says nothing.
    """

    folder: Path
    channels: dict[int, str]
    ending: str
    labels: dict[str, Ids]
    training: int | None
    notice: str

    @property
    def where(self) -> str:
        """Its description, for messages."""
        return str(self.folder / NAME)


def read_dataset(folder: Path) -> NnunetDataset:
    """The description of a data set.

    Raises
    ------
    UsageError
        The folder does not exist, or has no such description.
    DataError
        The description is damaged, or its files are of a kind that is not read here.
    """
    if not folder.is_dir():
        raise UsageError(f"FOLDER {folder}: there is no such folder")
    path = folder / NAME
    if not path.is_file():
        raise UsageError(f"{folder}: expected a raw data set of nnU-Net; {NAME} is missing")
    try:
        content: dict[str, Any] = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON: {error}") from error
    expect(content, _CONTENT, str(path))
    ending = content.get("file_ending", SUFFIXES[0])
    if ending not in SUFFIXES:
        raise DataError(f"{path}: file_ending: expected one of {', '.join(SUFFIXES)}, got {shown(ending)}")
    told = [content[key] for key in _TOLD if isinstance(content.get(key), str) and content[key].strip()]
    return NnunetDataset(
        folder=folder,
        channels=_channels(content, path),
        ending=ending,
        labels=ids_by_name(content["labels"], f"{path}: labels:"),
        training=content.get("numTraining"),
        notice="; ".join(" ".join(text.split()) for text in told),
    )


def _channels(content: Mapping[str, Any], path: Path) -> dict[int, str]:
    key = next((key for key in ("channel_names", "modality") if key in content), None)
    if key is None:
        raise DataError(f"{path}: expected an entry 'channel_names'; it has {', '.join(sorted(content))}")
    found = {whole_number(number): name for number, name in content[key].items()}
    if sorted(number for number in found if number is not None) != list(range(len(content[key]))):
        raise DataError(f"{path}: {key}: expected the numbers 0, 1, ..., got {listed([*content[key]])}")
    return {number: name for number, name in sorted(found.items()) if number is not None}


def channel_of(dataset: NnunetDataset, given: str | None) -> int:
    """The number of the channel that is meant by its number or name; of a data set of one channel, that one.

    Raises
    ------
    UsageError
        There are several and none is named, or there is no such channel.
    """
    if given is None and len(dataset.channels) == 1:
        return 0
    there = ", ".join(f"{number} ({name})" for number, name in dataset.channels.items())
    if given is None:
        raise UsageError(
            f"{dataset.where}: has {len(dataset.channels)} channels, {there}, and a cache holds one; name it by "
            "--channel"
        )
    found = [number for number, name in dataset.channels.items() if given in (name, str(number), f"{number:04d}")]
    if len(found) != 1:
        raise UsageError(f"--channel {shortened(given)}: expected one of {there}")
    return found[0]


def nnunet_scans(dataset: NnunetDataset, channel: int) -> Sources:
    """The training cases of a data set, each with its image of one channel.

    Raises
    ------
    UsageError
        A folder of training cases is missing, or there is no image in it.
    """
    images, labels = (_folder(dataset, name) for name in (IMAGES, LABELS))
    by_case: dict[str, dict[int, Path]] = defaultdict(dict)
    odd = []
    for name, path in _files(images, dataset.ending).items():
        if found := _CHANNEL.fullmatch(name):
            by_case[found[1]][int(found[2])] = path
        else:
            odd.append((as_name(name), f"{path}: expected a name such as {name}_0000{dataset.ending}"))
    if not by_case:
        raise UsageError(f"{images}: holds no image called CASE_0000{dataset.ending}")
    truth = _files(labels, dataset.ending)
    scans, left_out = [], odd
    for case in sorted(by_case.keys() | truth.keys()):
        file, image, name = truth.get(case), by_case.get(case, {}).get(channel), as_name(case)
        if file is None:
            left_out.append((name, f"{images}: has no label map; {labels / case}{dataset.ending} is missing"))
        elif image is None:
            wanted = f"{case}_{channel:04d}{dataset.ending}"
            left_out.append((name, f"{file}: has no image; {images / wanted} is missing"))
        else:
            scans.append(Scan(name, file, image))
    return Sources(scans, left_out, _counted(dataset, len(truth)))


def _folder(dataset: NnunetDataset, name: str) -> Path:
    folder = dataset.folder / name
    if not folder.is_dir():
        raise UsageError(f"{dataset.folder}: expected a raw data set of nnU-Net; {name} is missing")
    return folder


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """{name without the ending: file}."""
    found = (p for p in sorted(folder.iterdir()) if p.name.endswith(ending) and not p.name.startswith("."))
    return {path.name.removesuffix(ending): path for path in found}


def _counted(dataset: NnunetDataset, count: int) -> list[str]:
    if dataset.training in (None, count):
        return []
    return [f"{dataset.where}: numTraining: says {dataset.training}, and {LABELS} holds {count} label maps"]
