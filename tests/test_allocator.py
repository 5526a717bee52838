"""Freed memory is used again: a training's second step takes no fresh pages from the system."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    from simgan_core.allocator import keep_freed_memory
    assert keep_freed_memory()

def step():
    kept = [torch.ones(2**20) for _ in range(12)]  # 48 MB of activations, freed on return

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step(), step()
before = pages()
for _ in range(5):
    step()
print(pages() - before)
"""


def fresh_pages(what: str) -> int:
    # glibc adapts its threshold to blocks freed before, and what then happens depends on what lies above them on the
    # heap: with the threshold named, every freed block goes back unless the program sets another one.
    fixed = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    command = [sys.executable, "-c", PROGRAM, what]
    return int(subprocess.run(command, check=True, capture_output=True, env=fixed).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_steps_use_the_memory_of_the_step_before() -> None:
    assert fresh_pages("keep") < 0.3 * fresh_pages("default")
