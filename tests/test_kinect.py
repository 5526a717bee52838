"""The structured-light camera: each part does what its source says, and its edges are nearer to recorded ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from simgan_core.evaluation.silhouettes import edge_profile, noise_mm
from simgan_core.hand_crop import crop_frame, cube_about
from simgan_core.hand_recorded import crop_masks
from simgan_core.simulators.hand import HandSimulator
from simgan_core.simulators.hand_ranges import HandRanges, target_ranges
from simgan_core.simulators.hand_simulate import stand_in_assets
from simgan_core.simulators.kinect import KinectCamera, record

NYU = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data")) / "nyu"
QUIET = KinectCamera(lateral_px=0.0, axial_scale=0.0, edge_failure=0.0, shadow=False)


def _wall(depth: float, side: int = 64) -> torch.Tensor:
    return torch.full((1, side, side), depth)


def test_quantisation_grows_with_the_square_of_depth() -> None:
    ramp = torch.linspace(600, 1200, 4000).view(1, 1, -1).expand(1, 8, -1)
    values = QUIET(ramp, 0, [0])[0, 0].unique()
    near, far = (values[(values > a) & (values < a + 60)].diff().mean() for a in (600, 1100))
    assert near == pytest.approx(630**2 / (575.8 * 75) / 8, rel=0.1)
    assert far / near == pytest.approx((1130 / 630) ** 2, rel=0.15)


def test_noise_grows_with_depth() -> None:
    camera = KinectCamera(edge_failure=0.0, shadow=False)
    near, far = (camera(_wall(z), 0, [0]).std() for z in (600.0, 1800.0))
    assert 0.8 < near < 2.5 and 3.5 < far < 8  # Nguyen et al.: 1.3 and 4.9 mm, and the steps


def test_shadow_falls_to_one_side_of_near_things() -> None:
    scene = _wall(1000.0, 96)
    scene[:, 30:60, 50:70] = 700.0
    seen = KinectCamera(lateral_px=0.0, axial_scale=0.0, edge_failure=0.0, shadow_bridged_px=0.5)(scene, 0, [0])[0]
    width = 575.8 * 75 * (1 / 700 - 1 / 1000)
    assert (seen[45, 50 - int(width) + 1 : 50] == 0).all() and seen[45, 50 - int(width) - 3] > 0
    assert (seen[45, 70:] > 0).all() and (seen[45, 50:70] > 0).all() and (seen[10] > 0).all()


def test_matches_fail_beside_edges_only() -> None:
    scene = _wall(1000.0, 128)
    scene[:, :, 64:] = 800.0
    seen = KinectCamera(shadow=False, edge_failure=0.3)(scene, 1, [0])[0]
    lost = (seen == 0).float().mean(0)
    assert lost[:60].max() == 0 and lost[69:].max() == 0 and 0.1 < lost[62:66].mean() < 0.55


def test_recording_does_not_depend_on_the_batch() -> None:
    simulator = HandSimulator(stand_in_assets(), target_ranges(), size=(64, 64), views=1)
    camera = KinectCamera()
    together, alone = record(simulator, camera, 5, range(3)), record(simulator, camera, 5, [2])
    assert torch.equal(together.depth[2], alone.depth[0])
    clean = simulator.batch(5, [2])
    assert torch.allclose(clean.labels.uvd, alone.labels.uvd)
    both = (clean.depth > 0) & (alone.depth > 0)
    overlap = both.sum() / ((clean.depth > 0) | (alone.depth > 0)).sum()
    assert 0.75 < overlap < 0.995
    assert (clean.depth - alone.depth)[both].abs().median() < 4


def test_left_hands_keep_the_shadow_on_its_side() -> None:
    simulator = HandSimulator(stand_in_assets(), HandRanges(left_share=1.0), size=(64, 64), views=1)
    clean, seen = simulator.batch(5, range(2)), record(simulator, KinectCamera(), 5, range(2))
    overlap = ((clean.depth > 0) & (seen.depth > 0)).sum() / (clean.depth > 0).sum()
    assert overlap > 0.75 and torch.allclose(clean.labels.uvd, seen.labels.uvd, atol=1e-3)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="edge_failure"):
        KinectCamera(edge_failure=2.0)
    with pytest.raises(ValueError, match="index per image"):
        KinectCamera()(_wall(700.0), 0, [0, 1])


def test_edge_profile_tells_smooth_from_jagged() -> None:
    y, x = np.mgrid[:128, :128]
    disk = (x - 64) ** 2 + (y - 64) ** 2 < 40**2
    rng = np.random.default_rng(0)
    band = cv2.dilate(disk.astype(np.uint8), np.ones((5, 5))) - cv2.erode(disk.astype(np.uint8), np.ones((5, 5)))
    torn = disk & ~((band > 0) & (rng.random(disk.shape) < 0.3))
    smooth, jagged = edge_profile(disk[None]), edge_profile(torn[None])
    assert max(smooth.notches + smooth.spikes) < 0.25 and jagged.notches[0] > 0.3
    assert smooth.distance(smooth) == 0 and smooth.distance(jagged) > 0.1
    with pytest.raises(ValueError, match="some hand"):
        edge_profile(np.zeros((1, 8, 8), bool))


def test_stand_in_edges_are_nearer_to_recorded_ones_than_renders_are() -> None:
    if not (NYU / "crops").is_dir():
        pytest.skip(f"{NYU} is absent: name a data root with SIMGAN_DATA_ROOT")
    simulator = HandSimulator(stand_in_assets(), target_ranges(), size=(128, 128), views=1)
    indices = range(20)
    clean = edge_profile((simulator.batch(0, indices).depth > 0).numpy())
    camera = record(simulator, KinectCamera(), 0, indices)
    seen, real = edge_profile((camera.depth > 0).numpy()), edge_profile(crop_masks(NYU / "crops"))
    assert real.distance(seen) < real.distance(clean)


def test_stand_in_noise_is_of_the_recorded_frames_size() -> None:
    path = NYU / "frames" / "depth_1_0000001.png"
    if not path.is_file():
        pytest.skip(f"{path} is absent: name a data root with SIMGAN_DATA_ROOT")
    coded = cv2.imread(str(path)).astype(np.float32)
    frame = torch.from_numpy(coded[..., 1] * 256 + coded[..., 0])[None]
    with np.load(NYU / "test_groundtruth_uvd.npz") as archive:
        cube = cube_about(torch.from_numpy(archive["uvd"][:1]))
    real = noise_mm(crop_frame(frame, cube, (224, 224)).numpy())
    simulator = HandSimulator(stand_in_assets(), target_ranges(), size=(224, 224), views=1)
    clean = noise_mm(simulator.batch(0, range(6)).depth.numpy())
    seen = noise_mm(record(simulator, KinectCamera(), 0, range(6)).depth.numpy())
    assert clean < real / 3, "the measure sees what a camera adds to a render"
    assert _as_noisy_as(real, seen) and not _as_noisy_as(real, clean)


def _as_noisy_as(real: float, seen: float) -> bool:
    return real / 2.5 < seen < 2.5 * real


def test_noise_is_more_than_quantisation() -> None:
    """Steps of disparity alone look much like the recorded frame's noise; the model's own noise must show beside them.

    This is what a camera without noise fails.
    """
    simulator = HandSimulator(stand_in_assets(), target_ranges(), size=(224, 224), views=1)
    noiseless = replace(KinectCamera(), axial_scale=0.0, lateral_px=0.0)
    full, steps = (
        noise_mm(record(simulator, camera, 0, range(6)).depth.numpy()) for camera in (KinectCamera(), noiseless)
    )
    assert full > 1.5 * steps > 0
