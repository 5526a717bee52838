"""Skinned hand meshes from files: sphereHand's .npz and the WebXR input profiles' .glb, brought to canonical bones.

sphereHand (MIT, Tkach et al.'s sphere model re-skinned): arrays `vertices` in mm, `faces`, `skin_weights`, `bone_name`
and inverse bind matrices `bone_offset_matrix`; its coordinates are left-handed, so y is negated on the way in. WebXR's
generic hand (MIT): glTF in metres with 25 joints; its metacarpals move with the palm here. Both end at the wrist: a
forearm is added. V vertices, F triangles, S bones of the source, N = 17 canonical bones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.npz import read_arrays
from simgan_core.simulators.hand_assets import HandAssets, assemble
from simgan_core.simulators.hand_skeleton import BONES, DIGIT_BASES, Skeleton, frame, relative

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_SPHEREHAND_DIGITS = {"thumb": 5, "index": 4, "middle": 3, "ring": 2, "little": 1}
_WEBXR_DIGITS = {"thumb": "thumb", "index": "index-finger", "middle": "middle-finger", "ring": "ring-finger",
                 "little": "pinky-finger"}  # fmt: skip
_ARM_MM = 170.0
_CLEAR_BEND = 0.1  # sine of the bend from which a finger's own plane is taken rather than the palm's


@dataclass(frozen=True)
class _Source:
    """A mesh as its file has it: right-handed coordinates in mm, one source bone per canonical bone."""

    name: str
    vertices: Floats  # [V,3]
    triangles: Whole  # [F,3]
    weights: Floats  # [V,N]
    origin: Floats  # [N,3] joints at rest


def hand_meshes(folder: Path) -> list[Path]:
    """The meshes of a folder, .npz before .glb. Raises DataError where there is none."""
    found = sorted(folder.glob("*.npz")) + sorted(folder.glob("*.glb"))
    if not found:
        names = sorted(entry.name for entry in folder.iterdir())
        raise DataError(
            folder, found=f"files {names}", expected="spherehand_right.npz or a .glb", remedy="name another folder"
        )
    return found


def load_hand_mesh(path: Path) -> HandAssets:
    """A hand from an .npz or .glb, or from the first such file of a folder. Raises DataError where there is none."""
    if path.is_dir():
        path = hand_meshes(path)[0]
    if not path.is_file():
        raise DataError(
            path, found="no such file", expected="spherehand_right.npz or a .glb", remedy="leave --assets out for the "
            "procedural hand"
        )  # fmt: skip
    return _canonical(_read_gltf(path) if path.suffix == ".glb" else _read_spherehand(path))


def _read_spherehand(path: Path) -> _Source:
    wanted = ("vertices", "faces", "skin_weights", "bone_name", "bone_offset_matrix")
    arrays = read_arrays(path, wanted, "use sphereHand's file", every=True)
    mirror = np.array([1.0, -1.0, 1.0])
    names = arrays["bone_name"].tolist()
    joints = np.linalg.inv(arrays["bone_offset_matrix"].astype(np.float64))[:, :3, 3] * mirror
    chosen = {"palm": "metacarpals", "forearm": "carpals"}
    for digit, base in zip(_SPHEREHAND_DIGITS, DIGIT_BASES, strict=True):
        for k in range(3):
            chosen[BONES[base + k]] = f"finger{_SPHEREHAND_DIGITS[digit]}joint{k + 1}"
    order = [names.index(chosen[bone]) for bone in BONES]
    return _Source(
        f"sphereHand {path.name}",
        arrays["vertices"].astype(np.float64) * mirror,
        arrays["faces"].astype(np.int64),
        arrays["skin_weights"].astype(np.float64)[:, order],
        joints[order],
    )


def _read_gltf(path: Path) -> _Source:
    from pygltflib import GLTF2  # only needed for this kind of file

    gltf = GLTF2().load(str(path))
    if gltf is None or not gltf.skins or not gltf.meshes:
        raise DataError(path, found="no skinned mesh", expected="a glTF hand", remedy="use the WebXR generic hand")
    blob = gltf.binary_blob()

    def array(index: int) -> NDArray[np.generic]:
        accessor = gltf.accessors[index]
        view = gltf.bufferViews[accessor.bufferView]
        kind = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}[accessor.componentType]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        step = view.byteStride or width * np.dtype(kind).itemsize
        rows = np.ndarray(
            (accessor.count, width), kind, buffer=blob, offset=start, strides=(step, np.dtype(kind).itemsize)
        )
        return np.array(rows)

    skin, primitive = gltf.skins[0], gltf.meshes[0].primitives[0]
    names = [gltf.nodes[node].name for node in skin.joints]
    inverse = array(skin.inverseBindMatrices).astype(np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)
    joints: Floats = np.asarray(np.linalg.inv(inverse)[:, :3, 3] * 1000.0, np.float64)
    bone, origin = _webxr_bones(path, names, joints)
    influence = array(primitive.attributes.JOINTS_0).astype(np.int64)
    share = array(primitive.attributes.WEIGHTS_0).astype(np.float64)
    vertices = array(primitive.attributes.POSITION).astype(np.float64) * 1000.0
    weights = np.zeros((len(vertices), len(BONES)))
    np.add.at(weights, (np.arange(len(vertices))[:, None], bone[influence]), share)
    triangles = array(primitive.indices).astype(np.int64).reshape(-1, 3)
    weights /= weights.sum(1, keepdims=True)
    return _Source(f"WebXR {path.name}", vertices, triangles, weights, origin)


def _webxr_bones(path: Path, names: list[str], joints: Floats) -> tuple[Whole, Floats]:
    """The canonical bone of each joint, and the joints' positions in canonical order."""
    bone, origin = np.zeros(len(names), np.int64), np.zeros((len(BONES), 3))
    origin[:2] = joints[names.index("wrist")]
    for digit, base in zip(_WEBXR_DIGITS, DIGIT_BASES, strict=True):
        stem = _WEBXR_DIGITS[digit]
        parts = ["phalanx-proximal", "phalanx-intermediate", "phalanx-distal"]
        if digit == "thumb":
            parts = ["metacarpal", "phalanx-proximal", "phalanx-distal"]
        for k, part in enumerate(parts):
            name = f"{stem}-{part}"
            if name not in names:
                raise DataError(path, found=f"joints {names}", expected=name, remedy="use the WebXR generic hand")
            bone[names.index(name)] = base + k
            origin[base + k] = joints[names.index(name)]
        bone[names.index(f"{stem}-tip")] = base + 2
    return bone, origin


