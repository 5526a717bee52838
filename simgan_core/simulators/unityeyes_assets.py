"""Read UnityEyes' own assets (folder layout of the public repository UnityEyes2, MIT licence) into `EyeAssets`.

Unity's frame is (-mx, mz, -my) of the shape file, metres, moved by -0.5 mm along its z axis; the eye frame used here
(x right in the image, y down, z away from the camera, mm) is therefore (mx, -mz, my + 0.5 mm).

Legend: V = 229 control vertices, W = 872 fine vertices, F = 1656 triangles, K = 20 shape components.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.simulators.assets import EyeAssets, EyeballGeometry, LashAssets
from simgan_core.simulators.environments import room_environments

_CENTRE_MM = np.array([0.0, 0.0, 0.5])
# The mean shape's outer corner lies 8 degrees above the inner one; MPIIGaze's normalisation turns faces such that real
# corners come to lie nearly level (seen on unlabelled images): the shapes are turned by this much, clockwise as seen.
_LEVEL_DEG = 5.0

# Vertex numbers of the control mesh, as the simulator publishes them: each row runs around the opening from the inner
# corner over the upper lid (columns 0 to 9) and back along the lower lid; rows go outwards from the lid margin.
_LOOPS = (
    (33, 32, 25, 13, 14, 15, 16, 17, 18, 132, 131, 130, 6, 2, 1, 7, 8, 0, 28, 30),
    (35, 36, 26, 24, 23, 22, 21, 20, 19, 93, 112, 113, 5, 4, 3, 9, 10, 11, 29, 34),
    (83, 82, 77, 62, 61, 60, 37, 38, 39, 92, 139, 136, 40, 41, 42, 43, 44, 45, 46, 84),
    (86, 85, 78, 72, 71, 70, 47, 48, 49, 135, 141, 140, 53, 54, 55, 56, 57, 58, 59, 87),
    (80, 79, 76, 75, 74, 73, 50, 51, 52, 137, 138, 142, 63, 64, 65, 66, 67, 68, 69, 81),
    (101, 102, 103, 104, 105, 88, 89, 90, 91, 146, 145, 143, 94, 95, 96, 217, 97, 98, 99, 100),
)
_STRENGTH = (1.0, 1.0, 1.0, 0.8, 0.4, 0.2)
_INNER_CORNER, _OUTER_CORNER = 34, 131
_SKIN_PIXELS, _IRIS_PIXELS = 512, 256


def find_assets_folder(folder: Path) -> Path:
    """Return the `Assets` folder in or at `folder`; raise FileNotFoundError that names what is missing."""
    for candidate in (folder, folder / "Assets"):
        if (candidate / "Resources" / "ShapePCA" / "mesh_mean.txt").is_file():
            return candidate
    raise FileNotFoundError(
        f"{folder}: found no Resources/ShapePCA/mesh_mean.txt in it or in its Assets/; expected the folder layout of "
        "UnityEyes2; fetch it with `simgan data fetch unityeyes2` or leave --assets out for procedural eyes"
    )


def load_unityeyes_assets(
    folder: Path, *, skin_pixels: int = _SKIN_PIXELS, iris_pixels: int = _IRIS_PIXELS
) -> EyeAssets:
    """Read the assets below `folder`; textures are reduced to the given widths in pixels."""
    root = find_assets_folder(folder)
    resources = root / "Resources"
    mean, components = _read_shape(resources / "ShapePCA")
    subdivision, triangles = _read_subdivision(resources / "SubdivData", len(mean))
    uv = subdivision @ _read_3ds_uv(root / "eye_region.3ds", len(mean))
    corner_uv = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=-1)[triangles]
    iris, probability = _read_irises(resources / "IrisTextures", iris_pixels)
    lashes = _read_lashes(root / "Lashes")
    skins = _read_skins(resources / "SkinTextures", skin_pixels)  # last: they take the longest
    return EyeAssets(
        name="unityeyes",
        mean=torch.from_numpy(mean).float(),
        components=torch.from_numpy(components).float(),
        subdivision=torch.from_numpy(subdivision).float(),
        triangles=torch.from_numpy(triangles),
        corner_uv=torch.from_numpy(corner_uv).float().clamp(0, 1),
        lid_loops=torch.tensor(_LOOPS),
        lid_strength=torch.tensor(_STRENGTH),
        inner_corner=_INNER_CORNER,
        outer_corner=_OUTER_CORNER,
        skin=skins[0],
        skin_look_down=skins[1],
        displacement=skins[2],
        iris=iris,
        iris_probability=probability,
        lashes=lashes,
        eyeball=EyeballGeometry(),
        environments=room_environments(count=24, seed=0),
    )


def _read_table(path: Path, columns: int, separator: str | None = None) -> NDArray[np.float64]:
    """Read a text file of numbers as [rows, columns]."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; expected in UnityEyes2's assets; fetch them again")
    if not path.read_bytes().strip():
        raise ValueError(f"{path}: expected rows of {columns} numbers, found an empty file; fetch it again")
    try:
        return np.loadtxt(path, delimiter=separator, ndmin=2).reshape(-1, columns)
    except ValueError as error:
        raise ValueError(f"{path}: expected rows of {columns} numbers, found: {error}; fetch it again") from error


