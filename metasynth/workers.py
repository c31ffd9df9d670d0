"""Processes that work beside this one: each has a pipe of its own to it, and none outlives it.

Nothing is shared between workers, neither a queue nor a lock nor shared memory: one that is killed holds up no other,
and its end is the end of its pipe.
"""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from metasynth.errors import RunError
from metasynth.interrupts import check
from metasynth.worker_process import Fresh, Raised, start

_LOOK_S = 0.2  # between looks at the flag of signals
Method = Literal["fork", "spawn"]


class WorkerEnded(Exception):
    """A worker process ended before it had answered; the message says by what."""


class WorkerFailed(Exception):
    """A worker's function raised; the message is the error's type and text, the cause has its traceback."""


@contextmanager
def as_run_errors(undone: str) -> Iterator[None]:
    """RunError, in one line for a user who chose ``--jobs``, where a worker was killed or its function raised.

    ``undone`` says what could not be done then.
    """
    try:
        yield
    except WorkerEnded as error:
        raise RunError(
            f"a worker process was {error}, perhaps for want of memory: try fewer --jobs; run the same command again "
            "to continue"
        ) from error
    except WorkerFailed as error:
        raise RunError(f"{undone}: {error}") from error


def in_order(
    function: Callable[[Any], Any],
    requests: Iterable[Any],
    *,
    workers: int,
    ahead: int,
    prepare: Callable[[], None],
    method: Method | None = None,
) -> Iterator[Any]:
    """``function`` of every request, in their order, made ahead by worker processes.

    Parameters
    ----------
    function : callable
        Called in the workers.
    requests : iterable of Any
        Small.
    workers : int
        How many, at least 1.
    ahead : int
        Requests of each worker that are done or being done before they are asked for, at least 1.
    prepare : callable
        Called in every worker once.
    method : Method or None
        "fork", or "spawn" for fresh processes, to which ``prepare`` and ``function`` are sent; by default a fork where
        that is this Python's way, else a fresh process.

    Raises
    ------
    WorkerEnded
        A worker was killed.
    WorkerFailed
        The function raised.
    Interrupted
        This process was asked to end, see `metasynth.interrupts`.
    """
    left = iter(requests)
    with _crew(function, workers, prepare, method) as crew:
        waiting: deque[Worker] = deque()
        for request, worker in zip(islice(left, ahead * workers), cycle(crew), strict=False):
            worker.ask(request)
            waiting.append(worker)
        while waiting:
            worker = waiting.popleft()
            answer = worker.answer()
            for request in islice(left, 1):
                worker.ask(request)
                waiting.append(worker)
            yield answer


def as_done(
    function: Callable[[Any], Any],
    requests: Iterable[Any],
    *,
    workers: int,
    prepare: Callable[[], None],
    method: Method | None = None,
) -> Iterator[tuple[Any, Any]]:
    """(request, ``function`` of it), in the order they are done; arguments and errors as of `in_order`."""
    left = iter(requests)
    with _crew(function, workers, prepare, method) as crew:
        busy: dict[Connection, tuple[Worker, Any]] = {}
        for request, worker in zip(islice(left, workers), crew, strict=False):
            worker.ask(request)
            busy[worker.connection] = worker, request
        while busy:
            check()
            for connection in wait(list(busy), _LOOK_S):
                assert isinstance(connection, Connection)
                worker, request = busy.pop(connection)
                answer = worker.answer()
                for new in islice(left, 1):
                    worker.ask(new)
                    busy[connection] = worker, new
                yield request, answer


@contextmanager
def one_worker(function: Callable[[Any], Any]) -> Iterator["Worker"]:
    """A fresh process that is asked now and then, while this one goes on; it ends with the block, whatever it does."""
    with _crew(function, 1, _nothing, "spawn") as crew:
        yield crew[0]


def _nothing() -> None:
    """What a worker that needs no preparation does."""


class Worker:
    """One process and the pipe to it."""

    def __init__(self, process: BaseProcess | Fresh, connection: Connection) -> None:
        self.process, self.connection = process, connection

    def ask(self, request: Any) -> None:
        """Have ``function`` called with the request, after those before it."""
        with suppress(OSError):  # of one that has ended, which its answer will say
            self.connection.send(request)

    def has_answered(self, within: float = 0.0) -> bool:
        """Whether `answer` would not wait, after so many seconds at most; signals are not looked at."""
        return self.connection.poll(within)

    def answer(self) -> Any:
        """The answer to the earliest request that has none.

        Raises
        ------
        WorkerEnded
            The worker was killed.
        WorkerFailed
            The function raised.
        """
        while not self.connection.poll(_LOOK_S):
            check()
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if isinstance(answer, Raised):
            raise WorkerFailed(answer.text) from _Trace(answer.trace)
        return answer

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _ended(self) -> WorkerEnded:
        self.process.join(1.0)
        time.sleep(0.05)  # a signal to the whole group reaches this process, too
        check()
        code = self.process.exitcode
        if code is None or code >= 0:
            return WorkerEnded(f"ended with exit code {code}")
        return WorkerEnded("killed" if code == -signal.SIGKILL else f"ended by {signal.Signals(-code).name}")


class _Trace(Exception):
    """The traceback of a worker, to be shown as the cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@contextmanager
def _crew(
    function: Callable[[Any], Any], count: int, prepare: Callable[[], None], method: Method | None
) -> Iterator[list[Worker]]:
    """Workers, which are killed in the end, whatever they do: they hold nothing that needs an orderly one."""
    forked = (method or multiprocessing.get_start_method()) == "fork"
    crew: list[Worker] = []
    try:
        for _ in range(count):
            mine, its = multiprocessing.Pipe()
            copies = [*(worker.connection for worker in crew), mine]
            crew.append(Worker(start(its, copies, prepare, function, forked=forked), mine))
        yield crew
    finally:
        for worker in crew:
            worker.process.kill()
        for worker in crew:
            worker.end()
