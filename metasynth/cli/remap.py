"""``metasynth prep remap``: a cache of the same people whose images have another contrast."""

import sys
from pathlib import Path

import click

from metasynth.cli.completion import complete_curve
from metasynth.cli.options import OVERWRITE, PATH, QUIET, out_option
from metasynth.lines import tell
from metasynth.text import by


@click.command()
@click.argument("cache", type=PATH)
@click.option(
    "--curve",
    metavar="NAME|X:Y,X:Y",
    required=True,
    shell_complete=complete_curve,
    help="What becomes of intensities: inverted (1 - x), bent (not monotone), or points, x from 0 to 1, that lines "
    "connect.",
)
@out_option("the cache (HDF5)", "FILE", required=True)
@OVERWRITE
@QUIET
def remap(cache: Path, curve: str, out: Path, overwrite: bool, quiet: bool) -> None:
    """Make a cache of the same people with another contrast, to test on: a curve is applied to the images of CACHE.

    People, slices and labels stay, and the background stays 0. The images are no scans any more: they are marked
    REMAPPED.
    """
    from metasynth.data.schema import CACHE
    from metasynth.data_prep.remapping.curves import parse_curve
    from metasynth.data_prep.remapping.remap import remap_cache
    from metasynth.outputs import Output, check_outputs
    from metasynth.running.progress import Progress

    chosen = parse_curve(curve)
    check_outputs([Output(f"--out {out}:", out, CACHE, overwrite, make_folder=False)], [cache])
    with Progress(quiet).counter("items") as follow:
        n, *shape = remap_cache(cache, out, chosen, follow)
    tell(f"Cache: {out} ({n} {'volumes' if len(shape) == 3 else 'slices'} of {by(shape)}), REMAPPED", sys.stdout)
