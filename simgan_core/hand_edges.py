"""Local against global loss at the depth edges of a run's hands (section 3.2, the paper's figure of depth images).

For 04_local_vs_global and 08_hand_pose alike: the trainings are those of `hand_stages.train_hand_refiners`, shared on
disk, so whichever notebook comes first trains and the other reads. The target's edges are measured on the store
`validation`, which neither a refiner nor an estimator has seen; the test's images are left to table 4. How far their
edges are from it by the draw of images alone is the row 'target': no refiner can be expected to come nearer.

Shapes: N images, H W crop, K bins, S seeds. Images are uint8 [N, 1, H, W].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from simgan_core.evaluation.depth_edges import (
    Counts,
    Images,
    edge_advantage,
    edge_counts,
    edge_estimate,
)
from simgan_core.evaluation.statistics import Estimate
from simgan_core.hand_stages import KINDS, HandRun, frontal, refined_images

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

    def estimates(self) -> dict[str, Estimate]:
        """Edge distance in levels of every kind of image, with its 95 % interval over seeds and images."""
        return {name: edge_estimate(self.counts[name], self.reference) for name in TITLES}

    def advantage(self) -> Estimate:
        """Edge distance with the global D minus that with the local one, paired: above 0 local is nearer."""
        return edge_advantage(self.counts["local"], self.counts["global"], self.reference)

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
    synthetic = frontal(hands.stores.synthetic, count)
    target, others = frontal(hands.stores.validation, count), frontal(hands.stores.test, count)
    refined = {kind: tuple(refined_images(hands, kind, synthetic, hands.seeds)) for kind in KINDS}
    counts = {"raw": edge_counts(synthetic)[None], "target": edge_counts(others)[None]}
    counts |= {kind: np.stack([edge_counts(images) for images in refined[kind]]) for kind in KINDS}
    return HandEdges(synthetic, refined, target, counts, edge_counts(target))
