"""Inverse kinematics: known poses are found again; NYU's joints are fitted to a few mm; splits do not touch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from simgan_core.cli import app
from simgan_core.datasets.store import Store
from simgan_core.hand_crop import xyz_to_uvd
from simgan_core.simulators import hand_fit
from simgan_core.simulators.hand import HandSimulator
from simgan_core.simulators.hand_fit import (
    HandFit,
    _double,
    _own_shape,
    evaluation_rows,
    fit_hands,
    nyu_people,
    prior_rows,
    solve,
)
from simgan_core.simulators.hand_ranges import HandRanges, PosePrior
from simgan_core.simulators.hand_skeleton import limits
from simgan_core.simulators.procedural_hand import HandBuild, procedural_hand

NYU = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data")) / "nyu"
JOINTS = NYU / "test_groundtruth_uvd.npz"


def test_known_poses_are_recovered() -> None:
    assets = procedural_hand(HandBuild(cell=8.0))
    simulator = HandSimulator(assets, HandRanges(wrist_normal_deg=(0.0, 0.0)), size=(16, 16), views=1)
    drawn = simulator.sample(0, range(12))
    drawn.scale[:] = 1.0
    xyz = simulator.labels(drawn).xyz.double()
    model = _double(assets)
    shape = _own_shape(model)
    pose = solve(model, shape, xyz)
    error = (pose.points(model, shape.scale.expand(12, 17, 3), shape.markers) - xyz).norm(dim=-1)
    assert error.median() < 1.0 and error.mean() < 2.5
    low, high = limits().double().unbind(1)
    assert (pose.angles >= low).all() and (pose.angles <= high).all()
    turned = (pose.rotation - drawn.rotation.double()).abs().amax((1, 2))
    assert turned.median() < 0.1


def test_prior_and_evaluation_frames_are_disjoint() -> None:
    prior, evaluation = prior_rows(), evaluation_rows()
    assert not set(prior) & set(evaluation)
    assert np.abs(prior[:, None] - evaluation[None, ::37]).min() >= 40
    assert min(len(prior), len(evaluation)) > 3000 and max(prior.max(), evaluation.max()) < 8252
    with pytest.raises(ValueError, match="gap"):
        prior_rows(100, block=10, gap=5)


def test_people_of_the_test_set_have_palms_of_two_sizes() -> None:
    if not JOINTS.is_file():
        pytest.skip(f"{JOINTS} is absent: name a data root with SIMGAN_DATA_ROOT")
    with np.load(JOINTS) as archive:
        uvd = torch.from_numpy(archive["uvd"].astype(np.float64))
    from simgan_core.hand_crop import uvd_to_xyz

    xyz = uvd_to_xyz(uvd)
    assert torch.allclose(xyz_to_uvd(xyz), uvd)
    palm = (xyz[:, 13] - xyz[:, 11]).norm(dim=-1).numpy()
    person = nyu_people(np.arange(8252))
    assert palm[person == 0].min() > 80 and palm[person == 1].max() < 74


def test_unusable_joints_are_refused() -> None:
    assets = procedural_hand(HandBuild(cell=8.0))
    with pytest.raises(ValueError, match="14, 3"):
        fit_hands(assets, np.zeros((2, 13, 3)))
    with pytest.raises(ValueError, match="finite"):
        fit_hands(assets, np.full((2, 14, 3), np.nan))


def test_the_summary_counts_joints_below_10_mm() -> None:
    error = torch.tensor([[1.0, 2.0, 30.0, 9.9], [10.0, 3.0, 4.0, 5.0]], dtype=torch.float64)
    empty = torch.zeros(2, 0)
    summary = HandFit(empty, empty, empty, empty, error, ()).summary()
    assert summary["below_10_mm_percent"] == 75 and summary["frames"] == 2
    assert summary["mean_mm"] == pytest.approx(error.mean().item())


def test_recorded_files_leave_every_second_block_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[np.ndarray, object]] = []

    def spy(_: object, uvd: np.ndarray, people: object = None) -> HandFit:
        seen.append((uvd[:, 0, 0].astype(int), people))
        empty = torch.zeros(len(uvd), 0)
        return HandFit(empty, empty, empty, empty, torch.zeros(len(uvd), 14), ())

    monkeypatch.setattr(hand_fit, "fit_hands", spy)
    for count in (8252, 1000):
        uvd = np.tile(np.arange(count, dtype=np.float32)[:, None, None], (1, 14, 3))
        np.savez(tmp_path / f"{count}.npz", uvd=uvd)
    assets = procedural_hand(HandBuild(cell=8.0))
    fitted = hand_fit.fit_recorded(tmp_path / "8252.npz", assets, frames=50)
    rows, people = seen[0]
    assert len(rows) == 50 and set(rows) <= set(prior_rows()) and not set(rows) & set(evaluation_rows())
    assert np.array_equal(rows, fitted.rows) and np.array_equal(people, nyu_people(rows))
    assert fitted.source == "8252.npz: 50 frames of every second block of 400 (hand_fit.prior_rows)"
    hand_fit.fit_recorded(tmp_path / "1000.npz", assets, frames=2000, all_blocks=True)
    assert seen[1][0].tolist() == list(range(1000)) and seen[1][1] is None, "other files are of one person"
    np.savez(tmp_path / "few.npz", uvd=np.ones((20, 14, 3)))
    with pytest.raises(ValueError, match="--all-blocks"):
        hand_fit.fit_recorded(tmp_path / "few.npz", assets, frames=5)
    np.savez(tmp_path / "other.npz", uvd=np.ones((20, 21, 3)))
    with pytest.raises(ValueError, match=r"other.npz: uvd \(20, 21, 3\)"):
        hand_fit.fit_recorded(tmp_path / "other.npz", assets, frames=5)


def test_a_prior_from_recorded_joints_renders_these_poses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From joints in a file to hands in those poses, by the two commands."""
    monkeypatch.setattr(hand_fit, "_ROUNDS", 1)
    simulator = HandSimulator(procedural_hand(HandBuild(cell=8.0)), HandRanges(), size=(16, 16), views=1)
    truth = simulator.labels(simulator.sample(3, range(4)))
    np.savez(tmp_path / "truth.npz", uvd=truth.frame_uvd.numpy())
    command = ["simulate", "hand-prior", str(tmp_path / "truth.npz"), "--all-blocks", "--frames", "4", "--json"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "prior.npz")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["frames"] == 4 and found["poses"] >= 3 and 0 < found["mean_mm"] < 6
    assert found["median_mm"] <= found["p95_mm"] and found["below_10_mm_percent"] > 85
    prior = PosePrior.load(tmp_path / "prior.npz")
    assert len(prior) == found["poses"] and prior.source.startswith("truth.npz: 4 frames of all blocks")
    turned = np.abs(prior.rotation[:, None] - simulator.sample(3, range(4)).rotation.numpy()).max(axis=(2, 3))
    assert np.median(turned.min(axis=1)) < 0.3, "orientations are those of the recorded hands"
    options = ["--count", "2", "--size", "32", "--views", "1", "--prior", str(tmp_path / "prior.npz")]
    done = CliRunner().invoke(app, ["simulate", "hands", *options, "--out", str(tmp_path / "store")])
    assert done.exit_code == 0, done.output
    assert Store.open(tmp_path / "store").provenance["ranges"]["pose_prior"]["source"] == prior.source
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "prior.txt")])
    assert done.exit_code != 0


@pytest.mark.slow
def test_nyu_joints_are_fitted_to_a_few_mm() -> None:
    if not JOINTS.is_file():
        pytest.skip(f"{JOINTS} is absent: name a data root with SIMGAN_DATA_ROOT")
    rows = np.linspace(0, 8251, 40).astype(np.int64)
    with np.load(JOINTS) as archive:
        fit = fit_hands(procedural_hand(HandBuild(cell=8.0)), archive["uvd"][rows], nyu_people(rows))
    summary = fit.summary()
    assert summary["median_mm"] < 4 and summary["p95_mm"] < 10 and summary["below_10_mm_percent"] > 95
    assert len(fit.prior("NYU test joints")) > 30
