"""Several processes that train one model together, each on its own part of every batch.

A loss that is the mean over the samples of its batch has for a gradient the mean of those of equal parts of the
batch. In the product of three parts (`metasynth.bilevel.hypergradient`) each part is such a mean,

    g = mean_r ∂L_inner,r/∂φ        v = mean_r ∂L_outer,r/∂φ*        h = mean_r [(∂g_r/∂θ)ᵀ w + ∂L_outer,r/∂θ]

over processes r, where w = (∂U/∂g)ᵀ v is the same in all of them: three exchanges of plain numbers between the parts.
Where several steps are differentiated as one (`Unrolled`), the average of g is part of their graph: see
`metasynth.bilevel.processes.averaged`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from metasynth.bilevel.derivatives import Gradients
from metasynth.bilevel.processes.averaged import Averaged
from metasynth.bilevel.processes.fingerprint import fingerprint
from metasynth.bilevel.processes.flat import joined_by_type, split_like


@dataclass(frozen=True)
class Processes:
    """The processes that share the work, and what they exchange; by default one, in which everything here is free.

    Every method is called by all of them, in the same order. Results are the same in all to the last bit.

    Attributes
    ----------
    group : torch.distributed.ProcessGroup or None
        Of which this process is a member; None: a single process.

    Raises
    ------
    ValueError
        If this process is no member of the group.
    """

    group: "dist.ProcessGroup | None" = None

    def __post_init__(self) -> None:
        if self.group is not None and (not isinstance(self.group, dist.ProcessGroup) or dist.get_rank(self.group) < 0):
            raise ValueError(
                f"group must be a torch.distributed group with this process in it, or None, got {self.group!r}"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Processes":
        return self  # a copy of what trains takes part in the same group

    @classmethod
    def current(cls) -> "Processes":
        """All processes of the job, such as those that torchrun started.

        Raises
        ------
        ValueError
            If `torch.distributed` is not initialised.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "Processes.current() needs torch.distributed to be initialised: start with torchrun and call "
                "torch.distributed.init_process_group() first, or use Processes() for a single process"
            )
        return cls(dist.group.WORLD)

    @property
    def count(self) -> int:
        """How many there are."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """Which of them this one is, from 0."""
        return 0 if self.group is None else dist.get_rank(self.group)

    @property
    def device(self) -> torch.device:
        """Where the group takes messages that live nowhere in particular."""
        if self.group is not None and dist.get_backend(self.group) == "nccl":
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def mean(self, tensors: Sequence[Tensor | None]) -> Gradients:
        """The mean of each tensor over the processes, detached if there are several.

        Entries that are None everywhere stay None; one that is None in some processes counts as zero there, so that
        all get the same entries. NaN anywhere is NaN everywhere.

        Raises
        ------
        ValueError
            In all processes, if an entry has not the same number of elements in all that have it.
        """
        if self.count == 1 or not tensors:
            return list(tensors)
        with torch.no_grad():
            means = self._filled([None if t is None else t.detach() for t in tensors])
            for flat, places in joined_by_type(means):
                dist.all_reduce(flat, group=self.group)
                for i, part in split_like(flat.div_(self.count), means, places).items():
                    means[i] = part
        return means

    def averaged(self, tensors: Sequence[Tensor | None]) -> Gradients:
        """The same mean, as an operation of the graph: its derivatives are means too.

        They are exchanged in the order in which autograd comes to them, so that graphs have to be alike in all
        processes; an exchange that only some come to is waited for in vain.
        """
        return list(tensors) if self.count == 1 else list(Averaged.apply(self.mean, *tensors))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes, all of which have it; differentiable, see `averaged`."""
        (mean,) = self.averaged([tensor])
        assert mean is not None
        return mean if self.count == 1 else mean * self.count

    def means(self, tensors: Sequence[Tensor | None], values: Sequence[Tensor]) -> tuple[Gradients, list[Tensor]]:
        """`mean` of both, in the same messages; every process has all of ``values``."""
        found = self.mean([*tensors, *values])
        return found[: len(tensors)], [value for value in found[len(tensors) :] if value is not None]

    def mean_of_changes(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The ``after``, with the mean change in place of this process' own in floating-point entries.

        What no process changed is returned as it is. ``before`` has to be the same in all processes.
        """
        found = dict(after)
        if self.count > 1:
            names = [name for name, value in after.items() if value.is_floating_point()]
            changed = [None if torch.equal(after[n], before[n]) else after[n] - before[n] for n in names]
            for name, change in zip(names, self.mean(changed), strict=True):
                found[name] = after[name] if change is None else before[name] + change
        return found

    def average_buffers(self, module: Any, before: Mapping[str, Tensor]) -> None:
        """Give a module the `mean_of_changes` of its buffers, in place; anything else is left alone."""
        if self.count > 1 and isinstance(module, nn.Module):
            own = dict(module.named_buffers())
            for name, value in self.mean_of_changes(before, own).items():
                own[name].data.copy_(value)

    def share(self, what: str, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite tensors, in place, with those of the first process.

        Raises
        ------
        ValueError
            In all processes, if names, shapes or types differ; ``what`` names the whole.
        """
        if self.group is None or self.count == 1:
            return
        differing = self._differing({name: f"{tuple(t.shape)} {t.dtype}" for name, t in tensors.items()})
        if differing is not None:
            rank, name, here, there = differing
            raise ValueError(
                f"processes differ in {what}: {name} is {here} in process 0 and {there} in process {rank}; build it "
                "alike in all"
            )
        held = [t.detach() for t in tensors.values()]
        with torch.no_grad():
            for flat, places in joined_by_type(held):
                dist.broadcast(flat, src=dist.get_global_rank(self.group, 0), group=self.group)
                for i, part in split_like(flat, held, places).items():
                    held[i].copy_(part)

    def require_same_state(self, what: str, state: Callable[[], Mapping[str, Any]]) -> None:
        """Raise ValueError in all processes unless ``state()``, a nest of tensors and numbers, is the same in all."""
        if self.count == 1:
            return
        differing = self._differing({name: fingerprint(part) for name, part in state().items()})
        if differing is not None:
            rank, name, *_ = differing
            raise ValueError(
                f"process {rank} has another {name!r} in {what} than process 0; load or make it alike in all"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """A context that ends for all processes as it ends for each: an error in one is a ValueError in the others."""
        if self.count == 1:
            yield
            return
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
        stopped = self._gathered(None if error is None else f"{error}")
        if error is not None:
            raise error
        for rank, message in enumerate(stopped):
            if message is not None:
                raise ValueError(f"process {rank} stopped: {message}")

    def _filled(self, tensors: Gradients) -> Gradients:
        """The tensors, with zeros where only other processes have one."""
        sizes = torch.tensor([-1 if t is None else t.numel() for t in tensors])
        extremes = torch.cat([sizes, -sizes]).to(self.device)
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=self.group)
        largest, smallest = extremes[: len(tensors)], -extremes[len(tensors) :]
        if torch.equal(largest, smallest):
            return tensors
        described = self._gathered([None if t is None else (tuple(t.shape), t.dtype, t.device.type) for t in tensors])
        filled = list(tensors)
        for i, entries in enumerate(zip(*described, strict=True)):
            present = [entry for entry in entries if entry is not None]
            if len({shape for shape, *_ in present}) > 1:
                raise ValueError(f"processes differ in the shape of what they average, entry {i}: {entries}")
            if present and filled[i] is None:
                shape, dtype, kind = present[0]
                near = [t.device for t in tensors if t is not None and t.device.type == kind]
                filled[i] = torch.zeros(shape, dtype=dtype, device=near[0] if near else kind)
        return filled

    def _differing(self, described: Mapping[str, str]) -> tuple[int, str, str, str] | None:
        """The first process and name of which the description is another than that of process 0."""
        first, *others = self._gathered(dict(described))
        for rank, other in enumerate(others, start=1):
            for name in [*first, *other]:
                here, there = first.get(name, "missing"), other.get(name, "missing")
                if here != there:
                    return rank, name, here, there
        return None

    def _gathered(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self.group)
        return found
