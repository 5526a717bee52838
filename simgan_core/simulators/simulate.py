"""Simulated eyes into a store: assets, one loop over batches, labels scaled to the final size.

Images are rendered at MPIIGaze's frame (36x60 by default), pass the sensor if there is one, become uint8, are
equalised at that size and then resized, so that simulated and real images go through the same steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.images import equalise as equalise_images
from simgan_core.images import resize
from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.eye import EyeBatch, EyeSimulator
from simgan_core.simulators.ranges import EyeRanges
from simgan_core.simulators.unityeyes_assets import load_unityeyes_assets
from simgan_core.workers import cpu_workers

# takes images [B, C, H, W] in [0, 1], the run's seed and the images' numbers; returns images of the same shape
Sensor = Callable[[Tensor, int, list[int]], Tensor]

Job = TypeVar("Job")
Done = TypeVar("Done")

RENDER_BATCH = 32  # rendered at once: larger batches leave the processor's cache and are slower


def load_assets(folder: Path | None = None) -> EyeAssets:
    """UnityEyes' assets from `folder` (the repository's root or its Assets/), or procedural ones for None."""
    if folder is not None:
        return load_unityeyes_assets(Path(folder))
    from simgan_core.simulators.procedural_assets import procedural_assets  # slow to import, seldom both needed

    return procedural_assets(seed=0)


def simulate_eyes(
    count: int,
    out: Path,
    *,
    assets: EyeAssets,
    ranges: EyeRanges | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    size: tuple[int, int] = (35, 55),
    colour: bool = False,
    sensor: Sensor | None = None,
    equalise: bool = True,
    batch: int = 256,
    progress: bool = True,
    frame: tuple[int, int] = (36, 60),
    supersample: int = 2,
    overwrite: bool = False,
) -> Store:
    """Render images 0 to `count` - 1 of stream `seed` into the store `out`; memory stays flat.

    Image i depends on the seed and i alone: a longer run starts with the same images. Positions in the annotations are
    pixels of `size`, angles radians. Raises ValueError before any work for a count below 1.
    """
    if count < 1 or batch < 1:
        raise ValueError(f"count {count}, batch {batch}: expected at least 1 of each")
    ranges = EyeRanges() if ranges is None else ranges
    workers = cpu_workers() if torch.device(device).type == "cpu" else 1
    with one_thread():
        simulator = EyeSimulator(assets, ranges, frame=frame, supersample=supersample, colour=colour, device=device)
    provenance = {
        "made_by": "simgan_core.simulators.simulate_eyes",
        "assets": assets.name,
        "ranges": describe_ranges(ranges),
        "seed": seed,
        "count": count,
        "frame": list(frame),
        "supersample": supersample,
        "equalised": equalise,
        "sensor": None if sensor is None else repr(sensor),
    }
    step = RENDER_BATCH if torch.device(device).type == "cpu" else batch
    batches = [range(start, min(start + step, count)) for start in range(0, count, step)]

    def render(indices: range) -> tuple[Tensor, dict[str, NDArray[np.generic]]]:
        eyes = simulator.render(simulator.sample(seed, indices))
        image = eyes.image if sensor is None else sensor(eyes.image, seed, list(indices))
        return finish(image, size, equalise), label_columns(eyes, frame, size)

    with (
        StoreWriter(out, size=size, channels=3 if colour else 1, provenance=provenance, overwrite=overwrite) as writer,
        tqdm(total=count, desc="rendering eyes", unit="image", disable=not progress) as bar,
    ):
        for image, columns in in_order(render, batches, workers):
            writer.append(image, columns)
            bar.update(len(image))
    return Store.open(out)


def in_order(work: Callable[[Job], Done], jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """Do jobs on threads that each use one core of torch, and yield results in the jobs' order.

    Small kernels gain nothing from two cores each; two batches side by side gain nearly twice. At most two jobs per
    worker are under way, so memory stays flat however many there are.
    """
    if workers < 2 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Done]] = deque()
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: beside any other busy process, small kernels on several spend their time waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def finish(image: Tensor, size: tuple[int, int], equalise: bool) -> Tensor:
    """Images [B, C, H, W] in [0, 1] as uint8 of the final size, histogram-equalised before the resampling."""
    levels = (image * 255).round().clamp(0, 255).to(torch.uint8)
    return resize(equalise_images(levels) if equalise else levels, size)


def label_columns(eyes: EyeBatch, frame: tuple[int, int], size: tuple[int, int]) -> dict[str, NDArray[np.generic]]:
    """The columns of a store: one row per image, positions in pixels of `size`."""
    scale = torch.tensor([size[1] / frame[1], size[0] / frame[0]], device=eyes.image.device)
    labels, parameters = eyes.labels, eyes.parameters
    count = len(parameters)
    columns = {
        "pitch": labels.gaze[:, 0],
        "yaw": labels.gaze[:, 1],
        "head_pitch": labels.head[:, 0],
        "head_yaw": labels.head[:, 1],
        "head_roll": labels.head[:, 2],
        "gaze_x": labels.gaze_vector[:, 0],
        "gaze_y": labels.gaze_vector[:, 1],
        "gaze_z": labels.gaze_vector[:, 2],
        "pupil_u": labels.pupil[:, 0] * scale[0],
        "pupil_v": labels.pupil[:, 1] * scale[1],
        "iris_landmarks": (labels.iris_landmarks * scale).flatten(1),
        "lid_landmarks": (labels.lid_landmarks * scale).flatten(1),
        "identity": parameters.skin,
        "iris": parameters.iris,
        "index": parameters.index,
    }
    arrays = {name: column.cpu().numpy() for name, column in columns.items()}
    return arrays | {"seed": np.full(count, parameters.seed, dtype=np.int64)}


def describe_ranges(ranges: EyeRanges) -> dict[str, object]:
    """Ranges as plain JSON; a gaze prior is described by its size, mean and spread."""
    plain = asdict(ranges)
    prior = plain.pop("gaze_prior")
    if prior is not None:
        degrees = np.rad2deg(prior.astype(np.float64))
        plain["gaze_prior"] = {
            "labels": len(prior),
            "mean_deg": [math.floor(x * 1e4 + 0.5) / 1e4 for x in degrees.mean(0).tolist()],
            "sd_deg": [math.floor(x * 1e4 + 0.5) / 1e4 for x in degrees.std(0).tolist()],
        }
    return plain
