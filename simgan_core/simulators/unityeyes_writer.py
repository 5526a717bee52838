"""Write simulated eyes as UnityEyes does (Wood et al., ETRA 2016; paper section 3.1): `imgs/N.jpg` and `imgs/N.json`.

For programs that read UnityEyes folders. Frame of the JSON: x right, y *up*, z away from the camera; pixels from the
lower left corner, so v = height - y; angles in degrees; vectors as strings with four decimals. The third number of a
2D point is its depth, here that of the eyeball's centre for all of them, in centimetres.

Legend: N images.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from simgan_core.simulators.eye import EyeBatch, EyeSimulator

FIELD_WIDTH_NORMAL_MM = (50.0, 2.0)  # shown across the image: wider than MPIIGaze's frames, for the reader to crop
_INTERIOR_MARGIN = tuple(range(2, 18))  # columns of the lid margin without the caruncle's, 16 as UnityEyes has
_CARUNCLE = (2, 1, 0, 0, 19, 18, 18)  # the corner's columns; UnityEyes lists seven points there


def write_unityeyes(
    simulator: EyeSimulator,
    out: Path,
    count: int,
    seed: int = 0,
    *,
    size: tuple[int, int] = (600, 800),
    supersample: int = 1,
    quality: int = 95,
    progress: bool = True,
) -> Path:
    """Render images 1 to `count` of stream `seed` in colour into `out`/imgs, and return that folder.

    The simulator lends its assets and ranges; frame and field of view are those of UnityEyes' pictures. Skins of 256
    texels look soft at `size` = (height, width) = (600, 800): `procedural_assets(texture=1024)` is made for it.

    Raises:
        FileExistsError: `out` exists; nothing is written over.
        ValueError: count below 1 or quality outside 1 to 100.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists; a new folder expected; remove it or name another one")
    if count < 1 or not 1 <= quality <= 100:
        raise ValueError(f"count {count}, quality {quality} found; count of at least 1 and quality 1 to 100 expected")
    ranges = replace(simulator.ranges, field_width_normal_mm=FIELD_WIDTH_NORMAL_MM)
    camera = EyeSimulator(
        simulator.assets, ranges, frame=size, supersample=supersample, colour=True, device=simulator.device
    )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "imgs").mkdir(parents=True)
    try:
        for number in tqdm(range(1, count + 1), desc="UnityEyes folder", unit="image", disable=not progress):
            eyes = camera.render(camera.sample(seed, [number]))
            path = partial / "imgs" / f"{number}.jpg"
            _write_jpeg(path, eyes.image[0], quality)
            details = unityeyes_details(eyes, 0, size, camera)
            path.with_suffix(".json").write_text(json.dumps(details, indent=2) + "\n")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out / "imgs"


def unityeyes_details(eyes: EyeBatch, row: int, size: tuple[int, int], simulator: EyeSimulator) -> dict[str, object]:
    """The JSON tree of image `row` of a batch rendered at `size` = (height, width)."""
    labels, drawn = eyes.labels, eyes.parameters
    depth = simulator.ranges.camera_distance_mm / 10.0
    x, y, z = (float(value) for value in labels.gaze_vector[row])
    pitch, yaw, roll = (math.degrees(float(value)) for value in labels.head[row])
    light = [float(value) for value in drawn.light[row]]
    elevation, azimuth = math.degrees(math.asin(-light[1])), math.degrees(math.atan2(light[0], -light[2]))
    margin = _points(labels.lid_landmarks[row], size[0], depth)
    iris = int(drawn.iris[row])
    return {
        "interior_margin_2d": [margin[column] for column in _INTERIOR_MARGIN],
        "caruncle_2d": [margin[column] for column in _CARUNCLE],
        "iris_2d": _points(labels.iris_landmarks[row], size[0], depth),
        "eye_details": {
            "look_vec": _vector(x, -y, z, 0.0),
            "pupil_size": f"{float(drawn.pupil_radius[row]) / simulator.assets.eyeball.limbus_radius_mm:.7f}",
            "iris_size": f"{float(drawn.iris_scale[row]):.7f}",
            "iris_texture": f"{simulator.assets.name}_{iris}",
        },
        "lighting_details": {
            "skybox_texture": f"room_{int(drawn.environment[row])}",
            "skybox_exposure": f"{float(drawn.exposure[row]):.6f}",
            "skybox_rotation": f"{math.degrees(float(drawn.environment_turn[row])) % 360.0:.0f}",
            "ambient_intensity": f"{float(drawn.ambient_intensity[row]):.6f}",
            "light_rotation": f"({elevation % 360.0:.1f}, {azimuth % 360.0:.1f}, 0.0)",
            "light_intensity": f"{float(drawn.light_intensity[row]):.7f}",
        },
        "eye_region_details": {
            "pca_shape_coeffs": [f"{float(value):.7g}" for value in drawn.shape[row]],
            "primary_skin_texture": f"{simulator.assets.name}_{int(drawn.skin[row])}",
        },
        "head_pose": _vector(-pitch % 360.0, (180.0 - yaw) % 360.0, roll % 360.0),
    }


def _points(pixels: Tensor, height: int, depth: float) -> list[str]:
    """Positions [N, 2] with v downwards from the top as UnityEyes' strings, y upwards from the bottom."""
    return [_vector(u, height - v, depth) for u, v in pixels.cpu().double().tolist()]


def _vector(*values: float) -> str:
    return "(" + ", ".join(f"{value:.4f}" for value in values) + ")"


def _write_jpeg(path: Path, image: Tensor, quality: int) -> None:
    """Write one image [3, H, W] in [0, 1]. Raises OSError if it cannot be written."""
    pixels: NDArray[np.uint8] = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    if not cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]):
        raise OSError(f"{path}: could not be written; a folder with free space expected; name another one")
