"""The shallow estimators of table 3 (section 3.1): kNN, SVR, random forest, adaptive linear regression.

They learn from raw renders, as kNN and the CNN 'with UnityEyes' do in the paper; its other rows learnt from real images
of UT-Multiview, which nobody may pass on. What the cited papers leave open is stated here as our reading:

    knn     Wood et al. 2016 (UnityEyes): mean gaze of the nearest renders by head pose and image
    svr     Schneider et al. 2014: support vector regression on histograms of oriented gradients of several sizes
    forest  Sugano et al. 2014: random forest on a small eye image and the head pose
    alr     Lu et al. 2014: the image as a linear combination of few training images; gaze combines alike

Head pose is used where training *and* test images have it: on `embedded` and `full`, not on `mini`. Settings were
chosen on held-back *synthetic* images (`validation_errors` repeats that) and never on a target image.

Shapes: N images, F features; images uint8 [N, C, H, W], gaze and head pose (pitch, yaw) in radians [N, 2].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from simgan_core.datasets.store import Store
from simgan_core.gaze import angular_error_deg
from simgan_core.images import resize, tensor_of, to_float, to_grey

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float32]
HEAD = ("head_pitch", "head_yaw")
DIRECTIONS = 9  # of gradients in a histogram


class Regressor(Protocol):
    """What scikit-learn's regressors have in common."""

    def fit(self, features: Floats, targets: Floats) -> Any:
        """Learn from features [N, F] and targets [N, 2]."""
        ...

    def predict(self, features: Floats) -> Any:
        """Targets [N, 2] of features [N, F]."""
        ...


@dataclass(frozen=True)
class Shallow:
    """One estimator with its settings.

    Attributes:
        title: what tables show.
        images: training images at most, drawn from the renders by the seed; more cost minutes and gain little.
        pixels: (height, width) of the image that is its feature, or None for histograms of gradients.
        head_weight: factor on the head pose (radians) beside image features of unit length.
        settings: of the estimator itself.

    """

    title: str
    images: int
    pixels: tuple[int, int] | None
    head_weight: float
    settings: Mapping[str, float]


BASELINES: Mapping[str, Shallow] = {
    "knn": Shallow("kNN on raw renders", 12_000, (18, 28), 2.0, {"neighbours": 16}),
    "svr": Shallow("SVR on raw renders", 3_000, None, 1.0, {"components": 100, "penalty": 1.0, "gamma": 1.0}),
    "forest": Shallow("Random forest on raw renders", 6_000, (9, 15), 1.0, {"trees": 100, "leaf": 1}),
    "alr": Shallow("Adaptive linear regression on raw renders", 12_000, (9, 15), 1.0, {"support": 64, "ridge": 0.1}),
}


def fit_and_predict(name: str, training: Store, test: Store, *, seed: int) -> Floats:
    """Train `BASELINES[name]` on a labelled store and return its gaze for the test images, [N, 2] radians."""
    baseline = BASELINES[name]
    rows = _drawn(len(training), baseline.images, seed)
    heads = head_pose(training), head_pose(test)
    known = heads[0] is not None and heads[1] is not None
    features = describe(baseline, training.images(rows), heads[0][rows] if known and heads[0] is not None else None)
    asked = describe(baseline, test.images(), heads[1] if known else None)
    model = build(baseline, name, seed).fit(features, training.pitch_yaw()[rows])
    return np.asarray(model.predict(asked), dtype=np.float32)


def validation_errors(
    name: str, store: Store, candidates: Mapping[str, Shallow], *, with_head: bool, seed: int = 0
) -> dict[str, float]:
    """Mean error in degrees of each candidate on every fifth image of a synthetic store, trained on the others.

    This is how the settings of `BASELINES` were chosen; no real image takes part.
    """
    held_back = np.arange(len(store)) % 5 == 0
    images, labels = store.images(), store.pitch_yaw()
    head = head_pose(store) if with_head else None
    found = {}
    for title, candidate in candidates.items():
        features = describe(candidate, images, head)
        rows = np.flatnonzero(~held_back)[_drawn(int((~held_back).sum()), candidate.images, seed)]
        model = build(candidate, name, seed).fit(features[rows], labels[rows])
        predicted = np.asarray(model.predict(features[held_back]), dtype=np.float32)
        found[title] = float(angular_error_deg(predicted, labels[held_back]).mean())
    return found


def head_pose(store: Store) -> Floats | None:
    """Head pitch and yaw [N, 2] in radians, or None where the store does not know them."""
    if not set(HEAD) <= set(store.columns):
        return None
    return store.annotations(HEAD).to_numpy(np.float32)


