"""The procedural eye region as a surface: rings around the lid opening, a few anatomical measures, no files.

Shape legend: R rings, 20 columns, V control vertices, W fine vertices, F triangles, K measures.

Eye frame (mm): x right in the image (towards the temple), y down, z away from the camera, origin at the centre of the
eyeball. Column 0 holds the inner corner, 1 to 9 the upper lid, 10 the outer corner, 11 to 19 the lower lid back to the
inner corner. Ring 0 is the inner lid margin on the eyeball, ring 1 the outer margin with the lashes, ring 3 the crease,
ring 4 the fold above it, the last ring the border. A small patch between the lids at the inner corner is the caruncle.

The control surface is linear in nothing, but small: each measure's derivative becomes one component of `EyeAssets`, and
the fine mesh is one step of the interpolating four-point scheme (Dyn, Gregory and Levin 1987), a dense matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COLUMNS = 20
OUTER_COLUMN = 10
RINGS = 9
LID_RINGS = 6  # rings 0 to 5 follow the gaze
PATTERN_HALF_MM = 38.0  # half of the side of the skin texture
_CARUNCLE = 3  # control vertices of its patch, after those of the rings
_BURIED_MM = 11.2  # distance from the eyeball's centre, less than its radius
_ALONG = (0.0, 0.05, 0.105, 0.18, 0.28, 0.39, 0.51, 0.64, 0.77, 0.89, 1.0)  # columns 0 to 10, share of the width
_MARGIN_TEXTURE_MM = 1.5  # depth of the lid margin in the texture, where it is seen edge on in space


@dataclass(frozen=True)
class EyeShape:
    """Measures of an eye region in mm (angles in degrees); each field also has a spread in `ShapeSpread`."""

    width: float = 28.2  # between the corners
    upper_opening: float = 4.9  # lid margin above the line of the corners
    lower_opening: float = 4.3
    tilt_deg: float = 4.0  # outer corner higher than the inner one
    upper_peak: float = 0.47  # where the upper lid is highest, share of the width
    lower_peak: float = 0.57
    crease: float = 4.6  # visible lid between margin and crease
    hood: float = 0.7  # how far the fold overhangs the crease
    fold_bulge: float = 1.0  # how far the fold comes forward
    brow_height: float = 21.0
    brow_forward: float = 19.0  # of the ridge, from the centre of the eyeball
    nose_forward: float = 22.0
    cheek_forward: float = 14.0
    bag: float = 0.5  # bulge of the lower lid
    socket: float = 0.0  # skin forward of its mean place, all of it: a deep-set eye has more
    corner_depth: float = 4.6  # outer corner in front of the eyeball's centre
    lid_thickness: float = 1.45


ShapeSpread = EyeShape  # the same fields, read as standard deviations
SOURCE_SPREAD = ShapeSpread(
    width=0.9, upper_opening=0.65, lower_opening=0.5, tilt_deg=2.2, upper_peak=0.03, lower_peak=0.03, crease=1.1,
    hood=0.5, fold_bulge=0.5, brow_height=1.8, brow_forward=1.3, nose_forward=1.6, cheek_forward=1.3, bag=0.4,
    socket=0.4, corner_depth=0.5, lid_thickness=0.2,
)  # fmt: skip


def lid_curves(shape: EyeShape, along: Array) -> tuple[Array, Array]:
    """Frontal outline of the opening: `along` [n] from the inner (0) to the outer corner (1) -> upper, lower [n, 2]."""
    slope = np.tan(np.radians(shape.tilt_deg))
    inner, outer = _corners(shape)
    x = inner + (outer - inner) * along
    base = 0.5 - slope * (x - 0.5 * (inner + outer))
    upper = np.sin(np.pi * along ** (np.log(0.5) / np.log(shape.upper_peak))) ** 0.85
    lower = np.sin(np.pi * along ** (np.log(0.5) / np.log(shape.lower_peak))) ** 1.0
    return (
        np.stack((x, base - shape.upper_opening * upper), axis=-1),
        np.stack((x, base + shape.lower_opening * lower), axis=-1),
    )


def _corners(shape: EyeShape) -> tuple[float, float]:
    """x of the inner and outer corner: the opening reaches further towards the nose than towards the temple."""
    return -0.545 * shape.width, 0.455 * shape.width


def _margin(shape: EyeShape) -> Array:
    """Frontal positions [20, 2] of the lid margin's columns, closer together near the corners."""
    upper, lower = lid_curves(shape, np.array(_ALONG))
    return np.concatenate((upper, lower[-2:0:-1]))


