"""What a step over n processes costs: what each computes, and the averages that they take of plain numbers.

An average of m bytes goes around a ring (Patarasuk & Yuan 2009), as Gloo's do, in 2 (n - 1) hops of m / n bytes each,

    t(m, n) = 2 (n - 1) (latency + m / (n bandwidth)),

or, where that is faster and the library can (NCCL), up and down a binary tree, in 2 log2(n) hops of m bytes. Nothing is
computed meanwhile, as the studies' averages are taken between the parts of a step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True)
class Network:
    """Between any two processes: seconds until a message begins to arrive, bytes a second; and whether it has trees."""

    latency: float
    bandwidth: float
    trees: bool = False

    def seconds(self, size: int, processes: int) -> float:
        """Of an average of ``size`` bytes."""
        ring = 2 * (processes - 1) * (self.latency + size / (processes * self.bandwidth))
        tree = 2 * ceil(log2(processes)) * (self.latency + size / self.bandwidth)
        return min(ring, tree) if self.trees else ring

    def of_all(self, sizes: Iterable[int], processes: int) -> float:
        """Of averages one after the other."""
        return sum(self.seconds(size, processes) for size in sizes)


def fitted(measured: Sequence[tuple[int, int, float]]) -> Network:
    """The network that comes closest to measured (bytes, processes, seconds), by least squares of relative errors."""
    sizes, processes, seconds = (np.array(values, float) for values in zip(*measured, strict=True))
    hops = 2 * (processes - 1)
    (latency, per_byte), _ = nnls(np.stack([hops, hops * sizes / processes], 1) / seconds[:, None], np.ones(len(sizes)))
    return Network(float(latency), 1 / float(per_byte) if per_byte else float("inf"))


def crowded(processes: int, cores: int) -> float:
    """By how much a process takes longer where n of one thread share fewer cores."""
    return max(1.0, processes / cores)


@dataclass(frozen=True)
class Scaled:
    """A step over n processes, beside the same of one.

    Attributes
    ----------
    processes : int
    seconds : float
    waiting : float
        The part of them that goes into exchanges.
    gain : float
        How many times the images a second of one process.
    """

    processes: int
    seconds: float
    waiting: float
    gain: float


def grown(alone: float, sizes: Sequence[int], network: Network, processes: int) -> Scaled:
    """Every process has as many images as the one had, whose step took ``alone`` seconds."""
    exchanged = network.of_all(sizes, processes)
    seconds = alone + exchanged
    return Scaled(processes, seconds, exchanged / seconds, processes * alone / seconds)


def shared(alone: float, sizes: Sequence[int], network: Network, processes: int) -> Scaled:
    """The images of the one are divided, and half of the images take half of the time."""
    exchanged = network.of_all(sizes, processes)
    seconds = alone / processes + exchanged
    return Scaled(processes, seconds, exchanged / seconds, alone / seconds)
