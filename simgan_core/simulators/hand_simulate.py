"""Simulated hands into a store: assets, one loop over batches, joints in pixels and mm beside the images.

A store may show several hands: they take turns in blocks of `BLOCK` poses, so that what an image shows depends on its
number alone. With a sensor, hands are rendered at the camera's own pixels in front of a far wall, recorded, and only
then cropped and resampled, as recorded frames are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.hand_crop import crop_uvd
from simgan_core.simulators.hand import HandBatch, HandSimulator
from simgan_core.simulators.hand_assets import HandAssets
from simgan_core.simulators.hand_ranges import HandRanges
from simgan_core.simulators.kinect import KinectCamera, record
from simgan_core.simulators.simulate import in_order, one_thread
from simgan_core.workers import cpu_workers

RENDER_BATCH = 8  # rendered at once on a CPU: larger batches leave the processor's cache and are slower
BLOCK = 64  # poses that one hand shows before the next one's turn
MESH_FILE = "spherehand_right.npz"
GLTF_FILE = "webxr_generic_right.glb"
PROCEDURAL = Path("procedural")
"""Name of the hand that needs no file, in a list of files and folders."""


def load_hands(folder: Path | None = None) -> tuple[HandAssets, ...]:
    """Different hands for one simulator: all meshes of `folder`, and the procedural hand, which needs none."""
    return named_hands([*([] if folder is None else [Path(folder)]), PROCEDURAL])


def named_hands(names: Sequence[Path]) -> tuple[HandAssets, ...]:
    """The hands of a list, in its order: mesh files, folders (all their meshes), and 'procedural'.

    Raises `DataError` where a file or folder is absent or holds no mesh.
    """
    from simgan_core.simulators.hand_mesh_files import hand_meshes

    hands: list[HandAssets] = []
    for name in names:
        if name == PROCEDURAL:
            hands.append(load_hand_assets())
        else:
            hands += [load_hand_assets(path) for path in (hand_meshes(name) if name.is_dir() else [name])]
    return tuple(hands)


def load_hand_assets(folder: Path | None = None) -> HandAssets:
    """A hand's mesh: procedural for None; a file (.npz of sphereHand, .glb of WebXR), or a folder that holds one."""
    if folder is None:
        from simgan_core.simulators.procedural_hand import procedural_hand

        return procedural_hand()
    from simgan_core.simulators.hand_mesh_files import load_hand_mesh

    return load_hand_mesh(Path(folder))


def stand_in_assets() -> HandAssets:
    """The hand of the stand-in target: procedural, of other proportions than the simulator's."""
    from simgan_core.simulators.procedural_hand import STAND_IN_BUILD, procedural_hand

    return procedural_hand(STAND_IN_BUILD)


def simulate_hands(
    count: int,
    out: Path,
    *,
    assets: HandAssets | Sequence[HandAssets],
    ranges: HandRanges | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    size: tuple[int, int] = (224, 224),
    views: int = 3,
    sensor: KinectCamera | None = None,
    batch: int = 256,
    progress: bool = True,
    overwrite: bool = False,
) -> Store:
    """Render images 0 to `count` - 1 of stream `seed` into the store `out`; memory stays flat.

    Image i is view i % views of pose i // views and depends on the seed, i and the hands alone: a longer run starts
    with the same images, and image k with one view is image k * views with several. Of several `assets`, each shows a
    block of poses in turn. Raises ValueError before any work for a count below 1 or no hand.
    """
    hands = (assets,) if isinstance(assets, HandAssets) else tuple(assets)
    if count < 1 or batch < 1 or not hands:
        raise ValueError(f"count {count}, batch {batch}, {len(hands)} hands: expected at least 1 of each")
    ranges = HandRanges() if ranges is None else ranges
    on_cpu = torch.device(device).type == "cpu"
    workers = cpu_workers() if on_cpu else 1
    with one_thread():
        simulators = [HandSimulator(hand, ranges, size=size, views=views, device=device) for hand in hands]
    provenance = {
        "made_by": "simgan_core.simulators.simulate_hands",
        "assets": ", ".join(hand.name for hand in hands),
        "ranges": ranges.describe(),
        "seed": seed,
        "count": count,
        "views": views,
        "levels": "0 background, 255 near to 1 far face of the cube: simgan_core.hand_crop.decode_depth",
        "sensor": None if sensor is None else repr(sensor),
    }
    step = RENDER_BATCH if on_cpu else batch
    block = count if len(hands) == 1 else BLOCK * views
    batches = [
        range(start, min(start + step, first + block, count))
        for first in range(0, count, block)
        for start in range(first, min(first + block, count), step)
    ]

    def render(indices: range) -> HandBatch:
        simulator = simulators[indices[0] // block % len(simulators)]
        if sensor is None:
            return simulator.batch(seed, indices)
        return record(simulator, sensor, seed, indices)

    with (
        StoreWriter(out, size=size, provenance=provenance, shard_rows=8192, overwrite=overwrite) as writer,
        tqdm(total=count, desc="rendering hands", unit="image", disable=not progress) as bar,
    ):
        for shown in in_order(render, batches, workers):
            writer.append(shown.crop, label_columns(shown))
            bar.update(len(shown.depth))
    return Store.open(out)


def label_columns(hands: HandBatch) -> dict[str, NDArray[np.generic]]:
    """The columns of a store: one row per image; joints are flattened, see `hand_labels`.

    Every joint set is there in mm and as `uvd`, `uvd_21` and `uvd_36` in pixels of the crop and mm.
    """
    labels, parameters = hands.labels, hands.parameters
    size = (hands.depth.shape[-2], hands.depth.shape[-1])
    columns = {
        "uvd": labels.uvd.flatten(1),
        "frame_uvd": labels.frame_uvd.flatten(1),
        "xyz": labels.xyz.flatten(1),
        "joints_21": labels.joints_21.flatten(1),
        "joints_36": labels.joints_36.flatten(1),
        "uvd_21": crop_uvd(labels.joints_21, labels.cube, size).flatten(1),
        "uvd_36": crop_uvd(labels.joints_36, labels.cube, size).flatten(1),
        "cube": labels.cube,
        "view": labels.view,
        "pose": labels.pose,
        "left": parameters.left,
        "index": parameters.index,
    }
    arrays = {name: column.cpu().numpy() for name, column in columns.items()}
    return arrays | {"seed": np.full(len(parameters), parameters.seed, dtype=np.int64)}


def hand_labels(store: Store) -> dict[str, NDArray[np.generic]]:
    """The labels of a store of hands as arrays: joints [N, J, 3], `cube` [N, 4], `view`, `pose`, `left`, ... [N].

    Raises DataError where the store has no hand labels.
    """
    frame = store.annotations(["uvd", "cube", *(name for name in store.columns if name not in ("uvd", "cube"))])
    return {name: _column(name, frame[name].to_numpy()) for name in frame.columns}


def _column(name: str, values: NDArray[Any]) -> NDArray[np.generic]:
    if values.dtype != object:
        return values
    stacked = np.stack(values.tolist())
    return stacked if name == "cube" else stacked.reshape(len(stacked), -1, 3)
