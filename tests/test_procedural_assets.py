"""Procedural assets: the contract of `EyeAssets`, anatomy, seeds, and that what is rendered from them is an eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.procedural_assets import procedural_assets
from simgan_core.simulators.procedural_noise import distance_to_curve, draw_hairs, grid_mm, value_noise
from simgan_core.simulators.procedural_shape import (
    SOURCE_SPREAD,
    EyeShape,
    control_vertices,
    shape_components,
    subdivision,
)

FIELDS = list(EyeShape.__dataclass_fields__)


@pytest.fixture(scope="module")
def source() -> EyeAssets:
    return procedural_assets(0, texture=128)


@pytest.fixture(scope="module")
def target() -> EyeAssets:
    return procedural_assets(0, "target", texture=128)


@pytest.mark.parametrize("variant", ["source", "target"])
def test_contract(variant: str, request: pytest.FixtureRequest) -> None:
    assets: EyeAssets = request.getfixturevalue(variant)
    control, fine = len(assets.mean), len(assets.subdivision)
    assert assets.name == {"source": "procedural", "target": "procedural-target"}[variant]
    assert assets.components.shape == (len(FIELDS), control, 3)
    assert assets.subdivision.shape == (fine, control)
    assert assets.triangles.dtype == torch.int64 and 0 <= assets.triangles.min() <= assets.triangles.max() == fine - 1
    assert assets.corner_uv.shape == (len(assets.triangles), 3, 2)
    assert assets.corner_uv.min() >= 0 and assets.corner_uv.max() <= 1
    assert assets.lid_loops.shape == (len(assets.lid_strength), 20)
    assert assets.lid_loops[0, 0] == assets.inner_corner and assets.lid_loops[0, 10] == assets.outer_corner
    people = len(assets.skin)
    assert people >= 8
    assert assets.skin.shape == assets.skin_look_down.shape == (people, 128, 128, 3)
    assert assets.displacement.shape == (people, 128, 128)
    assert assets.iris.shape == (len(assets.iris_probability), 128, 128, 3)
    assert assets.iris_probability.sum() == pytest.approx(1)
    for texture in (assets.skin, assets.skin_look_down, assets.displacement, assets.iris, assets.lashes.upper_alpha):
        assert texture.dtype == torch.uint8
    assert assets.environments.shape[1:] == (9, 3)
    floats = (assets.mean, assets.components, assets.subdivision, assets.corner_uv, assets.environments)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in floats)


def test_seeds_and_variants_decide(source: EyeAssets, target: EyeAssets) -> None:
    procedural_assets.cache_clear()
    again, other = procedural_assets(0, texture=128), procedural_assets(1, texture=128)
    for name in ("skin", "skin_look_down", "displacement", "iris", "environments", "mean", "components"):
        assert torch.equal(getattr(source, name), getattr(again, name)), name
    assert torch.equal(source.lashes.upper_alpha, again.lashes.upper_alpha)
    assert procedural_assets(1, texture=128) is other
    everybody = torch.cat((source.skin, other.skin, target.skin)).flatten(1)
    assert len(torch.unique(everybody, dim=0)) == len(everybody)
    assert not torch.equal(source.environments, target.environments)
    assert (source.mean - target.mean).abs().max() > 0.5


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="'source' or 'target' expected"):
        procedural_assets(0, "real")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 64"):
        procedural_assets(0, texture=32)


def test_subdivision_keeps_control_vertices_and_planes() -> None:
    matrix, triangles = subdivision()
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(matrix)))
    plain = control_vertices(EyeShape())
    flat = plain.copy()
    flat[:, 2] = 0.3 * flat[:, 0] - 0.1 * flat[:, 1] + 2.0
    fine = matrix @ flat
    assert fine[:, 2] == pytest.approx(0.3 * fine[:, 0] - 0.1 * fine[:, 1] + 2.0)
    apart = np.linalg.norm((matrix @ plain)[:, None] - plain[None, :180], axis=-1).min(axis=0)
    assert apart.max() < 1e-9  # the scheme interpolates: the inner margin stays where lids.py puts it
    assert set(triangles.ravel()) == set(range(len(matrix)))


def test_surface_faces_the_camera_and_lies_on_the_eyeball(source: EyeAssets) -> None:
    fine = source.subdivision @ source.mean
    a, b, c = fine[source.triangles].unbind(1)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    size = torch.linalg.cross(b - a, c - a).norm(dim=1)
    assert size[area > 0].sum() > 0.97 * size.sum()  # clockwise on the screen, as the rasteriser wants
    margin = source.mean[source.lid_loops[0]]
    middle = torch.cat((margin[4:9], margin[12:17]))
    assert middle.norm(dim=1).numpy() == pytest.approx(12.2, abs=1e-3)
    assert source.mean[:-1].norm(dim=1).min() > 11.9  # only the caruncle's end dips under the surface
    assert source.mean[-1].norm() < 12.0
    assert margin[0, 0] < -13 and margin[10, 0] > 11  # a left eye: the nose is on the image's left
    assert margin[5, 1] < -3 < 3 < margin[15, 1]  # upper lid above, lower lid below (y points down)


def test_measures_move_what_they_name() -> None:
    components = shape_components(EyeShape(), SOURCE_SPREAD)
    margin = components[:, :20]

    def of(name: str) -> np.ndarray:
        return margin[FIELDS.index(name)]

    upper, lower = slice(3, 9), slice(12, 18)
    assert of("upper_opening")[upper, 1].max() < -0.3 and np.abs(of("upper_opening")[lower]).max() < 1e-9
    assert of("lower_opening")[lower, 1].min() > 0.1 and np.abs(of("lower_opening")[upper]).max() < 1e-9
    assert of("width")[10, 0] - of("width")[0, 0] == pytest.approx(SOURCE_SPREAD.width)
    assert of("tilt_deg")[10, 1] < 0 < of("tilt_deg")[0, 1]
    assert np.abs(of("brow_height")).max() < 1e-9  # far from the lids
    crease = components[FIELDS.index("crease"), 60:80]
    assert crease[upper, 1].max() < -0.3


def test_textures_show_skin_and_eyeballs(source: EyeAssets) -> None:
    light = source.skin.float().mean(dim=(1, 2))
    assert light[0].mean() > light[-1].mean() + 60  # from light to dark people
    assert (light[:, 0] > light[:, 1]).all() and (light[:, 1] > light[:, 2]).all()  # red, then green, then blue
    assert (source.displacement.float().mean(dim=(1, 2)) - 128).abs().max() < 3
    x, y = grid_mm(128, 1 / source.eyeball.texture_per_mm)
    radius = torch.from_numpy(np.hypot(x, y))
    iris = source.iris.float().mean(-1)
    pupil, stroma, white = radius < 2.2, (radius > 3) & (radius < 5), (radius > 6.2) & (radius < 8)
    assert iris[:, pupil].max() < 12
    assert (iris[:, stroma].mean(1) > 15).all()
    assert (iris[:, white].mean(1) > iris[:, stroma].mean(1) + 40).all()


def test_crease_fades_when_the_eye_looks_down(source: EyeAssets) -> None:
    change = source.skin_look_down.float().mean(-1) - source.skin.float().mean(-1)
    x, y = grid_mm(128, 76.0)
    above = torch.from_numpy((np.abs(x) < 8) & (y < -6) & (y > -12))
    away = torch.from_numpy((y > 14) | (y < -25))
    assert (change[:, above].amax(1) > 5).all()
    assert change[:, away].abs().max() == 0


def test_textures_look_alike_at_every_resolution() -> None:
    coarse, fine = procedural_assets(0, texture=128), procedural_assets(0, texture=256)
    reduced = torch.nn.functional.avg_pool2d(fine.skin[:3].float().permute(0, 3, 1, 2), 2)
    for a, b in zip(reduced, coarse.skin[:3].float().permute(0, 3, 1, 2), strict=True):
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.85


def test_lash_roots_are_at_the_bottom(source: EyeAssets) -> None:
    for strips in (source.lashes.upper_alpha, source.lashes.lower_alpha):
        rows = strips.float().mean(dim=2)
        assert (rows[:, -16:].mean(1) > 2 * rows[:, :16].mean(1)).all()
    assert source.lashes.upper_alpha.float().mean() > 1.3 * source.lashes.lower_alpha.float().mean()


@pytest.mark.parametrize("variant", ["source", "target"])
def test_renders_are_eyes(variant: str, request: pytest.FixtureRequest) -> None:
    """At the labelled pupil there is a dark disc, lighter sclera inside the lids, and no hole in the skin."""
    assets: EyeAssets = request.getfixturevalue(variant)
    simulator = EyeSimulator(assets)
    eyes = simulator.render(simulator.sample(5, range(24)))
    grey = eyes.image[:, 0]
    v, u = torch.meshgrid(torch.arange(36) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    pupil, lids = eyes.labels.pupil, eyes.labels.lid_landmarks
    apart = torch.hypot(u - pupil[:, 0, None, None], v - pupil[:, 1, None, None])
    opening = (v > lids[:, 3:9, 1].amin(1)[:, None, None]) & (v < lids[:, 12:18, 1].amax(1)[:, None, None])
    open_eyes = lids[:, 12:18, 1].amax(1) - lids[:, 3:9, 1].amin(1) > 9
    assert open_eyes.sum() >= 8
    for image, distance, inside in zip(grey[open_eyes], apart[open_eyes], opening[open_eyes], strict=True):
        dark = image[(distance < 4) & inside].mean()
        around = image[(distance > 11) & (distance < 15) & inside].mean()
        assert dark < 0.8 * around
    border = torch.cat((grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]), dim=1)
    assert (border > 0.03).float().mean() > 0.99


def test_noise_is_seeded_smooth_and_standard() -> None:
    first, again = (value_noise(np.random.default_rng(3), 64, 76.0, 5.0) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.mean() == pytest.approx(0, abs=1e-9) and first.std() == pytest.approx(1)
    assert np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1] > 0.9
    assert value_noise(np.random.default_rng(3), 64, 76.0, 0.3).std() == pytest.approx(1)  # cells below a texel


def test_distance_and_hairs() -> None:
    x, y = grid_mm(64, 64.0)
    line = np.array([[-10.0, 0.0], [10.0, 0.0]])
    distance, along = distance_to_curve(line, x, y, reach_mm=5.0)
    inside = (np.abs(x) < 9) & (np.abs(y) < 4)
    assert distance[inside] == pytest.approx(np.abs(y[inside]), abs=0.01)
    assert along[inside] == pytest.approx((x[inside] + 10) / 20, abs=0.01)
    assert np.isinf(distance[np.abs(y) > 6]).all()
    hair = draw_hairs(line[:1], line[1:], np.zeros(1), 64, 64.0, np.full(1, 2.0))
    assert hair[np.abs(y) > 3].max() == 0
    left, right = hair[:, x[0] < -5].sum(), hair[:, x[0] > 5].sum()
    assert left > 1.3 * right  # thinner towards the tip


def test_a_pupil_is_as_large_as_its_parameter(source: EyeAssets) -> None:
    """The radius of the painted pupil is where its edge is half way: renders stretch the iris from there."""
    shape = source.eyeball
    iris = source.iris[source.iris.float().mean((1, 2, 3)).argmax()].float().mean(-1)  # of the lightest colour
    side = iris.shape[0]
    place = (torch.arange(side) + 0.5) / side - 0.5
    radius = torch.hypot(place[:, None], place[None, :]) / shape.texture_per_mm
    rings = [float(iris[(radius - r).abs() < 0.12].mean()) for r in np.arange(0.3, 3.6, 0.1)]
    half = (rings[0] + max(rings)) / 2
    edge = 0.3 + 0.1 * next(k for k, level in enumerate(rings) if level > half)
    assert edge == pytest.approx(shape.pupil_radius_mm, abs=0.15)