def _middleness() -> tuple[Array, Array]:
    """Per column: 0 at the corners and 1 at mid-lid; and 1 on the upper lid, -1 on the lower one, smooth between."""
    angle = 2.0 * np.pi * np.arange(COLUMNS) / COLUMNS
    return np.sin(angle) ** 2, np.sin(angle)


def _rays() -> Array:
    """Border points [20, 2] to which the columns run: an ellipse over brow, temple, cheek and side of the nose."""
    angle = np.pi + 2.0 * np.pi * np.arange(COLUMNS) / COLUMNS
    return np.stack((1.0 + 34.5 * np.cos(angle), -1.0 + 36.0 * np.sin(angle)), axis=-1)


def _distances(shape: EyeShape, *, in_texture: bool) -> Array:
    """Frontal distance [R, 20] of each ring from the margin; in the texture the folded skin is laid out flat."""
    middle, up = _middleness()
    fold = 2.6 if in_texture else 0.9 - shape.hood
    crease = shape.crease
    above = np.array([0.0, 0.0, 0.45 * crease, crease, crease + fold, 0.65 * shape.brow_height, shape.brow_height])
    below = np.array([0.0, 0.0, 2.4, 5.2, 7.8, 11.5, 16.5])
    corner = np.array([0.0, 0.0, 1.3, 2.8, 4.4, 7.5, 11.5])
    weight = 0.5 + 0.5 * up
    lids = above[:, None] * weight + below[:, None] * (1.0 - weight)
    return lids * middle**0.5 + corner[:, None] * (1.0 - middle**0.5)


def _frontal(shape: EyeShape, *, in_texture: bool) -> Array:
    """Frontal positions [R, 20, 2] of all rings."""
    margin = _margin(shape)
    rays = _rays() - margin
    length = np.linalg.norm(rays, axis=-1)
    distance = _distances(shape, in_texture=in_texture)
    outward = np.concatenate((distance, [0.45 * distance[-1] + 0.55 * length, length]))
    positions = margin + (outward / length)[..., None] * rays
    if in_texture:
        centre = np.stack((margin[:, 0], 0.5 * (margin[:, 1] + margin[_opposite(), 1])), axis=-1)
        gap = np.linalg.norm(margin - centre, axis=-1, keepdims=True)
        positions[0] = margin + (centre - margin) * np.minimum(_MARGIN_TEXTURE_MM / np.maximum(gap, 1e-6), 0.5)
    return np.asarray(positions)


def _opposite() -> Indices:
    """Column across the opening: the lower lid's for the upper lid's and the reverse; corners are their own."""
    return -np.arange(COLUMNS) % COLUMNS


def _face_points(shape: EyeShape) -> tuple[Array, Array]:
    """Anchors of the face around the eye: frontal places [n, 2] and how far each stands forward [n], mm."""
    brow, ridge, nose, cheek = shape.brow_height, shape.brow_forward, shape.nose_forward, shape.cheek_forward
    rows = (
        (-31, -10, nose - 4), (-31, 4, nose + 3), (-31, 18, nose + 7), (-21, -9, 14.0), (-20, 3, 13.2), (-21, 16, 16.0),
        (-15.6, 1.5, 9.2), (15, -1, shape.corner_depth + 0.6), (20, 0, 1.5), (27, -2, -4.0), (35, -6, -9), (35, 14, -9),
        (-20, -brow, ridge + 0.5), (-3, -brow - 2, ridge), (14, -brow - 1, ridge - 6.0), (25, -brow + 6, ridge - 15),
        (-20, -36, ridge + 1), (0, -38, ridge + 1), (25, -36, ridge - 8), (0, -13.5, 14.0), (-10, -13, 12.6),
        (11, -12, 9.6), (0, 12, 12.3), (11, 11, 8.0), (-10, 12, 12.0), (0, 22, cheek), (18, 20, cheek - 6),
        (-14, 24, cheek + 3), (0, 36, cheek + 4), (22, 34, cheek - 5), (-20, 36, cheek + 9), (33, 28, cheek - 19),
    )  # fmt: skip
    points = np.array(rows, dtype=np.float64)
    return points[:, :2], points[:, 2] + shape.socket


