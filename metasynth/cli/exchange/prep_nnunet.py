"""The command that makes a cache of nnU-Net's raw data sets; it imports what it needs when it runs."""

from pathlib import Path
from typing import Any

import click

from metasynth.cli.options import PATH, mapping_option, with_options
from metasynth.cli.prep_job import completed, implied, make
from metasynth.cli.prep_options import GEOMETRY, IMAGES, PERSON, SHARED, TRANSFORMS


@click.command()
@click.argument("folder", type=PATH)
@click.option("--channel", metavar="NAME|N", help="Which channel of images that have several.")
@mapping_option(more=" By default the labels of dataset.json; each id is of the last region that it is in.")
@with_options(*GEOMETRY[1:], TRANSFORMS, *IMAGES, PERSON, *SHARED)
def nnunet(folder: Path, channel: str | None, transforms: tuple[str, ...], person: str | None, **given: Any) -> None:
    """Make a cache of a raw data set of nnU-Net: FOLDER is DatasetXXX_Name, with dataset.json, imagesTr and labelsTr.

    Its training cases are read, in the formats of versions 1 and 2, where their files are NIfTI or MGZ.
    """
    from metasynth.data_prep.datasets.nnunet import channel_of, nnunet_scans, read_dataset
    from metasynth.data_prep.datasets.nnunet_labels import mapping_of

    dataset = read_dataset(folder)
    number = channel_of(dataset, channel)
    own = mapping_of(dataset.labels, f"{dataset.where}: labels:") if given["mapping"] is None else None
    sources = completed(nnunet_scans(dataset, number), given, transforms, person)
    origin = [f"nnU-Net data set: {folder.resolve().name}", f"channel {dataset.channels[number]}", dataset.notice]
    make("prep nnunet", sources, "; ".join(filter(None, origin)), own, **implied(given, transforms))
