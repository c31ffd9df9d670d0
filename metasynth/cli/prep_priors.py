"""The command that estimates the priors of a generator; it imports what it needs when it runs."""

import sys
from pathlib import Path

import click

from metasynth.cli.options import OVERWRITE, PATH, out_option
from metasynth.lines import tell


@click.command()
@click.argument("cache", type=PATH)
@out_option("the priors (JSON)", "FILE", required=True)
@click.option("--subjects", metavar="NAME[,NAME...]", help="Whose images to estimate from; by default everyone's.")
@OVERWRITE
def priors(cache: Path, out: Path, subjects: str | None, overwrite: bool) -> None:
    """Estimate how bright and how rough each structure is in the images of a cache, for --set synthesis.priors=FILE."""
    from metasynth.data.cache import Cache
    from metasynth.data.dataset import SliceDataset
    from metasynth.outputs import Output, check_outputs
    from metasynth.report.priors import priors_table
    from metasynth.synthesis.priors.priors_file import PRIORS, as_json, write_priors
    from metasynth.training.priors import estimate_from, origin_of

    check_outputs([Output(f"--out {out}:", out, PRIORS, overwrite, make_folder=False)], [cache])
    with Cache(cache) as opened:
        names = opened.subjects if subjects is None else tuple(name.strip() for name in subjects.split(","))
        dataset = SliceDataset(opened, names)
        estimate, origin = estimate_from(dataset), origin_of(dataset)
    found = estimate.priors
    write_priors(out, found, origin)
    tell(priors_table(as_json(found, origin)["labels"]).markdown().rstrip(), sys.stdout)
    low, high = estimate.fields.min(), estimate.fields.max()
    fields = f"fields of {low:.0%} to {high:.0%} taken off"
    tell(f"\nPriors: {out} ({len(names)} subjects, {fields})", sys.stdout)
