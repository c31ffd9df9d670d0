"""A network from outside the package, with its line of the table."""

from support.own_segmenter import DilatedAttention

from metasynth.segment import BackboneEntry, Design


def dilated(design: Design) -> DilatedAttention:
    return DilatedAttention(design.n_classes, **design.settings.network_arguments)


NETWORK = BackboneEntry("dilated", "dilated convolutions and attention", dilated, takes=("network_arguments",))
