"""What a job of a launcher does: start its run's command, and pass on to it that it is to end."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from metasynth.children import end_with, safe_environment
from metasynth.errors import RunError
from metasynth.interrupts import SIGNALS, held
from metasynth.running.grid_command import last_error

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

SECONDS_BETWEEN_LOOKS = 0.1
PATIENCE_S = 20.0  # of a run that was asked to end: a step, and its data makers
ASKED_TO_END = {128 + number for number in SIGNALS}  # the status of a run that was interrupted


@final
@dataclass
class RunJob:
    """A run as `submitit` carries it out: called in the job, and asked for a `checkpoint` before it is requeued.

    The run goes on from the last checkpoint that it wrote, whoever starts its command, so nothing of it is kept here.

    Attributes
    ----------
    name : str
        Of the run.
    words : tuple of str
        What follows ``python -m``; the same words begin the run and go on with it.
    log : Path
        Where the run's output goes, after that of earlier sessions.
    environment : mapping of str to (str or None)
        Variables the run has that its job has not, or has otherwise; None: it has it not.
    own_session : bool
        The job was started by a process of this machine: it is to leave that one's terminal, and to end with its own
        parent, which stands for it.
    """

    name: str
    words: tuple[str, ...]
    log: Path
    environment: Mapping[str, str | None]
    own_session: bool = False
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False, repr=False, compare=False)

    def __call__(self) -> None:
        """Carry the run out.

        Raises
        ------
        RunError
            The run has failed; the line is what it told.
        SystemExit
            The run was ended by a signal: no failure of its own, and so no result of the job.
        """
        if self.own_session:
            _leave_the_terminal()
        signal.signal(signal.SIGTERM, self._pass_on)
        with self.log.open("ab") as output:
            output.write(f"$ {shlex.join(self.words)}\n".encode())
            output.flush()
            offset = output.tell()
            with held([_requeue_signal()]):  # clusters send it to every process of the job
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *self.words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._variables(),
                    process_group=0,
                )
        while (code := self._process.poll()) is None:  # no `wait`: it holds a lock that signal handlers need
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if code < 0 or code in ASKED_TO_END:
            sys.exit(128 - code if code < 0 else code)
        if code:
            raise RunError(last_error(self.log, offset, code))

    def checkpoint(self) -> "DelayedSubmission":
        """End the run's process, and give what is to be done when the job runs again: the same."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            _end(self._process)
        return DelayedSubmission(replace(self))

    def _variables(self) -> dict[str, str]:
        changed = {**os.environ, **self.environment, **safe_environment()}
        return {name: value for name, value in changed.items() if value is not None}

    def _pass_on(self, number: int, frame: object) -> None:
        if self._process is None:
            sys.exit(128 + number)
        self._process.send_signal(number)


def _requeue_signal() -> signal.Signals:
    """What `submitit` takes for the word that the job's time is up, or that another one needs its place."""
    from submitit import JobEnvironment

    return signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]


def _leave_the_terminal() -> None:
    """Interrupts from the keyboard, which have been held back so far, come from now on from this job alone."""
    end_with(os.getppid(), from_main_thread=True)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # forgets one that waits
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that this one may be waiting for further up, of which it therefore learns here without reaping."""
    for number in (signal.SIGINT, signal.SIGKILL):
        process.send_signal(number)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with suppress(ChildProcessError):  # it was reaped just before
                if not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    continue
            return
