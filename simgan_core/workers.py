"""Work side by side in processes of one thread each: small networks use cores better so than with many threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch
from tqdm.auto import tqdm

from simgan_core.processor import WORKERS

Task = TypeVar("Task")
Done = TypeVar("Done")


def default_workers() -> int:
    """`SIMGAN_WORKERS`, or the threads that torch may use; 1 where there is a GPU, as one training fills it."""
    return 1 if torch.cuda.is_available() else cpu_workers()


def cpu_workers() -> int:
    """The same for work that stays on the CPU."""
    return int(os.environ.get(WORKERS) or torch.get_num_threads())


def side_by_side(
    function: Callable[[Task], Done],
    tasks: Sequence[Task],
    *,
    title: str,
    workers: int | None = None,
    progress: bool = True,
) -> list[Done]:
    """`function` of every task, in the tasks' order; it and the tasks must be picklable unless `workers` is 1."""
    count = min(default_workers() if workers is None else workers, len(tasks))
    done: list[Done] = []
    with tqdm(total=len(tasks), desc=title, unit="job", disable=not progress) as bar:
        if count <= 1:
            for task in tasks:
                done.append(function(task))
                bar.update()
            return done
        # Spawned, as forking a process whose torch has run threads can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for result in pool.map(function, tasks):
                done.append(result)
                bar.update()
    return done