def _drawn(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """`most` of `count` rows in order, or all of them."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def build(baseline: Shallow, name: str, seed: int) -> Regressor:
    """The estimator before training; `seed` decides the random forest."""
    # Here, as every notebook imports the titles above, and scikit-learn takes seconds.
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVR

    values = baseline.settings
    if name == "knn":
        nearest: Regressor = KNeighborsRegressor(int(values["neighbours"]), weights="distance", algorithm="brute")
        return nearest
    if name == "forest":
        trees, leaf = int(values["trees"]), int(values["leaf"])
        forest: Regressor = RandomForestRegressor(trees, min_samples_leaf=leaf, max_features=1 / 3, random_state=seed)
        return forest
    if name == "alr":
        return AdaptiveLinearRegression(int(values["support"]), values["ridge"])
    if name == "svr":
        machine = SVR(C=values["penalty"], gamma=values["gamma"], epsilon=0.01)  # 0.01 rad: half a degree
        reduce = PCA(int(values["components"]), svd_solver="randomized", random_state=seed)
        machines: Regressor = make_pipeline(reduce, MultiOutputRegressor(machine))
        return machines
    raise ValueError(f"baseline {name!r} is not known; expected one of {', '.join(BASELINES)}.")


class AdaptiveLinearRegression:
    """Lu et al.: find weights that rebuild the image from training images, and apply them to their gaze.

    Their weights are the sparsest (l1) ones over a few dozen images of one person. Over thousands of renders that is a
    linear programme per test image; our reading keeps its two properties, few images and all of them similar: the
    `support` nearest training images take part, their weights w minimise |f - sum w_i f_i|^2 + ridge * |w|^2 (ridge
    relative to the mean squared distance of the neighbours) and sum to one, as in locally linear embedding.
    """

    def __init__(self, support: int, ridge: float) -> None:
        if support < 1 or ridge <= 0:
            raise ValueError(f"support {support} and ridge {ridge} found; at least 1 and more than 0 expected")
        self.support, self.ridge = support, ridge

    def fit(self, features: Floats, targets: Floats) -> AdaptiveLinearRegression:
        """Keep features [N, F] and gaze [N, 2]."""
        self._features, self._targets = np.asarray(features, np.float64), np.asarray(targets, np.float64)
        return self

    def predict(self, features: Floats) -> NDArray[np.float64]:
        """Gaze [N, 2] of features [N, F]."""
        parts = np.array_split(features, max(1, len(features) // 256))
        return np.concatenate([self._predict(np.asarray(part, np.float64)) for part in parts])

    def _predict(self, asked: NDArray[np.float64]) -> NDArray[np.float64]:
        support = min(self.support, len(self._features))
        distance = cdist(asked, self._features, "sqeuclidean")
        nearest = np.argpartition(distance, support - 1, axis=1)[:, :support]
        difference = self._features[nearest] - asked[:, None]  # [N, K, F]
        gram = difference @ difference.transpose(0, 2, 1)
        level = self.ridge * np.trace(gram, axis1=1, axis2=2) / support
        gram[:, np.arange(support), np.arange(support)] += np.maximum(level, 1e-12)[:, None]
        weights = np.linalg.solve(gram, np.ones((len(asked), support, 1)))[:, :, 0]
        weights /= weights.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("nk,nkd->nd", weights, self._targets[nearest]))


def describe(baseline: Shallow, images: UInt8, head: Floats | None) -> Floats:
    """Features [N, F]: the image's, of unit length, and the weighted head pose where there is one."""
    grey = to_grey(tensor_of(images))
    features = _gradients(grey) if baseline.pixels is None else _pixels(grey, baseline.pixels)
    features /= np.linalg.norm(features, axis=1, keepdims=True) + 1e-6
    if head is None:
        return features
    return np.concatenate([features, np.float32(baseline.head_weight) * head], axis=1)


def _pixels(grey: torch.Tensor, size: tuple[int, int]) -> Floats:
    """The small image, its mean removed: grey uint8 [N, 1, H, W] -> [N, h w]."""
    small = resize(to_float(grey), size).flatten(1)
    return np.asarray((small - small.mean(dim=1, keepdim=True)).numpy(), dtype=np.float32)


def _gradients(grey: torch.Tensor) -> Floats:
    """Histograms of oriented gradients in cells of 8 and 16 pixels of the image at 48 x 64: [N, 1, H, W] -> [N, 1476].

    As Dalal and Triggs 2005: 9 directions without sign, a gradient shared out between the two nearest, blocks of 2 x 2
    cells at every place, each of unit length. (OpenCV 5 has no such descriptor any more.)
    """
    enlarged = resize(to_float(grey), (48, 64)).numpy()[:, 0]
    return np.concatenate([_histograms(part) for part in np.array_split(enlarged, max(1, len(enlarged) // 512))])


def _histograms(images: NDArray[np.float32]) -> Floats:
    down, across = np.gradient(images, axis=(1, 2))
    strength, place = np.hypot(down, across), np.arctan2(down, across) % np.pi * (DIRECTIONS / np.pi)
    lower, share = np.floor(place).astype(int) % DIRECTIONS, place % 1
    votes = np.zeros((DIRECTIONS, *images.shape), np.float32)
    np.put_along_axis(votes, lower[None], (strength * (1 - share))[None], axis=0)
    np.put_along_axis(votes, (lower[None] + 1) % DIRECTIONS, (strength * share)[None], axis=0)
    count, height, width = images.shape
    blocks = []
    for cell in (8, 16):
        cells = votes.reshape(DIRECTIONS, count, height // cell, cell, width // cell, cell).sum(axis=(3, 5))
        four = np.stack([cells[:, :, :-1, :-1], cells[:, :, :-1, 1:], cells[:, :, 1:, :-1], cells[:, :, 1:, 1:]])
        length = np.sqrt(np.square(four).sum(axis=(0, 1)) + 1e-6)
        blocks.append((four / length).transpose(2, 3, 4, 0, 1).reshape(count, -1))
    return np.concatenate(blocks, axis=1).astype(np.float32)
