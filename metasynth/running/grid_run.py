"""The runs of a grid, each in a process of its own."""

import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from metasynth.children import safe_environment
from metasynth.errors import RunError
from metasynth.interrupts import Interrupted, watched
from metasynth.lines import logger
from metasynth.running.device import VISIBLE_GPUS
from metasynth.running.grid import GridRun
from metasynth.running.grid_command import last_error, words_of
from metasynth.running.grid_folder import GridFolder
from metasynth.running.progress import Progress

_LOG = logger(__name__)

SECONDS_BETWEEN_LOOKS = 0.05
PATIENCE_S = 20.0  # of a run that was asked to end: a step, and its data makers


def carry_out(folder: GridFolder, jobs: int, progress: Progress, gpus: Sequence[str] = ()) -> dict[str, str]:
    """Start, or go on with, every run that is not done, at most ``jobs`` at a time.

    A run has one of ``jobs`` places, the first that is free, and place k has GPU k mod their number: so runs share one
    only where there are more places than GPUs, however long each run takes.

    Parameters
    ----------
    folder : GridFolder
        Open for writing.
    jobs : int
        Processes side by side, at least 1.
    progress : Progress
        Where to say how far the grid is.
    gpus : sequence of str
        As `metasynth.running.device.visible_gpus` gives them; none: the runs see what this process sees.

    Returns
    -------
    dict
        The names of the runs that failed, with what went wrong; one that fails does not stop the others.

    Raises
    ------
    Interrupted
        The process was asked to end; the runs have been interrupted and have ended.
    RunError
        A process could not be started.
    """
    waiting = [run for run in folder.grid.runs if not folder.done(run)]
    total = len(folder.grid.runs)
    done = total - len(waiting)
    running: list[_Process] = []
    failed: dict[str, str] = {}
    name = f"grid of {folder.grid.experiment}"
    with watched(forceful=False) as received, _not_inherited(), progress.task(name, total, done) as task:
        try:
            while (waiting or running) and not received:
                while waiting and len(running) < jobs:
                    place = min(set(range(jobs)) - {process.place for process in running})
                    running.append(_Process.start(folder, waiting.pop(0), place, gpus))
                    task.advance(0, _names(running))
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for process in [process for process in running if process.has_ended()]:
                    running.remove(process)
                    failure = process.failure()
                    if failure:
                        failed[process.name] = failure
                    level = logging.WARNING if failure else logging.INFO
                    progress.say(f"{process.name}: {failure or f'finished in {process.seconds():.0f} s'}", level)
                    task.advance(1, _names(running))
            if received:
                raise Interrupted(received[0])
        finally:
            if running:
                progress.say(f"Interrupting {_names(running)}")
                _stop(running, received)
    return failed


@dataclass
class _Process:
    """A run's process, with its output at the end of a log that may hold earlier sessions."""

    name: str
    place: int
    log: Path
    offset: int
    process: "subprocess.Popen[bytes]"
    begun: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, folder: GridFolder, run: GridRun, place: int, gpus: Sequence[str]) -> "_Process":
        log = folder.log(run)
        command = _command(folder, run)
        gpu = {VISIBLE_GPUS: gpus[place % len(gpus)]} if gpus else {}
        told = " ".join([*(f"{name}={value}" for name, value in gpu.items()), shlex.join(command[1:])])
        _LOG.debug("%s: started: %s", run.name, told)
        # A thread pool for each of many processes would be more threads than cores.
        environment = {"OMP_NUM_THREADS": str(folder.grid.threads), **os.environ, **gpu, **safe_environment()}
        try:
            with log.open("ab") as output:
                output.write(f"$ {told}\n".encode())
                output.flush()
                offset = output.tell()
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    process_group=0,  # a terminal's Ctrl-C reaches the grid alone, which interrupts its runs once
                )
                return cls(run.name, place, log, offset, process)
        except OSError as error:
            raise RunError(f"{error.filename or log}: cannot be started: {error.strerror or error}") from error

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def failure(self) -> str | None:
        """What went wrong, in one line; None if nothing did."""
        code = self.process.returncode
        if code == 0:
            return None
        if code < 0:
            return f"failed: ended by {signal.Signals(-code).name} (see {self.log})"
        return f"failed: {last_error(self.log, self.offset, code)}"


def _command(folder: GridFolder, run: GridRun) -> list[str]:
    return [sys.executable, "-m", *words_of(folder, run, resume=folder.begun(run))]


def _names(running: Sequence[_Process]) -> str:
    """The first two that run, and how many more."""
    names = [process.name for process in running]
    more = [f"{len(names) - 2} more"] if len(names) > 2 else []
    return " and ".join(names[:2] + more)


@contextmanager
def _not_inherited() -> Iterator[None]:
    """Signals that this process ignores stay so by a handler instead of by their disposition.

    The runs would inherit that, and could not be interrupted. A hangup that is ignored (nohup) they are to ignore too.
    """
    ours = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    ignored = [number for number in ours if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _stop(running: Sequence[_Process], received: Sequence[int]) -> None:
    """End the processes: by an interrupt, and where that takes too long or is asked for again, by force."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        asked, until = len(received), time.monotonic() + PATIENCE_S
        for process in running:
            process.process.send_signal(number)  # nothing happens to one that has ended
        while not all(process.has_ended() for process in running):
            if len(received) > asked or time.monotonic() > until:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