def _read_shape(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean shape [V, 3] and components [K, V, 3] in mm of the eye frame, per standard deviation."""
    mean = _read_table(folder / "mesh_mean.txt", 3)
    deviation = _read_table(folder / "transformed_std.txt", 1)[:, 0]
    components = _read_table(folder / "pca_components.txt", len(deviation)) * deviation
    if components.shape[0] != mean.size:
        raise ValueError(
            f"{folder}: found {components.shape[0]} rows of components, expected {mean.size}; fetch the files again"
        )
    components = components.T.reshape(len(deviation), -1, 3)
    return _to_eye_frame(mean) + _CENTRE_MM, _to_eye_frame(components)


def _to_eye_frame(metres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes and units of the shape file to those of the eye frame, corners levelled."""
    x, y, z = metres[..., 0], -metres[..., 2], metres[..., 1]
    cos, sin = np.cos(np.deg2rad(_LEVEL_DEG)), np.sin(np.deg2rad(_LEVEL_DEG))
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1) * 1000.0


def _read_subdivision(folder: Path, control: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights of one Loop subdivision as a dense matrix [W, V], and fine triangles [F, 3] seen counter-clockwise."""
    weights_file = folder / "new_v_weights_eye_region.txt"
    first = weights_file.read_text().partition("\n")[0] if weights_file.is_file() else ""
    neighbours = first.count(",") + 1
    weights = _read_table(folder / "new_v_weights_eye_region.txt", neighbours, ",")
    index = _read_table(folder / "new_v_idxs_eye_region.txt", neighbours, ",").astype(np.int64)
    if index.shape != weights.shape or index.max() >= control:
        raise ValueError(f"{folder}: weights and indices do not belong together; fetch the files again")
    matrix = np.zeros((len(weights), control))
    np.add.at(matrix, (np.arange(len(weights))[:, None], index), weights)
    triangles = _read_table(folder / "new_tris_eye_region.txt", 3).astype(np.int64)
    return matrix, np.ascontiguousarray(triangles)


def _read_3ds_uv(path: Path, vertices: int) -> NDArray[np.float64]:
    """Texture coordinates [V, 2] of the first mesh of a 3DS file (chunk 0x4140 inside 0x4d4d/0x3d3d/0x4000/0x4100)."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; expected in UnityEyes2's assets; fetch them again")
    data = path.read_bytes()
    found = _find_chunk(data, 0, len(data), (0x4D4D, 0x3D3D, 0x4000, 0x4100, 0x4140))
    if found is None or struct.unpack_from("<H", data, found)[0] != vertices:
        raise ValueError(f"{path}: found no texture coordinates of {vertices} vertices; fetch the file again")
    return np.frombuffer(data, "<f4", vertices * 2, found + 2).reshape(-1, 2).astype(np.float64)


