"""Freed memory is used again: a training's second step takes no fresh pages from the system."""

from __future__ import annotations

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
    return int(subprocess.run([sys.executable, "-c", PROGRAM, what], check=True, capture_output=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_steps_use_the_memory_of_the_step_before() -> None:
    assert fresh_pages("keep") < 0.3 * fresh_pages("default")
