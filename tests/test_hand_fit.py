"""Inverse kinematics: known poses are found again; NYU's joints are fitted to a few mm; splits do not touch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.hand_crop import xyz_to_uvd
from simgan_core.simulators.hand import HandSimulator
from simgan_core.simulators.hand_fit import (
    _double,
    _own_shape,
    evaluation_rows,
    fit_hands,
    nyu_people,
    prior_rows,
    solve,
)
from simgan_core.simulators.hand_ranges import HandRanges
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


@pytest.mark.slow
def test_nyu_joints_are_fitted_to_a_few_mm() -> None:
    if not JOINTS.is_file():
        pytest.skip(f"{JOINTS} is absent: name a data root with SIMGAN_DATA_ROOT")
    rows = np.linspace(0, 8251, 40).astype(np.int64)
    with np.load(JOINTS) as archive:
        fit = fit_hands(procedural_hand(HandBuild(cell=8.0)), archive["uvd"][rows], nyu_people(rows))
    summary = fit.summary()
    assert summary["median_mm"] < 4 and summary["p95_mm"] < 10
    assert len(fit.prior("NYU test joints")) > 30
