"""The processes that torchrun started to carry out one run, and how the first has the others follow it.

The first does all that there is to do once: it reads the settings, prepares the data, holds the folder's lock, writes,
prints and reports. Then it hands the others what they need to go through the same study beside it. Each of them keeps
what a study writes in a folder of its own, which goes when it ends.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from metasynth.children import when_gone
from metasynth.errors import MetasynthError, RunError, UsageError
from metasynth.interrupts import SIGNALS, check

PATIENCE = timedelta(hours=2)  # with data that the first prepares; a process that ends is noticed at once


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is.

    Attributes
    ----------
    rank, local : int
        From 0, among all and among those of this machine.
    count, here : int
        How many there are, and how many on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    here: int = 1

    @classmethod
    def started(cls) -> "Ranks":
        """As the environment says, in which torchrun puts it; one process where it says nothing."""
        return cls(*(int(os.environ.get(name, alone)) for name, alone in _VARIABLES.items()))

    def end_with_launcher(self) -> None:
        """Be asked to end when torchrun is no more: where it is killed, nothing else ends its processes."""
        if _BY_TORCHRUN in os.environ:
            when_gone(os.getppid(), signal.SIGTERM)

    def require_divisible(self, **sizes: int) -> None:
        """Raise UsageError unless every batch can be cut into equal parts, one a process."""
        for name, size in sizes.items():
            if size % self.count:
                raise UsageError(f"{name}: expected a multiple of the {self.count} processes of the run, got {size}")

    def require_gpus(self, device: str, gpus: int) -> None:
        """Raise UsageError if processes of this machine would have to share one of its ``gpus``."""
        if self.count > 1 and device.startswith("cuda") and self.here > gpus:
            raise UsageError(
                f"--device {device}: expected at most as many processes as GPUs on a machine, {gpus} here, "
                f"got {self.here}"
            )

    def hand_out(self, where: str, given: Mapping[str, Any] | None) -> None:
        """Join the others, which wait in `follow`, and hand them what they need: None if there is nothing to do.

        Raises
        ------
        RunError, Interrupted
            As `together`.
        """
        if self.count > 1:
            check()  # what ends this process has ended the others, which would be waited for
            with self._told(where):
                self._join()
                self._broadcast(given)
                self.wait()
                if given is None:
                    self._leave()

    def follow(self) -> Mapping[str, Any] | None:
        """What the first hands out. Until it does, a signal ends this process at once: there is nothing to tidy up."""
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
        self._join()
        given: Mapping[str, Any] | None = self._broadcast(None)
        if given is None:  # the first waits for all to have heard so
            self.wait()
            self._leave()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return given

    def wait(self) -> None:
        """Wait for all to come here."""
        import torch.distributed as dist

        dist.barrier()

    def agreed(self, value: float) -> float:
        """What the first found, for a choice that all have to make alike; machines may differ in the last digit."""
        return value if self.count == 1 else float(self._broadcast(value))

    @contextmanager
    def together(self, where: str) -> Iterator[None]:
        """Say in one line that another process has ended, which an exchange with it shows.

        Raises
        ------
        RunError
            ``where`` stopped for that.
        Interrupted
            What ended it had asked this process to end before.
        """
        with self._told(where):
            yield
        self._leave()

    @contextmanager
    def _told(self, where: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            exchanged = any(word in str(error).lower() for word in ("gloo", "nccl"))
            if self.count == 1 or isinstance(error, MetasynthError) or not exchanged:
                raise
            check()
            raise RunError(
                f"{where} stopped: another of its {self.count} processes has ended; continue with --resume"
            ) from error

    def _leave(self) -> None:
        if self.count > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()

    def _join(self) -> None:
        import torch
        import torch.distributed as dist

        both = torch.cuda.is_available() and dist.is_nccl_available()
        if both:
            torch.cuda.set_device(self.local % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo", timeout=PATIENCE)

    def _broadcast(self, given: Any) -> Any:
        import torch.distributed as dist

        held = [given]
        dist.broadcast_object_list(held, src=0)
        return held[0]


ALONE = Ranks()
_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
_VARIABLES = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
