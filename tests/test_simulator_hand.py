"""The hand simulator: labels against geometry, limits, independence of the batch, mirrored hands, files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from simgan_core.cli import app
from simgan_core.datasets.store import Store
from simgan_core.hand_crop import (
    JOINTS_14,
    JOINTS_36,
    NYU_14_OF_36,
    crop_frame,
    cube_about,
    cube_box,
    decode_depth,
    encode_depth,
    from_crop_pixels,
    nyu_21,
    to_crop_pixels,
    uvd_to_xyz,
    xyz_to_uvd,
)
from simgan_core.simulators import hand_simulate
from simgan_core.simulators.hand import HandSimulator, PosedHand, Skin
from simgan_core.simulators.hand_assets import HandAssets
from simgan_core.simulators.hand_ranges import FACING, HandRanges, PosePrior, sample_hands, target_ranges
from simgan_core.simulators.hand_simulate import hand_labels, load_hand_assets, simulate_hands
from simgan_core.simulators.hand_skeleton import ANGLES, limits, turn
from simgan_core.simulators.procedural_hand import HandBuild, procedural_hand
from simgan_core.simulators.raster import rasterise, rasterise_depth

ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
MESHES = [ROOT / "hand_mesh" / name for name in ("spherehand_right.npz", "webxr_generic_right.glb")]


@pytest.fixture(scope="module")
def assets() -> HandAssets:
    return procedural_hand(HandBuild(cell=5.0))


@pytest.fixture(scope="module")
def simulator(assets: HandAssets) -> HandSimulator:
    return HandSimulator(assets, size=(96, 96), views=3)


def test_camera_and_crop_maps_are_inverse() -> None:
    uvd = torch.tensor([[[100.0, 300.0, 700.0], [400.0, 200.0, 812.0]]])
    assert torch.allclose(xyz_to_uvd(uvd_to_xyz(uvd)), uvd, atol=1e-3)
    assert uvd_to_xyz(torch.tensor([320.0 + 588.03, 240.0, 500.0])).tolist() == pytest.approx([500.0, 0.0, 500.0])
    cube = cube_about(uvd)
    crop = to_crop_pixels(uvd, cube, (64, 96))
    assert torch.allclose(from_crop_pixels(crop, cube, (64, 96)), uvd, atol=1e-3)
    assert torch.allclose(crop[..., :2].mean(1), torch.tensor([[48.0, 32.0]]), atol=8)


def test_coding_keeps_depth_within_half_a_step_and_background() -> None:
    cube = torch.tensor([[320.0, 240.0, 750.0, 300.0]])
    depth = torch.linspace(601, 899, 400).view(1, 20, 20)
    depth[0, 0, 0] = 0
    levels = encode_depth(depth, cube)
    back = decode_depth(levels, cube)
    assert levels[0, 0, 0, 0] == 0 and back[0, 0, 0] == 0
    assert (back - depth).abs().max() <= 300 / 254 / 2 + 1e-3
    assert levels[0, 0, 0, 1] > levels[0, 0, -1, -1] > 0  # nearer is larger


def test_cropping_a_frame_agrees_with_rendering_the_crop(simulator: HandSimulator) -> None:
    batch = simulator.batch(3, [0])
    whole = torch.tensor([[0.0, 0.0, 640.0, 480.0]])
    frame = simulator.depth(simulator.pose(batch.parameters), whole, (480, 640))
    crop = crop_frame(frame, batch.labels.cube, (96, 96))
    both = (crop > 0) & (batch.depth > 0)
    assert ((crop > 0) == (batch.depth > 0)).float().mean() > 0.985
    assert (crop - batch.depth)[both].abs().median() < 1.5
    assert (cube_box(batch.labels.cube)[:, 2] > 0).all()


def test_depth_only_raster_equals_the_full_one() -> None:
    torch.manual_seed(0)
    screen, triangles = torch.rand(2, 40, 3) * 30, torch.randint(0, 40, (60, 3))
    fragments = rasterise(screen, triangles, 32, 32)
    depth = rasterise_depth(screen, triangles, 32, 32).flatten()
    assert torch.equal(depth.isfinite().nonzero()[:, 0], fragments.pixel)
    assert torch.allclose(depth[fragments.pixel], fragments.depth, atol=1e-4)


def test_images_and_labels_do_not_depend_on_the_batch(simulator: HandSimulator) -> None:
    together, alone = simulator.batch(7, range(9)), simulator.batch(7, [5])
    assert torch.equal(together.depth[5], alone.depth[0])
    assert torch.equal(together.labels.uvd[5], alone.labels.uvd[0])
    assert not torch.equal(together.depth[4], alone.depth[0])


def test_views_turn_one_pose(assets: HandAssets) -> None:
    three = HandSimulator(assets, size=(32, 32), views=3).batch(1, range(6)).labels
    one = HandSimulator(assets, size=(32, 32), views=1).batch(1, range(2)).labels
    assert three.view.tolist() == [0, 1, 2, 0, 1, 2] and three.pose.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(three.xyz[[0, 3]], one.xyz)
    shape = torch.cdist(three.xyz, three.xyz)  # one rigid hand seen from three sides
    assert torch.allclose(shape[0], shape[1], atol=0.01) and torch.allclose(shape[0], shape[2], atol=0.01)
    assert not torch.allclose(three.xyz[0], three.xyz[1], atol=5)


def test_joints_lie_inside_the_hand(simulator: HandSimulator) -> None:
    """Where a joint is not hidden, the surface before it is nearer than the joint by at most a hand's thickness."""
    batch = simulator.batch(11, range(90))
    uvd = batch.labels.uvd
    u, v = uvd[..., 0].floor().long(), uvd[..., 1].floor().long()
    assert (uvd[..., :2] > 0).all() and (uvd[..., :2] < 96).all()
    surface = batch.depth[torch.arange(90)[:, None], v, u]
    assert (surface > 0).float().mean() > 0.985  # joints project onto the mask
    inside = (uvd[..., 2] - surface)[surface > 0]
    assert (inside > -1.5).float().mean() > 0.98  # never in front of the skin
    thick = torch.tensor([9.0 if "tip" in name else 26.0 for name in JOINTS_14]).expand_as(surface)[surface > 0]
    assert (inside < thick * 1.4).float().mean() > 0.7  # the others are hidden by another part
    assert 2.0 < inside.median() < 20.0


