"""Whether a comparison on real images fits the machine."""

from pathlib import Path

from metasynth.experiments.comparison.methods import variants_among
from metasynth.experiments.comparison.settings import ComparisonConfig
from metasynth.experiments.real_images.cohorts import maps_of

from metasynth.running.prepared import PreparedData
from metasynth.sizes import require_memory
from metasynth.training.run_sizes import (
    FLOAT,
    Items,
    require_horizon,
    require_network,
    require_nodes,
    require_run,
    step_bytes,
)


def require_comparison(config: ComparisonConfig, prepared: PreparedData, out: Path) -> None:
    """`require_run` of a comparison on real images, with its augmenters and its clusters."""
    items, batch = Items.of(prepared.path, maps_of(prepared)), config.segmenter.batch_size
    require_run(config, items, out, baseline=config.baseline)
    items = items.part(config.segmenter.window)
    if variants_among(config.methods):
        step = step_bytes(config.segmenter, items, batch)
        for name, outer in config.outer_problems.items():
            require_horizon(outer, items, batch, step, "segmenter.batch_size", name)
        require_nodes(config.learned.nodes, items, batch, "learned.nodes")
        require_network(config.learned.network, items, batch, "learned.network")
    if "clustered" in config.methods:
        clusters = config.clustered.clusters * (items.n_generation - 1)
        require_memory(FLOAT * batch * clusters, f"drawing {clusters} clusters", "clustered.clusters")
        require_nodes([config.clustered.nodes], items, batch, "clustered.nodes")
