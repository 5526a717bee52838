"""Tasks side by side: one thread each uses cores better than many threads on one small network."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_workers() -> int:
    """As many as the threads that torch may use; one where there is a GPU, which a single training fills."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def side_by_side(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """`function` of every task, in order; in this process for one worker, else in processes of one thread each."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    # Spawned, as forking a process whose torch has run threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        yield from executor.map(function, tasks)