def _canonical(source: _Source) -> HandAssets:
    """Turn a mesh into the palm's frame, give its bones canonical axes and add a forearm."""
    wrist = source.origin[0]
    index, middle, little = (source.origin[DIGIT_BASES[d]] for d in (1, 2, 4))
    y = middle - wrist
    y /= np.linalg.norm(y)
    across = index - little
    x = across - (across @ y) * y
    x /= np.linalg.norm(x)
    palm = np.stack([x, y, np.cross(x, y)])  # rows
    vertices, origin = (source.vertices - wrist) @ palm.T, (source.origin - wrist) @ palm.T
    rotation, tips = _rest_rotations(vertices, source.weights, origin)
    skeleton = _zero(rotation, origin)
    arm_vertices, arm_triangles, arm_weights = _forearm(vertices)
    triangles = np.concatenate([_oriented(vertices, source.triangles), arm_triangles + len(vertices)])
    return assemble(
        source.name,
        torch.from_numpy(np.concatenate([vertices, arm_vertices])),
        torch.from_numpy(triangles),
        torch.from_numpy(np.concatenate([source.weights, arm_weights])),
        (rotation, torch.from_numpy(origin)),
        skeleton,
        tips,
    )


def _rest_rotations(vertices: Floats, weights: Floats, origin: Floats) -> tuple[Tensor, Tensor]:
    """Bone frames at rest [N, 3, 3] and lengths of the fingertips [5]: y along the bone, z in the plane of its bend."""
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(BONES), 1, 1)
    tips = torch.zeros(5, dtype=torch.float64)
    for digit, base in enumerate(DIGIT_BASES):
        end = vertices[weights[:, base + 2] > 0.5] - origin[base + 2]
        last = end.mean(0) / np.linalg.norm(end.mean(0))
        tips[digit] = float((end @ last).max())
        along = [origin[base + 1] - origin[base], origin[base + 2] - origin[base + 1], last]
        along = [v / np.linalg.norm(v) for v in along]
        axis = np.cross(along[0], along[1]) + np.cross(along[1], along[2])
        if np.linalg.norm(axis) < _CLEAR_BEND:
            # straight: a finger bends out of the palm, a thumb half across it
            out = np.array([0.0, 0.0, 1.0]) if digit else np.array([-0.62, 0.25, 0.74])
            axis = np.cross(along[0], out)
        for k in range(3):
            palmar = np.cross(axis, along[k])
            rotation[base + k] = frame(torch.from_numpy(along[k]), torch.from_numpy(palmar))
    return rotation, tips