def _lid_forward(frontal: Array, radius: float) -> Array:
    """How far a sphere about the eyeball stands forward at `frontal` [..., 2]; continued by its tangent at the edge."""
    squared = (frontal**2).sum(axis=-1)
    edge = 0.8 * radius**2
    beyond = np.maximum(squared - edge, 0.0)
    return np.asarray(np.sqrt(radius**2 - np.minimum(squared, edge)) - beyond / (2.0 * np.sqrt(radius**2 - edge)))


def _forward(shape: EyeShape, frontal: Array) -> Array:
    """How far rings 2 and up stand forward, [R, 20]: the lid on the eyeball, the face around it, crease and folds."""
    middle, up = _middleness()
    places, forward = _face_points(shape)
    face = RBFInterpolator(places, forward, kernel="thin_plate_spline", smoothing=0.05)
    around = face(frontal.reshape(-1, 2)).reshape(frontal.shape[:2])
    lid = _lid_forward(frontal, 12.05 + shape.lid_thickness)
    surface = 0.5 * (lid + around + np.sqrt((lid - around) ** 2 + 1.0))  # smooth maximum
    surface[2] = np.minimum(surface[2], lid[2] + 0.5 * (1.0 - middle) + 0.3)
    above = np.clip(up, 0.0, 1.0) * middle
    below = np.clip(-up, 0.0, 1.0) * middle
    surface[3] += -1.0 * above - 0.3 * below
    surface[4] += shape.fold_bulge * above + shape.bag * below
    surface[5] += 0.3 * shape.fold_bulge * above
    return np.asarray(surface)


def control_vertices(shape: EyeShape) -> Array:
    """Control vertices [R * 20 + 3, 3], mm in the eye frame; the last three are the caruncle's."""
    frontal = _frontal(shape, in_texture=False)
    forward = _forward(shape, frontal)
    vertices = np.concatenate((frontal, -forward[..., None]), axis=-1)
    along = (frontal[0, :, 0] - frontal[0, 0, 0]) / shape.width
    corner = (8.6 + shape.socket) * (1.0 - along) + (shape.corner_depth + shape.socket) * along
    radius = 12.2
    on_eyeball = np.sqrt(np.maximum(radius**2 - (frontal[0] ** 2).sum(axis=-1), 0.0))
    vertices[0, :, 2] = -np.maximum(on_eyeball, corner)
    middle = _middleness()[0][:, None] ** 0.25
    thickness = shape.lid_thickness * (0.35 + 0.65 * middle)
    outwards = vertices[0] / np.linalg.norm(vertices[0], axis=-1, keepdims=True)
    vertices[1] = vertices[0] + thickness * outwards
    # Lid skin rises from the outer margin, never from behind it.
    vertices[2, :, 2] = np.minimum(vertices[2, :, 2], vertices[1, :, 2] + 1.0)
    return np.concatenate((vertices.reshape(-1, 3), _caruncle(vertices[0])))


def _caruncle(margin: Array) -> Array:
    """Three vertices [3, 3] between the lids near the inner corner: the caruncle, the fold beside it, and its end.

    The end lies under the eyeball's surface, so that the patch meets the eye without a gap wherever it looks.
    """
    middle = 0.5 * (margin[1:4] + margin[[19, 18, 17]])
    middle += np.array([[0.3, 0.0, -0.3], [-0.3, 0.0, 0.6], [1.0, 0.0, 0.0]])
    depth = _BURIED_MM**2 - (middle[2, :2] ** 2).sum()
    middle[2, 2] = -np.sqrt(max(depth, 1.0))
    return middle


def pattern(shape: EyeShape) -> Array:
    """Places [R * 20 + 3, 2] of the control vertices in the skin texture, mm from its centre: the skin laid flat."""
    flat = _frontal(shape, in_texture=True)
    inside = 0.5 * (flat[0][1:4] + flat[0][[19, 18, 17]])
    return np.concatenate((flat.reshape(-1, 2), inside))