def test_bone_lengths_are_constant_over_poses_and_limits_hold(assets: HandAssets) -> None:
    drawn = sample_hands(HandRanges(), 0, range(400))
    low, high = limits().unbind(1)
    assert (drawn.angles >= low - 1e-6).all() and (drawn.angles <= high + 1e-6).all()
    assert drawn.angles.std(0).min() > 0.03  # every angle moves
    same = dataclasses.replace(drawn, scale=torch.ones_like(drawn.scale))
    joints = HandSimulator(assets, size=(16, 16)).labels(same).joints_21
    digit = joints[:, 1:].view(400, 5, 4, 3)
    length = (digit[:, :, 1:] - digit[:, :, :-1]).norm(dim=-1)
    assert length.std(0).max() < 0.01 and length.min() > 15
    varied = HandSimulator(assets, size=(16, 16)).labels(drawn).joints_21[:, [5, 6]]
    assert (varied[:, 0] - varied[:, 1]).norm(dim=-1).std() > 2  # people differ


def test_flexion_closes_the_hand_towards_the_palm(simulator: HandSimulator) -> None:
    drawn = simulator.sample(0, range(2))
    angles = torch.zeros_like(drawn.angles)
    for name in ANGLES:
        if name.startswith("middle") and "flex" in name:
            angles[1, ANGLES.index(name)] = 1.2
    posed = dataclasses.replace(
        drawn, angles=angles, rotation=FACING.expand(2, 3, 3).clone(), scale=torch.ones_like(drawn.scale)
    )
    labels = simulator.labels(posed)
    tip, palm = JOINTS_14.index("middle_tip"), JOINTS_14.index("palm")
    distance = (labels.xyz[:, tip] - labels.xyz[:, palm]).norm(dim=-1)
    assert distance[1] < 0.6 * distance[0]
    assert labels.xyz[1, tip, 2] < labels.xyz[1, palm, 2] - 15  # the palm faces the camera: a curled tip is nearer
    picture = simulator.render(posed)
    u, v = (int(x) for x in picture.labels.uvd[1, tip, :2])
    covering = float(picture.depth[1, v, u])
    assert covering < float(picture.labels.uvd[1, palm, 2]) - 10  # z-order: the finger hides the palm


def test_thumb_is_on_the_right_of_a_right_palm_and_left_hands_are_mirror_images(assets: HandAssets) -> None:
    right = HandSimulator(assets, HandRanges(left_share=0.0), size=(96, 96), views=1)
    left = HandSimulator(assets, HandRanges(left_share=1.0), size=(96, 96), views=1)
    drawn = right.sample(0, [0])
    facing = dataclasses.replace(drawn, rotation=FACING[None].clone(), angles=torch.zeros_like(drawn.angles))
    uvd = right.labels(facing).uvd[0]
    assert uvd[JOINTS_14.index("thumb_tip"), 0] > uvd[JOINTS_14.index("little_tip"), 0] + 20
    assert uvd[JOINTS_14.index("middle_tip"), 1] < uvd[JOINTS_14.index("palm"), 1] - 20  # fingers up
    a, b = right.batch(4, range(4)), left.batch(4, range(4))
    assert torch.equal(a.depth.flip(-1), b.depth)
    assert torch.allclose(a.labels.uvd[..., 0], 96 - b.labels.uvd[..., 0])
    assert torch.allclose(xyz_to_uvd(b.labels.xyz), b.labels.frame_uvd, atol=1e-2)
    assert torch.allclose(to_crop_pixels(b.labels.frame_uvd, b.labels.cube, (96, 96)), b.labels.uvd, atol=1e-2)


