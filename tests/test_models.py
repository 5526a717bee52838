"""Networks against the paper's list: parameter counts, shapes, receptive field, class convention."""

from __future__ import annotations

import pytest
import torch

from simgan_core import config as c
from simgan_core import profiles
from simgan_core.models import (
    GlobalDiscriminator,
    LocalDiscriminator,
    PointwiseConv,
    Refiner,
    SamePadConv,
    build_networks,
    channels_last,
    parameter_count,
    to_channels_last,
)


def test_parameter_counts_are_the_papers() -> None:
    refiner, discriminator = build_networks(profiles.paper(), seed=0)
    assert parameter_count(refiner) == 296_129
    assert parameter_count(discriminator) == 75_906


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(35, 55), (36, 60), (41, 33)])
def test_shapes(channels: int, size: tuple[int, int]) -> None:
    images = torch.zeros(2, channels, *size)
    refiner = Refiner(c.RefinerConfig(width=4, blocks=1, channels=channels))
    assert refiner(images).shape == images.shape
    assert LocalDiscriminator(channels)(images).shape == (2, 2, *c.patch_grid(size))
    assert GlobalDiscriminator(channels, size)(images).shape == (2, 2, 1, 1)


def test_a_global_discriminator_names_the_size_that_it_was_built_for() -> None:
    with pytest.raises(ValueError, match=r"images of 36 x 60 found; expected 35 x 55"):
        GlobalDiscriminator()(torch.zeros(2, 1, 36, 60))


def test_nine_by_fourteen_patches_of_23_pixels() -> None:
    discriminator = LocalDiscriminator()
    images = torch.randn(1, 1, 35, 55, requires_grad=True)
    logits = discriminator(images)
    assert logits.shape[-2:] == (9, 14)
    logits[0, 0, 4, 7].backward()
    rows = images.grad[0, 0].abs().sum(dim=1).nonzero()
    columns = images.grad[0, 0].abs().sum(dim=0).nonzero()
    assert rows.max() - rows.min() + 1 == 23
    assert columns.max() - columns.min() + 1 == 23


def test_global_discriminator_sees_the_whole_image() -> None:
    images = torch.randn(1, 1, 35, 55, requires_grad=True)
    GlobalDiscriminator()(images)[0, 0].sum().backward()
    assert (images.grad != 0).float().mean() > 0.95


@pytest.mark.parametrize("output", ["tanh", "none"])
def test_output_setting(output: str) -> None:
    refiner = Refiner(c.RefinerConfig(width=4, blocks=1, output=output))
    with torch.no_grad():
        refiner.tail.bias.fill_(5.0)
        assert (refiner(torch.zeros(1, 1, 8, 8)).max() > 1) == (output == "none")


def test_replicated_border_leaves_no_frame_and_zeros_do() -> None:
    flat = torch.full((1, 1, 20, 20), 0.7)
    for padding, frame in (("replicate", False), ("zeros", True)):
        torch.manual_seed(0)
        refined = Refiner(c.RefinerConfig(width=8, blocks=2, padding=padding))(flat)
        assert (refined.std() > 1e-4) == frame, padding


def test_padding_kinds_are_torchs_own() -> None:
    images = torch.randn(2, 3, 9, 11)
    for kind in ("zeros", "replicate"):
        ours = SamePadConv(3, 5, 3, kind)
        reference = torch.nn.Conv2d(3, 5, 3, padding=1, padding_mode=kind)
        reference.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(images), reference(images))


def test_pointwise_convolution_is_a_convolution() -> None:
    images = torch.randn(2, 6, 5, 7)
    ours = PointwiseConv(6, 3)
    torch.testing.assert_close(ours(images), torch.nn.functional.conv2d(images, ours.weight, ours.bias))


def test_input_is_not_changed_in_place() -> None:
    images = torch.randn(2, 1, 35, 55)
    before = images.clone()
    for network in build_networks(profiles.smoke(), 0):
        network(images)
    assert torch.equal(images, before)


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (build_networks(profiles.smoke(), seed)[0].state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", ["local", "global"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_maps_lie_channels_last(kind: str, channels: int) -> None:
    """Maps of the other layout are converted at every later use."""
    config = c.with_channels(c.with_overrides(profiles.smoke(), {"discriminator.kind": kind}), channels)
    refiner, discriminator = (to_channels_last(network) for network in build_networks(config, 0))
    seen: list[bool] = []
    for network in (refiner, discriminator):
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.out_channels > 1:
                layer.register_forward_hook(
                    lambda _layer, _inputs, maps: seen.append(maps.is_contiguous(memory_format=torch.channels_last))
                )
    discriminator(refiner(torch.rand(2, channels, 35, 55)))
    assert len(seen) > 5 and all(seen)


def test_channels_last_changes_no_value() -> None:
    for channels in (1, 3):
        images = torch.rand(2, channels, 5, 7)
        laid_out = channels_last(images)
        assert torch.equal(laid_out, images)
        assert laid_out.stride() == (35 * channels, 1, 7 * channels, channels)


@pytest.mark.parametrize("kernel", [3, 7])
def test_borders_are_repeated_in_bf16_too(kernel: int) -> None:
    """Padding leaves autocast: it must keep the number format that it is given, and repeat the border."""
    conv = SamePadConv(2, 2, kernel, "replicate")
    images = torch.rand(1, 2, 6, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(images)
        padded = torch.nn.functional.pad(images.float(), (kernel // 2,) * 4, mode="replicate").bfloat16()
        expected = torch.nn.functional.conv2d(padded, conv.weight, conv.bias)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