def _zero(rotation: Tensor, origin: Floats) -> Skeleton:
    """The skeleton with straight fingers in the palm's plane; the thumb's base stays as it rests."""
    zero, place = rotation.clone(), torch.from_numpy(origin.copy())
    for digit, base in enumerate(DIGIT_BASES):
        along = rotation[base, :, 1]
        if digit:
            flat = along * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
            zero[base] = frame(flat, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        for k in (1, 2):
            zero[base + k] = zero[base]
            length = float(np.linalg.norm(origin[base + k] - origin[base + k - 1]))
            place[base + k] = place[base + k - 1] + length * zero[base, :, 1]
    return relative(zero, place)


def _forearm(vertices: Floats, sides: int = 24) -> tuple[Floats, Whole, Floats]:
    """A closed tube from inside the wrist downwards: vertices, triangles [*, 3] and weights [*, N]."""
    near = vertices[(vertices[:, 1] > -8) & (vertices[:, 1] < 20)]
    middle, half = (near.max(0) + near.min(0)) / 2, (near.max(0) - near.min(0)) / 2 * 0.93
    steps = np.array([14.0, 4.0, -8.0, -25.0, -50.0, -90.0, -_ARM_MM])
    grow = np.array([0.8, 0.94, 0.95, 0.97, 1.05, 1.2, 1.35])
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack([half[0] * np.cos(angle), np.zeros(sides), half[2] * np.sin(angle)], 1)
    points = ring * grow[:, None, None] + np.array([middle[0], 0.0, middle[2]])
    points[:, :, 1] = steps[:, None]
    caps = np.array([[middle[0], steps[0], middle[2]], [middle[0], steps[-1], middle[2]]])
    body = np.concatenate([points.reshape(-1, 3), caps])
    faces = []
    for row in range(len(steps) - 1):
        for k in range(sides):
            a, b = row * sides + k, row * sides + (k + 1) % sides
            faces += [[a, b, a + sides], [b, b + sides, a + sides]]
    top, bottom, last = len(body) - 2, len(body) - 1, (len(steps) - 1) * sides
    faces += [[top, (k + 1) % sides, k] for k in range(sides)]
    faces += [[bottom, last + k, last + (k + 1) % sides] for k in range(sides)]
    weights = np.zeros((len(body), len(BONES)))
    weights[:, 1] = np.clip((-body[:, 1] + 14.0) / 28.0, 0.0, 1.0)
    weights[:, 0] = 1.0 - weights[:, 1]
    return body, _oriented(body, np.array(faces, np.int64)), weights


def _oriented(vertices: Floats, triangles: Whole) -> Whole:
    """Triangles whose corners run clockwise when seen from outside, as the z-buffer wants them: negative volume."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    volume = float((a * np.cross(b, c)).sum())
    return triangles if volume < 0 else np.ascontiguousarray(triangles[:, ::-1])
