"""Networks for hands against the paper's list, both readings of '7 x 7', heatmaps, and Algorithm 1 with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_hands import toy_hand_store, toy_hands

from simgan_core import config_hand as c
from simgan_core.checkpoints import load_refiner
from simgan_core.config import RefinerConfig
from simgan_core.hand_heatmaps import draw_heatmaps, read_heatmaps
from simgan_core.hand_hourglass import Bottleneck, Hourglass, StackedHourglass
from simgan_core.hand_models import (
    HandGlobalDiscriminator,
    HandLocalDiscriminator,
    HandRefiner,
    hand_patch_grid,
    load_hand_refiner,
)
from simgan_core.hand_training import build_hand_networks, train_hand_refiner
from simgan_core.models import parameter_count, to_channels_last
from simgan_core.refine import refine_images

PAPER = RefinerConfig(width=64, blocks=10, kernel=7)


@pytest.mark.parametrize(("wide", "count"), [("all", 4_018_625), ("first", 741_825)])
def test_refiner_has_the_papers_parameters_in_both_readings(wide: c.WideFilters, count: int) -> None:
    refiner = HandRefiner(PAPER, wide=wide)
    assert parameter_count(refiner) == count
    sides = [module.kernel_size[0] for module in refiner.modules() if isinstance(module, torch.nn.Conv2d)]
    inner = 7 if wide == "all" else 3
    assert sides == [7, *[inner] * 20, 1]


@pytest.mark.parametrize("wide", ["all", "first"])
def test_a_refiner_starts_at_the_identity_and_can_leave_it(wide: c.WideFilters) -> None:
    hand = replace(c.smoke(), wide=wide)
    refiner, _ = build_hand_networks(hand, hand.method, 0)
    images = torch.rand(2, 1, 56, 56) * 2 - 1
    images[..., :28] = -1.0
    refined = refiner(images)
    assert torch.allclose(refined, images, atol=1e-6)
    (refined - 1).square().sum().backward()
    assert all(block.second.weight.grad.abs().max() > 0 for block in refiner.blocks), "the blocks learn at once"
    with pytest.raises(ValueError, match="expected 'none'"):
        HandRefiner(RefinerConfig(width=4, blocks=1, kernel=7)).start_at_identity()


def test_discriminators_have_the_papers_parameters_and_patches() -> None:
    images = torch.zeros(2, 1, 224, 224)
    local, whole = HandLocalDiscriminator(), HandGlobalDiscriminator()
    assert parameter_count(local) == 178_050 and local(images).shape == (2, 2, 7, 7)
    assert parameter_count(whole) == 181_122 and whole(images).shape == (2, 2, 1, 1)
    assert local.patches == whole.patches == 49


def test_a_patch_sees_71_pixels_and_a_third_of_a_small_crop() -> None:
    for size, stride, seen in ((224, 4, 71), (56, 1, 23)):
        network = HandLocalDiscriminator(first_stride=stride, size=(size, size))
        images = torch.randn(1, 1, size, size, requires_grad=True)
        network(images)[0, 0, 3, 3].backward()
        rows = images.grad[0, 0].abs().sum(dim=1).nonzero()
        assert rows.max() - rows.min() + 1 == seen
        assert hand_patch_grid((size, size), stride) == (7, 7)


def test_hourglass_has_newells_parameters_and_two_stacks_of_64() -> None:
    network = StackedHourglass(c.HourglassConfig())
    assert parameter_count(network) == 6_562_588
    with torch.no_grad():
        found = network.eval()(torch.zeros(1, 1, 224, 224))
    assert [tuple(heatmaps.shape) for heatmaps in found] == [(1, 14, 64, 64)] * 2


def test_maps_stay_in_the_fast_layout() -> None:
    network = to_channels_last(StackedHourglass(c.HourglassConfig(features=8, heatmap=16, depth=2))).eval()
    layouts: list[bool] = []
    for module in network.modules():
        if isinstance(module, Bottleneck | Hourglass):
            module.register_forward_hook(
                lambda _, __, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    with torch.no_grad():
        network(torch.randn(2, 1, 64, 64))
    assert len(layouts) == 23 and all(layouts)


def test_second_stack_sees_the_first_ones_heatmaps() -> None:
    network = StackedHourglass(c.HourglassConfig(features=8, heatmap=16, depth=2)).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        before = network(images)
        network.heads[0].bias += 1.0
        after = network(images)
    assert torch.allclose(after[0], before[0] + 1, atol=1e-5)
    assert not torch.allclose(after[1], before[1])


def test_hourglass_sees_the_whole_map() -> None:
    network, x = Hourglass(8, 4).eval(), torch.randn(1, 8, 16, 16)
    far = x.clone()
    far[..., 14, 14] += 10
    with torch.no_grad():
        assert (network(far) - network(x))[0, :, 1, 1].abs().max() > 1e-4, "through the lowest resolution"


def test_the_first_stride_is_the_papers_at_its_size() -> None:
    assert c.paper().first_stride == 4 and c.cpu().side // 56 == c.cpu().first_stride
    for make in c.PROFILES.values():
        assert hand_patch_grid((make().side,) * 2, make().first_stride) == (7, 7)


@pytest.mark.parametrize("size", [(16, 16), (64, 48)])
def test_heatmaps_give_back_positions_to_a_hundredth_of_a_cell(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([1.6, 1.6]), torch.tensor([size[1] - 1.6, size[0] - 1.6])
    positions = low + torch.rand((50, 14, 2), generator=generator) * (high - low)
    found = read_heatmaps(draw_heatmaps(positions, size))
    assert (found - positions).abs().max() < 0.01
    assert (read_heatmaps(3 * draw_heatmaps(positions, size)) - positions).abs().max() < 0.01, "height does not matter"


def test_a_joint_at_the_border_or_nowhere_is_still_a_cell() -> None:
    corner = torch.tensor([[[0.1, 7.9], [-3.0, 4.2]]])
    found = read_heatmaps(draw_heatmaps(corner, (8, 8)))
    assert (found >= 0).all() and (found <= 8).all()
    assert (found[0, 0] - corner[0, 0]).abs().max() < 0.5
    assert read_heatmaps(torch.zeros(1, 2, 8, 8)).isfinite().all()
    assert read_heatmaps(torch.full((1, 2, 8, 8), -1.0)).isfinite().all()


def test_networks_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    hand, state = c.smoke(), torch.get_rng_state()
    first, again, other = (build_hand_networks(hand, hand.method, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for network, same, different in zip(first, again, other, strict=True):
        weights, copies, others = (n.state_dict() for n in (network, same, different))
        assert all(torch.equal(weights[name], copies[name]) for name in weights)
        assert any(not torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("kind", ["local", "global"])
@pytest.mark.parametrize("wide", ["all", "first"])
def test_algorithm_one_trains_hands(tmp_path: Path, kind: str, wide: c.WideFilters) -> None:
    synthetic, target = toy_hand_store(tmp_path / "s", 8, 0), toy_hand_store(tmp_path / "t", 8, 1, target=True)
    hand = replace(c.smoke(), wide=wide)
    run = train_hand_refiner(synthetic, target, tmp_path / "run", hand, seed=0, kind=kind, progress=False)
    refiner = load_hand_refiner(run)
    assert refiner.wide == wide and refiner.size == (56, 56)
    assert refiner(torch.zeros(1, 1, 56, 56)).shape == (1, 1, 56, 56)
    hands = synthetic.images(slice(0, 2))
    by_any_name = refine_images(load_refiner(run), hands)  # what `simgan refine` does with it
    assert np.array_equal(by_any_name, refine_images(refiner, hands))
    trained = torch.load(run / "checkpoint.pt", weights_only=True)["averaged"]
    assert all(torch.equal(trained[name], value) for name, value in refiner.state_dict().items())
    described = json.loads((run / "provenance.json").read_text())
    assert described["parameters"]["refiner"] == parameter_count(HandRefiner(hand.method.refiner, (56, 56), wide))


def test_global_d_weighs_as_much_as_all_patches(tmp_path: Path) -> None:
    from simgan_core.training import AlgorithmOne, _launch

    stores = [toy_hand_store(tmp_path / name, 4, 0) for name in ("s", "t")]
    hand = c.smoke()
    for kind, config, weight in (("local", hand.method, 1.0), ("global", hand.global_method(), 49.0)):
        fabric = _launch(config, torch.device("cpu"))
        run = AlgorithmOne(
            fabric, config, *stores, tmp_path / kind, 0, lambda config, seed: build_hand_networks(hand, config, seed)
        )
        logits = run.discriminator.module(torch.zeros(1, 1, 56, 56))
        assert run.patch_weight(logits) == weight


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpu", "paper"])
def test_large_profiles_train_a_few_steps(tmp_path: Path, name: str) -> None:
    """The profiles' own networks take a step of each phase, so that they cannot rot.

    R has no stride and D keeps its 7 x 7 patches, so crops of 56 pixels pass the same layers at a sixteenth of the
    cost; the hourglass is run at its full size.
    """
    from simgan_core.hand_estimator import predict_joints, train_hourglass

    hand = c.PROFILES[name]()
    assert hand.side == 224 and hand.wide == "all" and parameter_count(HandRefiner(hand.method.refiner)) == 4_018_625
    few = replace(
        hand.method.training, steps=1, batch=2, k_g=1, pretrain_refiner=1, pretrain_discriminator=1, history_images=2,
        sample_every=99,
    )  # fmt: skip
    small = replace(hand.method, training=few, data=replace(hand.method.data, size=(56, 56)))
    hand = replace(hand, method=small, estimator=replace(hand.estimator, steps=1, batch=2))
    stores = [toy_hand_store(tmp_path / n, 1, 0, views=2) for n in ("s", "t")]
    run = train_hand_refiner(*stores, tmp_path / "run", hand, seed=0, progress=False)
    refined = load_hand_refiner(run)(torch.zeros(1, 1, 56, 56))
    assert refined.shape == (1, 1, 56, 56) and refined.isfinite().all()
    images, uv = toy_hands(2, 0, side=224)
    model = train_hourglass(images, uv, hand.estimator, seed=0, progress=False)
    assert predict_joints(model, images).shape == (2, 14, 2)
