"""Losses against the paper's equations written out with loops, and against the mistakes of other implementations."""

from __future__ import annotations

import math

import pytest
import torch

from simgan_core import losses
from simgan_core.config import lambda_sum_to_mean


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))


def probability_refined(logits: torch.Tensor) -> torch.Tensor:
    """D(x) for each patch, B h w."""
    return logits.softmax(dim=1)[:, 1]


def test_refiner_loss_is_equation_4s_adversarial_part(logits: torch.Tensor) -> None:
    expected = 0.0
    for image in probability_refined(logits):
        expected += sum(-math.log(1 - d) for d in image.flatten().tolist())
    assert losses.refiner_adversarial(logits).item() == pytest.approx(expected / len(logits), rel=1e-5)


def test_discriminator_loss_is_equation_2(logits: torch.Tensor) -> None:
    real = torch.flip(logits, dims=(0,)) * 0.7
    expected = 0.0
    for fake_map, real_map in zip(probability_refined(logits), probability_refined(real), strict=True):
        expected += sum(-math.log(d) for d in fake_map.flatten().tolist())
        expected += sum(-math.log(1 - d) for d in real_map.flatten().tolist())
    assert losses.discriminator_loss(logits, real).item() == pytest.approx(expected / len(logits), rel=1e-5)


def test_losses_are_sums_over_patches_and_means_over_the_batch(logits: torch.Tensor) -> None:
    twice_as_many_patches = torch.cat([logits, logits], dim=3)
    twice_the_batch = torch.cat([logits, logits])
    loss = losses.refiner_adversarial(logits)
    torch.testing.assert_close(losses.refiner_adversarial(twice_as_many_patches), 2 * loss)
    torch.testing.assert_close(losses.refiner_adversarial(twice_the_batch), loss)


def test_directions() -> None:
    called_real = torch.tensor([5.0, -5.0]).view(1, 2, 1, 1)
    called_refined = -called_real
    assert losses.refiner_adversarial(called_real) < 0.01 < losses.refiner_adversarial(called_refined)
    assert losses.discriminator_loss(called_refined, called_real) < 0.01
    assert losses.discriminator_loss(called_real, called_refined) > 10


def test_patches_are_independent(logits: torch.Tensor) -> None:
    """A view(-1, 2) on B 2 h w pairs neighbouring patches as the two classes; then this gradient would spread."""
    logits.requires_grad_()
    losses.refiner_adversarial(logits[:, :, :1, :1]).backward()
    touched = logits.grad.abs().sum(dim=1) > 0
    assert touched[:, 0, 0].all() and touched.sum() == len(logits)


def test_self_regularisation_is_a_sum_over_pixels() -> None:
    synthetic = torch.zeros(2, 1, 3, 4)
    refined = synthetic.clone()
    refined[0, 0, 1, 2] = 0.5
    refined[1] = -0.25
    expected = (0.5 + 12 * 0.25) / 2
    assert losses.self_regularisation(refined, synthetic, losses.identity).item() == pytest.approx(expected)


def test_lambda_conversion_reproduces_the_ratio_of_sums() -> None:
    """lambda_mean * mean L1 + mean CE is the sum form divided by the number of patches."""
    generator = torch.Generator().manual_seed(1)
    refined, synthetic = (torch.rand(2, 1, 35, 55, generator=generator) for _ in range(2))
    logits = torch.randn(2, 2, 9, 14, generator=generator)
    sums = losses.refiner_adversarial(logits) + 0.2 * losses.self_regularisation(refined, synthetic, losses.identity)
    mean_ce = -logits.log_softmax(1)[:, 0].mean()
    means = mean_ce + lambda_sum_to_mean(0.2, (35, 55)) * (refined - synthetic).abs().mean()
    torch.testing.assert_close(sums / 126, means)


def test_channel_mean_leaves_hue_free() -> None:
    synthetic = torch.zeros(1, 3, 4, 4)
    hue = torch.tensor([0.3, -0.1, -0.2]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert losses.self_regularisation(hue, synthetic, losses.channel_mean).item() == pytest.approx(0, abs=1e-6)
    assert losses.self_regularisation(hue, synthetic, losses.identity).item() == pytest.approx(16 * 0.6)


def test_derivatives_leave_brightness_free_and_keep_edges() -> None:
    synthetic = torch.rand(1, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    assert losses.self_regularisation(synthetic + 0.3, synthetic, losses.derivatives).item() < 1e-4
    step = synthetic.clone()
    step[..., 3:] += 0.5  # an edge of 0.5 along one column
    assert losses.self_regularisation(step, synthetic, losses.derivatives).item() == pytest.approx(6 * 0.5, rel=1e-4)
    assert losses.derivatives(torch.zeros(2, 3, 5, 6)).shape == (2, 6, 5, 6)


def test_learned_psi_keeps_lambdas_scale_and_lets_gradients_through() -> None:
    net = torch.nn.Conv2d(1, 10, 1, bias=False).requires_grad_(False)
    torch.nn.init.ones_(net.weight)
    psi = losses.learned(net)
    synthetic, refined = torch.zeros(1, 1, 5, 5), torch.full((1, 1, 5, 5), 0.1, requires_grad=True)
    loss = losses.self_regularisation(refined, synthetic, psi)
    assert loss.item() == pytest.approx(25 * 0.1, rel=1e-5)  # as identity, though there are ten maps
    loss.backward()
    assert (refined.grad > 0).all()


def test_shapes_that_would_give_a_silent_zero_or_broadcast_are_refused() -> None:
    one_logit = torch.randn(2, 1, 9, 14)
    for loss in (losses.refiner_adversarial, lambda logits: losses.discriminator_loss(logits, logits)):
        with pytest.raises(ValueError, match=r"\(2, 1, 9, 14\) found; \[B, 2, h, w\] expected"):
            loss(one_logit)
    with pytest.raises(ValueError, match="equal shapes expected"):
        losses.self_regularisation(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4), losses.identity)
