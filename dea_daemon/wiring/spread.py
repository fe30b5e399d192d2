"""The same work in this process, in several, or on a Ray cluster: answers in the order of the tasks."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import TypeVar

from dea_daemon.domain.errors import ConfigError

_Task = TypeVar("_Task")
_Made = TypeVar("_Made")
AHEAD = 2  # tasks a worker has before it


@contextmanager
def spread(
    work: Callable[[_Task], _Made],
    tasks: Sequence[_Task],
    *,
    workers: int = 1,
    ray: bool = False,
    finish: bool = False,
) -> Iterator[Iterator[_Made]]:
    """`work` must be a module's function, tasks and answers picklable. Left early, what is not done is dropped; what
    was begun, too, unless it is to `finish`.

    With `ray` the cluster of $RAY_ADDRESS, which has the same dea-daemon installed; else one of `workers` processes on
    this machine. ConfigError where Ray is not installed.
    """
    if ray:
        with _on_ray(work, tasks, workers) as made:
            yield made
    elif workers <= 1 or len(tasks) <= 1:
        yield map(work, tasks)
    else:
        with _in_processes(work, tasks, workers, finish) as made:
            yield made


@contextmanager
def _in_processes(
    work: Callable[[_Task], _Made], tasks: Sequence[_Task], workers: int, finish: bool
) -> Iterator[Iterator[_Made]]:
    others = set(active_children())
    pool = ProcessPoolExecutor(min(workers, len(tasks)), get_context("spawn"), _quiet)
    whole = False
    try:
        yield _in_order(pool, work, tasks, AHEAD * workers)
        whole = True
    finally:
        if not whole and not finish:  # a backtest under way would hold up Ctrl-C for minutes
            for process in set(active_children()) - others:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[_Task], _Made], tasks: Sequence[_Task], ahead: int
) -> Iterator[_Made]:
    """Only so many are asked for at a time: what is left early has little to finish."""
    waiting = deque(pool.submit(work, task) for task in tasks[:ahead])
    for n in range(len(tasks)):
        yield waiting.popleft().result()
        if n + ahead < len(tasks):
            waiting.append(pool.submit(work, tasks[n + ahead]))


@contextmanager
def _on_ray(work: Callable[[_Task], _Made], tasks: Sequence[_Task], workers: int) -> Iterator[Iterator[_Made]]:
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs Ray: pip install 'dea-daemon[scale]'") from None
    ray.init(log_to_driver=False, **({} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}))
    try:
        remote = ray.remote(work)
        asked = [remote.remote(task) for task in tasks]
        yield (ray.get(each) for each in asked)
    finally:
        ray.shutdown()


def _quiet() -> None:
    """Ctrl-C reaches every process of a terminal: the parent alone answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
