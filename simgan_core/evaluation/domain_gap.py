"""Do the simulator's framing, pose and light fit the real images? Measured without a label of a real image.

A refiner changes how skin and iris look; it cannot move an eye in its frame, turn a head or light a face from the other
side. Such differences must be mended in the simulator, and are easily overlooked: ours drew eyes a tenth too large.

`compare_domains` trains a small network on renders to find what the simulator knows (corners, lids, pupil, head pose),
blind to photometry by strong augmentation, and asks it about held-out renders and about real images alike. Its errors
are much the same on both, so a difference of *means* or *spreads* is one of the images (indirect inference: Gourieroux,
Monfort and Renault 1993). Beside it stands a distance between the images themselves at low resolution, where light and
framing show and texture does not. The ranges in `simulators.ranges` were fitted by hand until both were small.

N images, T targets; positions in pixels of the image, angles in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from simgan_core.augmentation import augment
from simgan_core.config import GazeConfig
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.store import Store
from simgan_core.images import tensor_of, to_float
from simgan_core.models import to_channels_last

Floats = NDArray[np.float64]

HELD_OUT = 0.15
"""Share of the renders that the network does not train on."""
LEAST_HELD_OUT = 8
MIN_RENDERS, MIN_REAL = 32, 8
"""Fewer renders leave hardly any to learn from, fewer real images no two halves with a spread of their own."""
BATCH = 64
ANGLES = ("pitch", "yaw", "head_pitch", "head_yaw", "head_roll")
LIDS = {
    20: {"inner_corner": 0, "outer_corner": 10, "upper_lid": 5, "lower_lid": 15},
    16: {"inner_corner": 0, "outer_corner": 8, "upper_lid": 4, "lower_lid": 12},
}
"""Which of so many points along the lids' margins are meant: our simulator has 20, UnityEyes' own files 16."""
_CELL = 4  # pixels of a cell at low resolution
_PARTS = 24  # principal parts of the low-resolution images


@dataclass(frozen=True)
class DomainGap:
    """What the network sees in either domain, and how far apart the low-resolution images are.

    `table` has one row per target: unit, the network's rmse on held-out renders, mean and standard deviation of its
    answers on renders and on real images, and the shift (real mean - synthetic mean) in standard deviations of the
    renders. `pixel_distance` is the 2-Wasserstein distance (grey levels) of Gaussians fitted to images in cells of
    4 x 4 pixels; `pixel_floor` is that between two random halves of the real images, which no simulator can beat.
    """

    table: pd.DataFrame
    pixel_distance: float
    pixel_floor: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "targets": self.table.to_dict(orient="index"),
            "pixel_distance": self.pixel_distance,
            "pixel_floor": self.pixel_floor,
        }


@dataclass(frozen=True)
class Answers:
    """What the network sees in either domain: `names` [T], and per image the targets in their units."""

    names: tuple[str, ...]
    truth: Floats  # [N,T] of held-out renders
    synthetic: Floats  # [N,T] its answers about them
    real: Floats  # [M,T] its answers about real images


def compare_domains(
    synthetic: Store, real: Store, *, seed: int = 0, steps: int = 1500, limit: int = 6000, progress: bool = True
) -> DomainGap:
    """Compare labelled renders with unlabelled real images; labels of `real`, if it has any, are not read.

    Args:
        synthetic: renders with angles and landmarks in their annotations (whatever of them is there).
        real: real images of the same size and number of channels.
        seed: of the network, its batches and the split of the renders.
        steps: updates of the network, 64 images each; on one core 1,500 take about two minutes.
        limit: use at most so many images of either.
        progress: show a bar.

    Raises:
        DataError: the stores' images differ in form, or the renders have none of the annotations.

    """
    answers = ask(synthetic, real, seed=seed, steps=steps, limit=limit, progress=progress)
    table = pd.DataFrame(
        {
            "unit": ["°" if name in ANGLES else "px" for name in answers.names],
            "rmse": np.sqrt(((answers.synthetic - answers.truth) ** 2).mean(axis=0)),
            "synthetic_mean": answers.synthetic.mean(axis=0),
            "synthetic_sd": answers.synthetic.std(axis=0),
            "real_mean": answers.real.mean(axis=0),
            "real_sd": answers.real.std(axis=0),
        },
        index=pd.Index(answers.names, name="target"),
    )
    table["shift"] = (table["real_mean"] - table["synthetic_mean"]) / table["synthetic_sd"]
    rng = np.random.default_rng(seed)
    images, real_images = (store.images(_some(store, limit, rng)) for store in (synthetic, real))
    half = rng.permutation(len(real_images)) % 2 == 0
    return DomainGap(table, pixel_distance(images, real_images), pixel_distance(real_images[half], real_images[~half]))


def ask(
    synthetic: Store, real: Store, *, seed: int = 0, steps: int = 1500, limit: int = 6000, progress: bool = True
) -> Answers:
    """Train the network on renders and ask it about held-out ones and about real images; see `compare_domains`."""
    if (synthetic.size, synthetic.channels) != (real.size, real.channels):
        found = f"images {real.channels} x {real.size}"
        expected = f"{synthetic.channels} x {synthetic.size} as in {synthetic.path}"
        raise DataError(real.path, found=found, expected=expected, remedy="prepare both with the same size")
    for store, least in ((synthetic, MIN_RENDERS), (real, MIN_REAL)):
        if len(store) < least:
            found, remedy = f"{len(store)} images", "render or take more; some hundreds of each tell something"
            raise DataError(store.path, found=found, expected=f"at least {least}", remedy=remedy)
    rng = np.random.default_rng(seed)
    rows, real_rows = _some(synthetic, limit, rng), _some(real, limit, rng)
    images, targets = synthetic.images(rows), _targets(synthetic).iloc[rows]
    held_out = np.zeros(len(images), np.bool_)
    held_out[rng.permutation(len(images))[: max(LEAST_HELD_OUT, round(HELD_OUT * len(images)))]] = True
    truth = targets.to_numpy(np.float64)
    net = _train(images[~held_out], truth[~held_out], seed, steps, progress)
    names = tuple(str(name) for name in targets.columns)
    return Answers(names, truth[held_out], net(images[held_out]), net(real.images(real_rows)))


def _some(store: Store, limit: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(len(store))[:limit])


def pixel_distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """2-Wasserstein distance, in grey levels, of Gaussians fitted to low-resolution images [N, C, H, W].

    In the principal parts of `second`; divided by the root of the number of cells, so that a constant difference of
    one grey level gives 1.
    """
    a, b = _low_resolution(first), _low_resolution(second)
    centre = b.mean(axis=0)
    basis = np.linalg.svd(b - centre, full_matrices=False)[2][:_PARTS].T
    between_means = float(((a.mean(axis=0) - centre) ** 2).sum())
    cov_a, cov_b = (np.atleast_2d(np.cov(((x - centre) @ basis).T)) for x in (a, b))
    root = np.real(sqrtm(cov_b))
    between_spreads = float(np.trace(cov_a + cov_b - 2 * np.real(sqrtm(root @ cov_a @ root))))
    return float(np.sqrt(max(0.0, between_means + between_spreads) / a.shape[1]))


def _low_resolution(images: NDArray[np.uint8]) -> Floats:
    cells = F.avg_pool2d(tensor_of(images).float(), _CELL, ceil_mode=True)
    return cells.flatten(1).double().numpy()


def _targets(store: Store) -> pd.DataFrame:
    """What the simulator knows of each image: angles in degrees, positions in pixels."""
    known = [name for name in (*ANGLES, "pupil_u", "pupil_v", "lid_landmarks") if name in store.columns]
    if not known:
        raise DataError(
            store.path,
            found="no angles and no landmarks",
            expected="any of pitch, yaw, head_*, pupil_u, pupil_v, lid_landmarks",
            remedy="compare renders of 'simgan simulate eyes', or add these columns to your store",
        )
    columns = store.annotations(known)
    found: dict[str, Floats] = {name: np.rad2deg(columns[name].to_numpy()) for name in known if name in ANGLES}
    found |= {f"pupil_{axis}": columns[f"pupil_{c}"].to_numpy() for axis, c in ("xu", "yv") if f"pupil_{c}" in known}
    if "lid_landmarks" in known:
        lids = np.stack(columns["lid_landmarks"].tolist()).reshape(len(columns), -1, 2)
        places = LIDS.get(lids.shape[1], {})  # of another number nobody knows which is which
        found |= {f"{name}_{axis}": lids[:, i, k] for name, i in places.items() for k, axis in enumerate("xy")}
    return pd.DataFrame(found)


class _Answers:
    """A trained network: uint8 images [N, C, H, W] -> targets [N, T] in their units."""

    def __init__(self, net: nn.Module, mean: Floats, spread: Floats) -> None:
        self._net, self._mean, self._spread = net.eval(), mean, spread

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> Floats:
        parts = [self._net(_floats(images[start : start + 256])) for start in range(0, len(images), 256)]
        return torch.cat(parts).double().numpy() * self._spread + self._mean


def _floats(images: NDArray[np.uint8]) -> Tensor:
    return to_float(tensor_of(images))


def _train(images: NDArray[np.uint8], truth: Floats, seed: int, steps: int, progress: bool) -> _Answers:
    mean, spread = truth.mean(axis=0), truth.std(axis=0) + 1e-6
    wanted = torch.from_numpy((truth - mean) / spread).float()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = _network(images.shape[1], (images.shape[2], images.shape[3]), truth.shape[1])
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    photometry = GazeConfig(augment_shift=0.0, augment_noise=0.2)  # framing is what is measured: it is not varied
    for _ in tqdm(range(steps), desc="comparing domains", unit="step", disable=not progress):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        batch = augment(_floats(images[rows.numpy()]), photometry, generator)
        loss = F.smooth_l1_loss(net(batch), wanted[rows], beta=0.5)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return _Answers(net, mean, spread)


def _network(channels: int, size: tuple[int, int], targets: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((channels, 24), (24, 48), (48, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    flat = 64 * (size[0] // 8) * (size[1] // 8)
    return to_channels_last(
        nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 192), nn.ReLU(), nn.Linear(192, targets))
    )
