"""What a training leaves to look at: JSON lines, TensorBoard, progress bar, sample strips and early warnings."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from simgan_core.images import to_uint8

METRICS, SAMPLES = "metrics.jsonl", "samples"
"""In a training's folder: a line of metrics every few steps; strips of synthetic and refined images."""
EQUALS_INPUT = 0.01
"""Mean |refined - input| in [-1, 1] units, 1.3 grey levels of 255, below which the refiner does nothing visible."""
COLLAPSED_SPREAD = 0.25
"""Refined images whose spread over a batch is less than this share of the synthetic images' look alike."""
D_CERTAIN = 0.99
"""Patches that D tells apart, of either class, above which R learns little from it."""


def warning_signs(record: Mapping[str, Any]) -> list[str]:
    """What users of SimGAN meet first, recognised in one line of metrics of the adversarial phase.

    Reads `refined_minus_input`, `refined_spread`, `accuracy_real` and `accuracy_fresh`; absent values give no warning.
    """
    signs = []
    if record.get("refined_minus_input", 1.0) < EQUALS_INPUT:
        signs.append("refined equals input: the refiner changes less than 1.3 grey levels; lower loss.lambda_sum")
    if record.get("refined_spread", 1.0) < COLLAPSED_SPREAD:
        signs.append("collapse: refined images look alike; raise loss.lambda_sum or lower training.k_g")
    if min(record.get("accuracy_real", 0.0), record.get("accuracy_fresh", 0.0)) > D_CERTAIN:
        signs.append("the discriminator is certain: check that both sets agree in size, crop and equalisation")
    return signs


class TrainingLog:
    """Writes `metrics.jsonl`, `tensorboard/` and `samples/` of a run folder; on ranks above 0 it writes nothing.

    Args:
        out: the run folder.
        total: iterations of all phases, for the progress bar.
        done: iterations already made by the run that is resumed; later lines of its log are dropped.

    """

    def __init__(self, out: Path, *, total: int, done: int, progress: bool, writes: bool) -> None:
        self.out = out
        self.writes = writes
        self._since = time.perf_counter()
        self._images = 0
        self._warned: set[str] = set()
        self._bar = tqdm(total=total, initial=done, desc="train", unit="step", disable=not (progress and writes))
        if writes:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            drop_after(out / METRICS, done)
            self._file = (out / METRICS).open("a")
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1)

    def __enter__(self) -> Self:
        """The log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush and close everything."""
        self._bar.close()
        if self.writes:
            self._file.close()
            self._board.close()

    def advance(self, images: int) -> None:
        """Count one iteration that sent `images` synthetic images through R and back."""
        self._images += images
        self._bar.update()

    def record(self, iteration: int, phase: str, values: Mapping[str, float]) -> None:
        """Write one line: where the run is, its numbers, images/s since the last line, warning signs."""
        now = time.perf_counter()
        rate = self._images / max(now - self._since, 1e-9)
        self._since, self._images = now, 0
        if not self.writes:
            return
        line: dict[str, Any] = {"iteration": iteration, "phase": phase, **values, "images_per_second": round(rate, 1)}
        line["warnings"] = warning_signs(line) if phase == "adversarial" else []
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{phase}/{name}", value, iteration)
        self._bar.set_postfix_str(f"{phase}, {rate:.0f} images/s")
        for sign in line["warnings"]:
            if sign not in self._warned:
                self._warned.add(sign)
                self._bar.write(f"iteration {iteration}: {sign}", file=sys.stderr)

    def samples(self, iteration: int, synthetic: Tensor, refined: Tensor) -> None:
        """Write a strip PNG: synthetic above refined above their difference (grey = none). Images [n, C, H, W]."""
        if self.writes:
            strip = sample_strip(synthetic, refined)
            (self.out / SAMPLES).mkdir(exist_ok=True)
            path = self.out / SAMPLES / f"{iteration:06d}.png"
            temporary = path.with_suffix(".partial")
            Image.fromarray(strip).save(temporary, format="png")
            temporary.replace(path)


def sample_strip(synthetic: Tensor, refined: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Rows synthetic, refined, difference of n images [n, C, H, W] -> uint8 [3H, nW] or [3H, nW, 3]."""
    rows = [synthetic.float(), refined.float(), (refined - synthetic).float()]
    strip = torch.cat([torch.cat(list(to_uint8(row).cpu()), dim=-1) for row in rows], dim=-2).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(strip.squeeze(-1) if strip.shape[-1] == 1 else strip)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, oldest first; an unfinished last line is left out."""
    lines = (run / METRICS).read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def drop_after(path: Path, iteration: int) -> None:
    """Keep the lines up to `iteration`, e.g. of a killed run, which has logged more than its checkpoint holds."""
    if path.is_file():
        kept = [line for line in read_metrics(path.parent) if line["iteration"] <= iteration]
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(path)
