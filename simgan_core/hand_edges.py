"""Local against global loss at the depth edges of a run's hands (section 3.2, the paper's figure of depth images).

For 04_local_vs_global and 08_hand_pose alike: the trainings are those of `hand_stages.train_hand_refiners`, shared on
disk, so whichever notebook comes first trains and the other reads. The target's edges are measured on the frontal
images of the store `test`, without their labels: no training has seen them and nothing was chosen by them, as the
number of steps was by `validation`. How far the edges of `validation` are from theirs, by the draw of images alone, is
the row 'target': no refiner can be expected to come nearer.

Shapes: N images, H W crop, K bins, S seeds. Images are uint8 [N, 1, H, W].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simgan_core.datasets.store import Store
from simgan_core.evaluation.dependence import groups_of
from simgan_core.evaluation.depth_edges import (
    Counts,
    Images,
    edge_advantage,
    edge_counts,
    edge_estimate,
)
from simgan_core.evaluation.hand_comparison import rows_of_views
from simgan_core.evaluation.statistics import Estimate
from simgan_core.hand_stages import KINDS, HandRun, refined_images

IMAGES = 400
"""Frontal images of each kind, where there are so many."""
TITLES: Mapping[str, str] = {
    "raw": "synthetic",
    "local": "refined, local D",
    "global": "refined, global D",
    "target": "target, other images",
}


@dataclass(frozen=True)
class HandEdges:
    """The same synthetic hands before and after refiners of both kinds, and edges of all of them."""

    synthetic: Images
    refined: Mapping[str, tuple[Images, ...]]  # by kind of D, one array per seed
    target: Images
    counts: Mapping[str, Counts]  # raw and target [1, N, K], local and global [S, N, K]
    reference: Counts  # [N, K] of the target
    groups: NDArray[Any] | None = None  # of the synthetic hands: stretches of a video

    def estimates(self) -> dict[str, Estimate]:
        """Edge distance in levels of every kind of image, with its 95 % interval over seeds and images."""
        groups = {name: None if name == "target" else self.groups for name in TITLES}
        return {name: edge_estimate(self.counts[name], self.reference, groups=groups[name]) for name in TITLES}

    def advantage(self) -> Estimate:
        """Edge distance with the global D minus that with the local one, paired: above 0 local is nearer."""
        return edge_advantage(self.counts["local"], self.counts["global"], self.reference, groups=self.groups)

    def table(self) -> pd.DataFrame:
        """One row per kind of image: edge distance, interval, seeds and images."""
        rows = [(TITLES[name], e.value, e.low, e.high, e.seeds, e.n) for name, e in self.estimates().items()]
        return pd.DataFrame(rows, columns=["images", "edge distance (levels)", "low", "high", "seeds", "n"])

    def drawn(self, target_name: str) -> dict[str, Counts]:
        """What `hand_figures.edge_histograms` draws."""
        shown = {TITLES[name]: self.counts[name] for name in ("raw", *KINDS)}
        return shown | {target_name: self.reference}

    def same_hands(self) -> dict[str, Images]:
        """Rows of a strip: the hands before and after the first seed's refiners."""
        return {"synthetic": self.synthetic, "refined": self.refined["local"][0],
                "refined,\nglobal D": self.refined["global"][0]}  # fmt: skip


def compare_edges(hands: HandRun, count: int = IMAGES) -> HandEdges:
    """Edges of `count` hands and of as many of the target; the refiners must be trained. No label is read."""
    synthetic, groups = spread_frontal(hands.stores.synthetic, count)
    (target, _), (others, _) = (spread_frontal(path, count) for path in (hands.stores.test, hands.stores.validation))
    refined = {kind: tuple(refined_images(hands, kind, synthetic, hands.seeds)) for kind in KINDS}
    counts = {"raw": edge_counts(synthetic)[None], "target": edge_counts(others)[None]}
    counts |= {kind: np.stack([edge_counts(images) for images in refined[kind]]) for kind in KINDS}
    return HandEdges(synthetic, refined, target, counts, edge_counts(target), groups)


def spread_frontal(path: Path, count: int) -> tuple[Images, NDArray[np.generic] | None]:
    """`count` frontal images from all over a store, and their groups: the first would be one stretch of a video."""
    store = Store.open(path)
    rows = rows_of_views(store, 1) if "view" in store.columns else np.arange(len(store))
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    groups = groups_of(store)
    return store.images(rows), None if groups is None else groups[rows]