def _find_chunk(data: bytes, start: int, end: int, trail: tuple[int, ...]) -> int | None:
    """Offset of the payload of the chunk reached by following `trail`, or None."""
    while start + 6 <= end:
        kind, length = struct.unpack_from("<HI", data, start)
        if length < 6:
            return None
        if kind == trail[0]:
            body = start + 6
            if kind == 0x4000:  # a named object: the name comes before its chunks
                body = data.index(b"\0", body) + 1
            return body if len(trail) == 1 else _find_chunk(data, body, start + length, trail[1:])
        start += length
    return None


def _read_image(path: Path, pixels: int, flag: int) -> NDArray[np.uint8]:
    """Read an image and reduce it to `pixels` squared by area averaging."""
    image = cv2.imread(str(path), flag)
    if image is None:
        raise ValueError(f"{path}: expected an image, found none that can be read; fetch the file again")
    return np.asarray(cv2.resize(image, (pixels, pixels), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _read_skins(folder: Path, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, look-down colour and displacement of all identities: [S, T, T, 3], [S, T, T, 3], [S, T, T]."""
    colours = sorted(folder.glob("*_color.png"))
    if not colours:
        raise FileNotFoundError(f"{folder}: found no *_color.png; expected UnityEyes2's skins; fetch them again")
    skin, down, displacement = [], [], []
    for path in colours:
        stem = path.name.removesuffix("_color.png")
        look_down = folder / f"{stem}_color_look_down.png"
        skin.append(_read_image(path, pixels, cv2.IMREAD_COLOR)[..., ::-1])
        down.append(_read_image(look_down, pixels, cv2.IMREAD_COLOR)[..., ::-1])
        displacement.append(_read_image(folder / f"{stem}_disp.png", pixels, cv2.IMREAD_GRAYSCALE))
    return tuple(torch.from_numpy(np.stack(x)) for x in (skin, down, displacement))  # type: ignore[return-value]


def _read_irises(folder: Path, pixels: int) -> tuple[Tensor, Tensor]:
    """Eyeball textures [I, t, t, 3] and how often the simulator draws each [I] (half of all eyes are brown)."""
    paths = sorted(folder.glob("eyeball_*.png"))
    if not paths:
        raise FileNotFoundError(f"{folder}: found no eyeball_*.png; expected UnityEyes2's irises; fetch them again")
    textures = [_read_image(path, pixels, cv2.IMREAD_COLOR)[..., ::-1] for path in paths]
    brown = torch.tensor([float(path.stem == "eyeball_brown") for path in paths])
    probability = 0.5 * brown + 0.5 / len(paths)
    return torch.from_numpy(np.stack(textures)), probability / probability.sum()


def _read_lashes(folder: Path) -> LashAssets:
    """Lash coverage: the lower half of each file holds hairs that grow downwards; turned so that roots are below."""
    strips: dict[str, list[NDArray[np.uint8]]] = {"top": [], "bottom": []}
    for lid, found in strips.items():
        for path in sorted(folder.glob(f"lashes_{lid}_*.png")):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim != 3 or image.shape[2] != 4:
                raise ValueError(f"{path}: expected a PNG with alpha; fetch the file again")
            alpha = image[image.shape[0] // 2 :, :, 3][::-1]
            found.append(np.asarray(cv2.resize(alpha, (256, 64), interpolation=cv2.INTER_AREA), dtype=np.uint8))
        if not found:
            raise FileNotFoundError(f"{folder}: found no lashes_{lid}_*.png; fetch UnityEyes2's assets again")
    return LashAssets(
        upper_alpha=torch.from_numpy(np.stack(strips["top"])),
        lower_alpha=torch.from_numpy(np.stack(strips["bottom"])),
    )
