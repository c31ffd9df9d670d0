"""Whether learning from scans without labels fits the machine."""

from pathlib import Path

from metasynth.experiments.real_images.cohorts import maps_of
from metasynth.experiments.unpaired.settings import UnpairedSettings

from metasynth.running.prepared import PreparedData
from metasynth.training.run_sizes import Items, require_network, require_nodes, require_run


def require_unpaired(settings: UnpairedSettings, prepared: PreparedData, out: Path) -> None:
    """`require_run` of learning from scans without labels, with the discriminator and its opponents."""
    items, other = Items.of(prepared.path, maps_of(prepared)), settings.discriminator
    require_run(settings, items, out, baseline=settings.baseline)
    require_network(other.widths, items, other.batch_size, "discriminator.widths, discriminator.batch_size")
    require_nodes(settings.generator.nodes, items, other.batch_size, "generator.nodes")
    require_network(settings.generator.network, items, other.batch_size, "generator.network")