def test_joint_sets_agree(simulator: HandSimulator) -> None:
    labels = simulator.batch(2, range(3)).labels
    assert torch.equal(labels.joints_36[:, NYU_14_OF_36], labels.xyz)
    assert JOINTS_36[0] == "F1_KNU3_A" and len(JOINTS_36) == 36
    tips = labels.joints_21[:, [20, 16, 12, 8, 4]] - labels.xyz[:, [0, 2, 4, 6, 8]]
    assert (tips.norm(dim=-1) < 9).all()
    apart = (nyu_21(labels.joints_36) - labels.joints_21).norm(dim=-1)
    assert apart.max() < 16 and apart.mean() < 7, "every one of NYU's points stands for the joint next to it"
    others = (nyu_21(labels.joints_36)[:, :, None] - labels.joints_21[:, None]).norm(dim=-1)
    nearest = others.argmin(-1) == torch.arange(21)
    assert nearest.float().mean() > 0.9


def test_bind_pose_gives_the_mesh_back(assets: HandAssets) -> None:
    skinned = Skin(assets)(PosedHand(assets.rest_rotation[None], assets.rest_origin[None]))[0]
    assert (skinned - assets.vertices).abs().max() < 1e-3
    assert torch.allclose(assets.weight.sum(1), torch.ones(len(assets.weight)), atol=1e-5)


def _edges(triangles: Tensor) -> Tensor:
    return torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])


def test_procedural_surface_is_closed_and_seen_from_outside(assets: HandAssets) -> None:
    directed = {tuple(edge) for edge in _edges(assets.triangles).tolist()}
    assert all((b, a) in directed for a, b in directed)
    corner = assets.vertices[assets.triangles].double()
    volume = (corner[:, 0] * torch.linalg.cross(corner[:, 1], corner[:, 2])).sum() / 6
    assert -1.2e6 < volume < -3e5  # clockwise from outside; hand and forearm are some 0.6 litres


def test_posing_does_not_tear_the_skin(simulator: HandSimulator) -> None:
    drawn = simulator.sample(9, range(30))
    vertices = simulator._skin(simulator.pose(drawn))
    edges = _edges(simulator.assets.triangles)
    length = (vertices[:, edges[:, 0]] - vertices[:, edges[:, 1]]).norm(dim=-1)
    rest = simulator.assets.vertices
    before = (rest[edges[:, 0]] - rest[edges[:, 1]]).norm(dim=-1)
    assert length.max() < 32 and (length > 3 * before.clamp(min=2)).float().mean() < 0.01


@pytest.mark.parametrize("path", MESHES, ids=lambda path: path.suffix)
def test_mesh_files(path: Path) -> None:
    if not path.is_file():
        pytest.skip(f"{path} is absent: name a data root with SIMGAN_DATA_ROOT")
    mesh = load_hand_assets(path)
    skinned = Skin(mesh)(PosedHand(mesh.rest_rotation[None], mesh.rest_origin[None]))[0]
    assert (skinned - mesh.vertices).abs().max() < 1e-3
    assert torch.allclose(torch.linalg.det(mesh.rest_rotation), torch.ones(17), atol=1e-5)
    assert 70 < mesh.length[0] < 130 and (mesh.length[2:] > 15).all() and (mesh.length[2:] < 70).all()
    simulator = HandSimulator(mesh, size=(96, 96), views=1)
    batch = simulator.batch(0, range(20))
    uvd = batch.labels.uvd
    surface = batch.depth[torch.arange(20)[:, None], uvd[..., 1].long(), uvd[..., 0].long()]
    assert (surface > 0).float().mean() > 0.95
    assert ((uvd[..., 2] - surface)[surface > 0] > -3).float().mean() > 0.95


def test_unusable_mesh_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spherehand_right"):
        load_hand_assets(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="skin_weights"):
        load_hand_assets(tmp_path)


