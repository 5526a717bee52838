"""The losses of sections 2.1 and 2.2, equations 1, 2 and 4: tensors in, scalar out.

Shapes: B batch, C channels, H W pixels, h w patches. Every loss is the paper's *sum* over patches or pixels, and the
mean over the batch, so that neither the learning rate nor lambda depends on the batch size. To weigh them as means,
convert lambda with `simgan_core.config.lambda_sum_to_mean`, the only place where that is done.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_core.models import REAL, REFINED

Psi = Callable[[Tensor], Tensor]
"""Maps images B C H W to the features that refinement must keep."""


def refiner_adversarial(logits_refined: Tensor) -> Tensor:
    """L_real of R: sum over patches of -log(1 - D(R(x))); R wants D to say 'real'. Logits B 2 h w."""
    return _cross_entropy(logits_refined, REAL)


def discriminator_loss(logits_refined: Tensor, logits_real: Tensor) -> Tensor:
    """Equation 2: sum over patches of -log D(refined) - log(1 - D(real)). Logits B 2 h w."""
    return _cross_entropy(logits_refined, REFINED) + _cross_entropy(logits_real, REAL)


def self_regularisation(refined: Tensor, synthetic: Tensor, psi: Psi) -> Tensor:
    """L_reg without its lambda: sum over features of |psi(R(x)) - psi(x)| (equation 4). Images B C H W."""
    if refined.shape != synthetic.shape:
        raise ValueError(
            f"refined {tuple(refined.shape)} and synthetic {tuple(synthetic.shape)} found; equal shapes "
            "expected, one refined image for each synthetic one."
        )
    difference = psi(refined.float()) - psi(synthetic.float())
    return difference.abs().sum() / len(refined)


def _cross_entropy(logits: Tensor, wanted: int) -> Tensor:
    """Two-class cross-entropy against one class for every patch: sum over patches, mean over batch."""
    if logits.ndim != 4 or logits.shape[1] != 2:  # the softmax of a single logit is 1: a loss of 0, whatever D says
        raise ValueError(f"logits {tuple(logits.shape)} found; [B, 2, h, w] expected, real and refined of each patch.")
    # B 2 h w keeps the classes on axis 1, where log_softmax must look; a view(-1, 2) would pair neighbouring patches.
    return -F.log_softmax(logits.float(), dim=1)[:, wanted].sum() / len(logits)


def identity(images: Tensor) -> Tensor:
    """Psi for grey images (section 2.1)."""
    return images


def channel_mean(images: Tensor) -> Tensor:
    """Psi for colour images: the mean of the channels, which leaves the hue free. B C H W -> B 1 H W."""
    return images.mean(dim=1, keepdim=True)


def derivatives(images: Tensor) -> Tensor:
    """Psi = image derivatives: forward differences along x and y, 0 at the far border. B C H W -> B 2C H W."""
    along_x = F.pad(images[..., :, 1:] - images[..., :, :-1], (0, 1, 0, 0))
    along_y = F.pad(images[..., 1:, :] - images[..., :-1, :], (0, 0, 0, 1))
    return torch.cat([along_x, along_y], dim=1)


def learned(features: Callable[[Tensor], Tensor]) -> Psi:
    """Psi = a learned transformation: maps of a frozen net, `features`, which must not train.

    The sum over a net's many maps is scaled to the number of pixels. How strongly a feature answers to a change is left
    as it is, so that an equal lambda need not restrict equally.
    """

    def psi(images: Tensor) -> Tensor:
        maps = features(images)
        return maps * (images[0].numel() / maps[0].numel())

    return psi