def shape_components(shape: EyeShape, spread: ShapeSpread) -> Array:
    """Change [K, V, 3] of the control vertices per standard deviation of each measure, by central differences."""
    result = []
    for field in fields(EyeShape):
        value, step = getattr(shape, field.name), getattr(spread, field.name)
        high = control_vertices(replace(shape, **{field.name: value + step}))
        low = control_vertices(replace(shape, **{field.name: value - step}))
        result.append(0.5 * (high - low))
    return np.stack(result)


def _four_point(count: int, *, closed: bool, corners: tuple[int, ...] = ()) -> Array:
    """One step of the four-point scheme [2 count or 2 count - 1, count]; at `corners` the curve may break."""
    segments = count if closed else count - 1
    matrix = np.zeros((count + segments, count))
    matrix[0 : 2 * count : 2] = np.eye(count)
    breaks = set(corners) if closed else {0, count - 1, *corners}
    for left in range(segments):
        right = (left + 1) % count
        row = matrix[2 * left + 1]
        if left in breaks and right in breaks:
            row[[left, right]] = 0.5
        elif left in breaks:  # the quadratic through the break and the next two
            row[[left, right, (right + 1) % count]] = 0.375, 0.75, -0.125
        elif right in breaks:
            row[[right, left, left - 1]] = 0.375, 0.75, -0.125
        else:
            row[[left - 1, left, right, (right + 1) % count]] = -0.0625, 0.5625, 0.5625, -0.0625
    return matrix


def subdivision() -> tuple[Array, Indices]:
    """Dense matrix [W, V] from control to fine vertices, and the fine triangles [F, 3], clockwise on the screen."""
    radial = _four_point(RINGS, closed=False, corners=(1,))
    sharp = _four_point(COLUMNS, closed=True, corners=(0, OUTER_COLUMN))
    smooth = _four_point(COLUMNS, closed=True)
    sharpness = np.array([1.0, 1.0, 1.0, 0.5] + [0.0] * (RINGS - 4))
    around = sharpness[:, None, None] * sharp + (1.0 - sharpness[:, None, None]) * smooth
    rows = np.einsum("fr,rac->farc", radial, around).reshape(-1, RINGS * COLUMNS)
    surface = np.pad(rows, ((0, 0), (0, _CARUNCLE)))
    fine_rings, fine_columns = radial.shape[0], sharp.shape[0]
    triangles = _grid_triangles(fine_rings, fine_columns)
    patch, patch_triangles = _caruncle_patch(surface[:fine_columns])
    both = np.concatenate((triangles, patch_triangles + len(surface)))
    return np.concatenate((surface, patch)), np.ascontiguousarray(both[:, ::-1])


def _grid_triangles(rings: int, columns: int) -> Indices:
    """Two triangles for each cell of a grid that is closed along its columns."""
    ring, column = np.meshgrid(np.arange(rings - 1), np.arange(columns), indexing="ij")
    a = ring * columns + column
    b = ring * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return np.stack((a, b, c, b, d, c), axis=-1).reshape(-1, 3).astype(np.int64)


def _caruncle_patch(margin: Array) -> tuple[Array, Indices]:
    """Vertices [35, V] and triangles of the patch between the lids from the inner corner to column 3."""
    columns, steps, sides = margin.shape[0], 2 * _CARUNCLE + 1, 5
    ridge = np.zeros((steps, margin.shape[1]))
    ridge[0] = margin[0]
    ridge[2::2] = np.eye(margin.shape[1])[-_CARUNCLE:]
    ridge[1::2] = 0.5 * (ridge[0:-1:2] + ridge[2::2])
    rows = []
    for step in range(steps):
        upper, lower = margin[step], margin[-step % columns]
        for t in np.linspace(0.0, 1.0, sides):  # quadratic through upper margin, ridge and lower margin
            weights = ((1 - t) * (1 - 2 * t), 4 * t * (1 - t), t * (2 * t - 1))
            rows.append(weights[0] * upper + weights[1] * ridge[step] + weights[2] * lower)
    row, side = np.meshgrid(np.arange(steps - 1), np.arange(sides - 1), indexing="ij")
    a = row * sides + side
    b, c, d = a + 1, a + sides, a + sides + 1
    cells = np.stack((a, b, c, b, d, c), axis=-1).reshape(-1, 3).astype(np.int64)
    return np.stack(rows), cells
