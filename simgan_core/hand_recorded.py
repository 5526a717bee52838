"""What recorded hands at hand say about ours: the fit of poses to NYU's joints, the camera model against NYU's edges.

NYU's depth frames are not among the data `mini`, but some pieces of it are: the joints of its test set, 20 published
crops and one whole frame. They train nothing; here they check the simulator. Where a file is missing there is no answer
(None), never another number in its place.

N images, H W crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from simgan_core.config_hand import PAPER_SIDE
from simgan_core.datasets.files import read_image
from simgan_core.datasets.npz import read_arrays
from simgan_core.datasets.nyu import read_depth
from simgan_core.evaluation.silhouettes import RADII, SIDE, distance_estimate, edge_rows, mean_profile, noise_mm
from simgan_core.evaluation.statistics import Estimate, two_level_bootstrap
from simgan_core.hand_crop import crop_frame, cube_about
from simgan_core.run_folder import Metric, RunFolder
from simgan_core.simulators.hand import HandSimulator
from simgan_core.simulators.hand_fit import RecordedFit, fit_recorded
from simgan_core.simulators.hand_ranges import target_ranges
from simgan_core.simulators.hand_simulate import load_hand_assets, stand_in_assets
from simgan_core.simulators.kinect import KinectCamera, record

JOINTS = Path("nyu") / "test_groundtruth_uvd.npz"
CROPS = Path("nyu") / "crops"
FRAME = Path("nyu") / "frames" / "depth_1_0000001.png"
FIT_FRAMES = {"smoke": 6}
"""Frames to fit by profile, 80 in the others: half a minute, most of it for the sizes of the two people's hands."""
RENDERS = 40
_RENDER_SEED = 1009  # of no store
_NOISE_RENDERS = 6
_WHITE = 250  # published crops are grey pictures on white or on black


def recorded_root(run: RunFolder) -> Path | None:
    """Where a run may look for recorded hands; None for `embedded`, which is the same whatever files are at hand."""
    return None if run.data == "embedded" else run.data_root


def pose_fit(data_root: Path | None, profile: str) -> RecordedFit | None:
    """Poses of our hand fitted to some of NYU's test joints; None where these are not at hand."""
    if data_root is None or not (data_root / JOINTS).is_file():
        return None
    return fit_recorded(data_root / JOINTS, load_hand_assets(), frames=FIT_FRAMES.get(profile, 80))


def fit_error_mm(fitted: RecordedFit) -> Estimate:
    """Mean distance of fitted and recorded joints in mm, with its 95 % interval over frames."""
    return two_level_bootstrap(fitted.fit.error_mm.numpy()[None])


def recorded_metrics(fitted: RecordedFit | None, edges: RecordedEdges | None) -> dict[str, Metric]:
    """The numbers of both, as far as there are any."""
    found = {} if fitted is None else {"hand.pose_fit.mean_error_mm": Metric.of(fit_error_mm(fitted), "mm")}
    distances = {} if edges is None else edges.distances()
    return found | {f"hand.recorded_edges.{name}.distance": Metric.of(e, "") for name, e in distances.items()}


def fit_table(fitted: RecordedFit) -> pd.DataFrame:
    """The fit error in one row."""
    names = {
        "frames": "frames", "mean_mm": "mean (mm)", "median_mm": "median (mm)", "p95_mm": "95th percentile (mm)",
        "below_10_mm_percent": "joints below 10 mm (%)",
    }  # fmt: skip
    return pd.DataFrame([fitted.fit.summary()]).rename(columns=names)


@dataclass(frozen=True)
class RecordedEdges:
    """Notches and spikes [N, 6] of silhouettes (`evaluation.silhouettes`), and noise inside the hand in mm."""

    clean: NDArray[np.float64]
    camera: NDArray[np.float64]
    crops: NDArray[np.float64]
    frame: NDArray[np.float64]
    noise: dict[str, float]

    def distances(self) -> dict[str, Estimate]:
        """How far renders without a camera, and the stand-in's, are from the recorded crops."""
        return {name: distance_estimate(getattr(self, name), self.crops) for name in ("clean", "camera")}

    def table(self) -> pd.DataFrame:
        """One row per kind of image; noise is not known of crops, which are pictures without a scale of depth."""
        titles = {"clean": "stand-in's hand, no camera", "camera": "stand-in (modelled camera)",
                  "crops": "recorded: published crops", "frame": "recorded: one frame"}  # fmt: skip
        distances, rows = self.distances(), []
        for name, title in titles.items():
            profile, apart = mean_profile(getattr(self, name)), distances.get(name)
            interval = (None, None, None) if apart is None else (apart.value, apart.low, apart.high)
            rows.append((title, profile.images, *profile.notches, *profile.spikes, *interval, self.noise.get(name)))
        measures = [f"{kind} {radius} px" for kind in ("notches", "spikes") for radius in RADII]
        return pd.DataFrame(rows, columns=["images", "n", *measures, "distance to crops", "low", "high", "noise (mm)"])


def compare_with_recorded(data_root: Path | None, camera: KinectCamera | None = None) -> RecordedEdges | None:
    """The stand-in's edges beside NYU's, with `camera` or the default one; None where crops or frame are missing."""
    if data_root is None or not all((data_root / part).exists() for part in (CROPS, FRAME, JOINTS)):
        return None
    camera = KinectCamera() if camera is None else camera
    assets, ranges = stand_in_assets(), target_ranges()
    small, large = (HandSimulator(assets, ranges, size=(side, side), views=1) for side in (SIDE, PAPER_SIDE))
    clean = small.batch(_RENDER_SEED, range(RENDERS)).depth.numpy()
    seen = record(small, camera, _RENDER_SEED, range(RENDERS)).depth.numpy()
    frame = recorded_frame(data_root)
    noise = {
        "clean": noise_mm(large.batch(_RENDER_SEED, range(_NOISE_RENDERS)).depth.numpy()),
        "camera": noise_mm(record(large, camera, _RENDER_SEED, range(_NOISE_RENDERS)).depth.numpy()),
        "frame": noise_mm(frame),
    }
    crops = edge_rows(crop_masks(data_root / CROPS))
    return RecordedEdges(edge_rows(clean > 0), edge_rows(seen > 0), crops, edge_rows(frame > 0), noise)


def recorded_frame(data_root: Path) -> NDArray[np.float32]:
    """The one real frame, cut about its joints as rendered hands are: mm [1, 224, 224], 0 = background."""
    uvd = torch.from_numpy(read_arrays(data_root / JOINTS, ("uvd",), "see data/README.md")["uvd"][:1])
    depth = read_depth(data_root / FRAME)[None]
    return np.asarray(crop_frame(depth, cube_about(uvd.float()), (PAPER_SIDE, PAPER_SIDE)).numpy())


def crop_masks(folder: Path) -> NDArray[np.bool_]:
    """Silhouettes [N, 128, 128] of published crops: grey pictures whose border is mostly background, white or black."""
    masks = []
    for path in sorted(folder.glob("*.png")):
        grey = read_image(path, colour=False)[0, 0].numpy()
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        hand = grey < _WHITE if (border >= _WHITE).sum() > (border <= 255 - _WHITE).sum() else grey > 255 - _WHITE
        masks.append(cv2.resize(hand.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0)
    return np.stack(masks)
