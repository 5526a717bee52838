"""The history of refined images (section 2.3): keeps D from forgetting what R did before.

Shapes: B buffer size, b batch, C H W image. D's refined batch is b/2 fresh images and b/2 drawn from here; after each
update of D, b/2 random entries of the buffer are replaced by the fresh ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class HistoryBuffer:
    """At most `capacity` refined images, on their device; drawn from and replaced at random, without repetition.

    Args:
        capacity: B, number of images; 0 switches the history off.
        seed: of its own random generator; nothing global is touched.
        device: where the images are kept.
    """

    def __init__(self, capacity: int, seed: int, device: torch.device | str = "cpu") -> None:
        if capacity < 0:
            raise ValueError(f"history capacity is {capacity}; expected 0 (off) or the number of images to keep.")
        self.capacity = capacity
        self.device = torch.device(device)
        self._images: Tensor | None = None
        self._filled = 0
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Number of images held."""
        return self._filled

    @property
    def images(self) -> Tensor:
        """The images held, [len, C, H, W]; empty before the first `replace`."""
        return torch.empty(0) if self._images is None else self._images[: self._filled]

    def sample(self, count: int) -> Tensor:
        """`count` different images at random, or all where fewer are held: [<= count, C, H, W], a copy."""
        if count < 0:
            raise ValueError(f"{count} images asked for; expected 0 or more.")
        if self._images is None:
            return torch.empty(0)
        return self._images[self._draw(min(count, self._filled))]

    def replace(self, fresh: Tensor) -> None:
        """Put `fresh` [n, C, H, W] in place of n random entries; while there is room, beside the entries."""
        if self.capacity == 0:
            return
        fresh = fresh.detach()[: self.capacity]
        if self._images is not None and fresh.shape[1:] != self._images.shape[1:]:
            held = tuple(self._images.shape[1:])
            raise ValueError(f"images {tuple(fresh.shape[1:])} for a history of {held}; expected the same shape.")
        if self._images is None:
            self._images = torch.zeros((self.capacity, *fresh.shape[1:]), dtype=fresh.dtype, device=self.device)
        room = min(self.capacity - self._filled, len(fresh))
        self._images[self._filled : self._filled + room] = fresh[:room]
        self._filled += room
        if room < len(fresh):
            # Entries that arrived in this very call are not replaced again.
            self._images[self._draw(len(fresh) - room, below=self._filled - room)] = fresh[room:]

    def fresh_needed(self, batch: int) -> int:
        """How many fresh images the next `mix` to `batch` images will show to D."""
        return batch - min(batch // 2, self._filled)

    def mix(self, fresh: Tensor, batch: int) -> Tensor:
        """D's refined batch [batch, C, H, W]: fresh images first, then history; renews the history with b/2 of them.

        `fresh` [>= fresh_needed(batch), C, H, W] is R's newest output. Half of the batch comes from the history, or
        less while it holds less (the first updates), where fresh images take the place of those missing.
        """
        needed = self.fresh_needed(batch)
        if len(fresh) < needed:
            raise ValueError(f"{len(fresh)} fresh images for a batch of {batch}; expected {needed} or more.")
        fresh = fresh.detach()[:needed]
        old = self.sample(batch // 2)
        self.replace(fresh[: batch // 2])
        return torch.cat([fresh, old]) if len(old) else fresh

    def _draw(self, count: int, below: int | None = None) -> Tensor:
        """`count` different row numbers at random."""
        rows = torch.randperm(self._filled if below is None else below, generator=self._generator)[:count]
        return rows.to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next calls depend on."""
        return {
            "capacity": self.capacity,
            "images": self.images.detach().to("cpu", copy=True),  # states travel between processes and into files
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; a different capacity raises `ValueError`."""
        if state["capacity"] != self.capacity:
            raise ValueError(f"the saved history has capacity {state['capacity']}; this one {self.capacity}.")
        self._generator.set_state(state["generator"])
        self._images, self._filled = None, 0
        if len(state["images"]):
            saved = state["images"].to(self.device)
            self._images = torch.zeros((self.capacity, *saved.shape[1:]), dtype=saved.dtype, device=self.device)
            self._filled = len(state["images"])
            self._images[: self._filled] = saved
