"""Tables 2 and 3 of the paper, as published.

The test images (all of MPIIGaze) are others than any of ours: these rows are for reading beside ours, not for ranking.
"""

from __future__ import annotations

from dataclasses import dataclass

NOTE = "published, other test images"


@dataclass(frozen=True)
class Published:
    """One row: what was trained on what, mean error in degrees (table 3) or share within 7 degrees (table 2).

    `ours` names the arm of the comparison that stands for the same thing, '' where there is none.
    """

    method: str
    trained_on: str
    value: float
    ours: str = ""


TABLE_3: tuple[Published, ...] = (
    Published("Support vector regression", "UT-Multiview, real", 16.5, "svr"),
    Published("Adaptive linear regression", "UT-Multiview, real", 16.4, "alr"),
    Published("Random forest", "UT-Multiview, real", 15.4, "forest"),
    Published("kNN", "UT-Multiview, real", 16.2),
    Published("CNN", "UT-Multiview, real", 13.9),
    Published("kNN", "UnityEyes, raw renders", 9.9, "knn"),
    Published("CNN", "UnityEyes, raw renders", 11.2, "raw"),
    Published("CNN", "UnityEyes, refined renders", 7.8, "refined"),
)
"""Mean angular error on MPIIGaze, degrees."""

TABLE_2: tuple[Published, ...] = (
    Published("CNN", "synthetic", 62.3, "raw_1x"),
    Published("CNN", "synthetic, 4x", 64.9, "raw"),
    Published("CNN", "refined", 69.4, "refined_1x"),
    Published("CNN", "refined, 4x", 87.2, "refined"),
)
"""Percentage of MPIIGaze images within 7 degrees."""
