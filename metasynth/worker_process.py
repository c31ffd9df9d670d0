"""A worker process: how it is started, and what it does until it is killed."""

import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from metasynth.children import end_with, safe_path
from metasynth.interrupts import held, leave_to_parent

Prepare = Callable[[], None]
Function = Callable[[Any], Any]
Parent = tuple[int, bool]  # its number, and whether its main thread starts the worker, see `end_with`


@dataclass(frozen=True)
class Raised:
    """An error in a worker, on its way."""

    text: str
    trace: str


def start(
    its: Connection, copies: list[Connection], prepare: Prepare, function: Function, *, forked: bool
) -> "BaseProcess | Fresh":
    """A process that calls ``prepare`` once and then answers the requests that come through ``its`` pipe.

    Parameters
    ----------
    its : Connection
        The worker's side of the pipe; closed here.
    copies : list of Connection
        The other sides of all pipes there are, which a fork copies and closes: they would else stay open when this
        process ends.
    prepare : Prepare
        Called once.
    function : Function
        Makes an answer of a request.
    forked : bool
        Whether it is a fork of this process or a fresh one.
    """
    parent = os.getpid(), threading.current_thread() is threading.main_thread()
    with its, held(), safe_path():
        if not forked:
            return Fresh(its, copies[-1], (parent, prepare, function))
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_forked, args=(its, copies, parent, prepare, function), daemon=True)
        process.start()
        return process


def _forked(
    connection: Connection, copies: list[Connection], parent: Parent, prepare: Prepare, function: Function
) -> None:
    leave_to_parent()
    end_with(*parent)
    for copy in copies:
        copy.close()
    _serve(connection, prepare, function)


class Fresh:
    """A new Python process, with what is used of those of `multiprocessing`.

    The system's module would start one that prints a traceback when its parent is killed before it has sent the work,
    and a second process beside it.
    """

    def __init__(self, its: Connection, mine: Connection, work: tuple[Parent, Prepare, Function]) -> None:
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({its.fileno()})"
        command = [sys.executable, *flags, "-P", "-c", code]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()])
        with suppress(OSError):  # it has ended, which its answer will say
            mine.send(work)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def exitcode(self) -> int | None:
        """None while it runs, minus the number of the signal that ended it."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, for ``timeout`` seconds at most."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)


def serve(descriptor: int) -> None:
    """What a fresh process does, which is sent its work; its parent may end before that."""
    leave_to_parent()
    with Connection(descriptor) as connection:
        try:
            parent, prepare, function = connection.recv()
        except (EOFError, OSError):
            return
        end_with(*parent)
        _serve(connection, prepare, function)


def _serve(connection: Connection, prepare: Prepare, function: Function) -> None:
    """What a worker does until it is killed: answers go by a thread, so that the next is made meanwhile."""
    prepare()
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_send, args=(connection, answers), daemon=True).start()
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        answers.put(_attempt(function, request))


def _attempt(function: Callable[[Any], Any], request: Any) -> Any:
    try:
        return function(request)
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> Raised:
    text = " ".join(str(error).split())
    return Raised(f"{type(error).__name__}: {text}" if text else type(error).__name__, traceback.format_exc())


def _send(connection: Connection, answers: "queue.SimpleQueue[Any]") -> None:
    while True:
        answer = answers.get()
        try:
            connection.send(answer)
        except OSError:  # nobody waits for it any more
            os._exit(1)
        except Exception as error:  # an answer that cannot be pickled
            connection.send(_raised(error))