def test_a_prior_is_drawn_from_and_saved(assets: HandAssets, tmp_path: Path) -> None:
    angles = np.zeros((1, len(ANGLES)), np.float32)
    angles[0, ANGLES.index("index_pip_flex")] = 1.0
    rotation = (turn(2, torch.tensor(0.5)) @ FACING)[None].numpy()
    prior = PosePrior(angles, rotation, np.array([[10.0, 20.0, 700.0]], np.float32), source="test")
    prior.save(tmp_path / "prior.npz")
    again = PosePrior.load(tmp_path / "prior.npz")
    assert again.source == "test" and np.array_equal(again.angles, angles)
    drawn = sample_hands(HandRanges().with_prior(again), 0, range(60))
    assert drawn.angles[:, ANGLES.index("index_pip_flex")].mean() == pytest.approx(1.0, abs=0.05)
    assert torch.allclose(drawn.centre, torch.tensor([10.0, 20.0, 700.0]).expand(60, 3))
    assert (drawn.rotation.mean(0) - torch.from_numpy(rotation[0])).abs().max() < 0.05
    with pytest.raises(ValueError, match="angles"):
        PosePrior(angles[:, :3], rotation, prior.centre)


def test_several_hands_take_turns(assets: HandAssets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_simulate, "BLOCK", 3)
    hands = (assets, hand_simulate.stand_in_assets())
    how: dict[str, Any] = {"size": (32, 32), "views": 2, "progress": False}
    mixed = simulate_hands(22, tmp_path / "mixed", assets=hands, **how)
    alone = [simulate_hands(22, tmp_path / hand.name, assets=hand, **how).images() for hand in hands]
    turns = np.arange(22) // 6 % 2
    assert np.array_equal(mixed.images(), np.where(turns[:, None, None, None] == 0, *alone))
    assert (alone[0] != alone[1]).any(axis=(1, 2, 3)).all(), "the two hands look different in every image"
    with pytest.raises(ValueError, match="0 hands"):
        simulate_hands(4, tmp_path / "none", assets=(), **how)


@pytest.mark.skipif(not all(path.is_file() for path in MESHES), reason="needs the meshes: name SIMGAN_DATA_ROOT")
def test_a_folder_of_meshes_gives_all_of_them_and_the_procedural_hand() -> None:
    names = [hand.name for hand in hand_simulate.load_hands(MESHES[0].parent)]
    assert len(names) == 3 and names[-1] == "procedural" and len(set(names)) == 3
    assert [hand.name for hand in hand_simulate.load_hands()] == ["procedural"]


def test_the_command_takes_several_hands(tmp_path: Path) -> None:
    """A mesh file and the procedural hand show different blocks of one store."""
    if not MESHES[0].is_file():
        pytest.skip(f"{MESHES[0]} is absent: name a data root with SIMGAN_DATA_ROOT")

    def rendered(*assets: str) -> Store:
        out = tmp_path / "-".join(Path(name).stem for name in assets)
        options = [word for name in assets for word in ("--assets", name)]
        command = ["simulate", "hands", "--count", "66", "--views", "1", "--size", "32", "--out", str(out), *options]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        return Store.open(out)

    mixed, alone = rendered(str(MESHES[0]), "procedural"), rendered("procedural")
    same = (mixed.images() == alone.images()).all(axis=(1, 2, 3))
    assert not same[:64].any() and same[64:].all()
    assert mixed.provenance["assets"].endswith(", procedural")


def test_the_command_names_an_absent_mesh(tmp_path: Path) -> None:
    command = ["simulate", "hands", "--count", "2", "--out", str(tmp_path / "x"), "--assets", str(tmp_path / "no.glb")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code != 0 and not (tmp_path / "x").exists()
    assert "no such file" in result.output + str(result.exception)


def test_store_has_images_and_labels(assets: HandAssets, tmp_path: Path) -> None:
    store = simulate_hands(5, tmp_path / "a", assets=assets, size=(48, 48), progress=False)
    labels = hand_labels(store)
    assert store.images().shape == (5, 1, 48, 48) and labels["uvd"].shape == (5, 14, 3)
    assert labels["joints_21"].shape == (5, 21, 3) and labels["joints_36"].shape == (5, 36, 3)
    assert labels["cube"].shape == (5, 4) and labels["view"].tolist() == [0, 1, 2, 0, 1]
    for name, kept in (("joints_21", "uvd_21"), ("joints_36", "uvd_36")):
        joints, cube = (torch.from_numpy(labels[key].astype(np.float32)) for key in (name, "cube"))
        frame = from_crop_pixels(torch.from_numpy(labels[kept].astype(np.float32)), cube, (48, 48))
        assert torch.allclose(frame, xyz_to_uvd(joints), atol=0.02), name
        assert ((labels[kept][..., :2] > -8) & (labels[kept][..., :2] < 56)).all(), "pixels of the crop"
    assert np.allclose(labels["uvd_36"][:, list(NYU_14_OF_36)], labels["uvd"], atol=0.02)
    longer = simulate_hands(12, tmp_path / "b", assets=assets, size=(48, 48), progress=False)
    assert np.array_equal(longer.images(slice(0, 5)), store.images())
    target = HandSimulator(assets, target_ranges(), size=(48, 48)).batch(0, [0])
    assert not np.array_equal(target.crop.numpy(), store.images([0]))
