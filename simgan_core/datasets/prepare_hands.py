"""The stores of the hand experiment (section 3.2): synthetic hands in three views, and the target domain.

synthetic      labelled renders (or NYU's synthetic doubles), three views of every pose, view 0 frontal
target         the target domain, three views, no labels: what R refines towards
target_labels  the same images with labels: for the arm 'real' alone
validation     labelled frontal target images that no training sees: the target's edges are measured on them
               (`hand_edges`), which is how settings of R can be judged without a label and without the test
test           labelled frontal target images that nothing else has seen
recorded       with a stand-in alone: the synthetic hands, frontal, as the stand-in's camera records them; what no
               refiner of pixels can be expected to beat, as it has the target's camera and the synthetic hands' shape

embedded  synthetic: the procedural hand. Target: a *stand-in*, another hand recorded by a Kinect-style camera.
mini      synthetic: the skinned meshes of the data root, where there are any, and the procedural hand in turn, so that
          an estimator meets more than one shape. Target: the same stand-in, of a build that none of them has; real
          frames are not among the mini data, so it is never called real.
full      NYU Hand Pose: synthetic doubles and real frames of its training split, test on
          its test split; validation from the end of the training split.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simgan_core.config_hand import HandConfig
from simgan_core.datasets import nyu
from simgan_core.datasets.image_stores import without_labels
from simgan_core.datasets.prepare import WRITERS, Recipe, _device, _make_or_reuse
from simgan_core.datasets.store import spread
from simgan_core.datasets.writer import sha256
from simgan_core.provenance import PACKAGE
from simgan_core.simulators.hand_assets import HandAssets
from simgan_core.simulators.hand_ranges import HandRanges, target_ranges
from simgan_core.simulators.hand_simulate import load_hands, simulate_hands, stand_in_assets
from simgan_core.simulators.kinect import KinectCamera

VIEWS = 3
NAMES = ("synthetic", "target_labels", "target", "validation", "test")
RECORDED = "recorded"
SIMULATOR = (PACKAGE / "simulators" / "hand_simulate.py",)
ADAPTER = (PACKAGE / "datasets" / "nyu.py",)
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedHands:
    """Where the stores are; `target_labels` is for the arm 'real' alone, `recorded` is None without a stand-in."""

    synthetic: Path
    target_labels: Path
    target: Path
    validation: Path
    test: Path
    recorded: Path | None
    is_standin: bool

    @classmethod
    def at(cls, out: Path, *, is_standin: bool) -> PreparedHands:
        """The stores of that folder."""
        synthetic, target_labels, target, validation, test = (out / name for name in NAMES)
        recorded = out / RECORDED if is_standin else None
        return cls(synthetic, target_labels, target, validation, test, recorded, is_standin)

    @property
    def complete(self) -> bool:
        """Whether all of them are there."""
        return all((path / "store.json").is_file() for path in vars(self).values() if isinstance(path, Path))


def prepare_hands(
    data: str, config: HandConfig, data_root: Path | str | None, out: Path | str, seed: int = 0
) -> PreparedHands:
    """Make or reuse the hand stores of `data` in `out`; `seed` is that of the renders.

    Raises ValueError for an unknown `data`, DataError for missing or broken files; inputs are checked before anything
    is made.
    """
    out = Path(out)
    if data not in ("embedded", "mini", "full"):
        raise ValueError(f"data {data!r} found; embedded, mini or full expected")
    if data != "embedded" and data_root is None:
        raise ValueError(f"no data root for {data!r} data; name one (--data-root or SIMGAN_DATA_ROOT)")
    if data == "full":
        recipes = _recorded(nyu.nyu_root(Path(str(data_root))), config, out)
    else:
        mesh = None if data == "embedded" else _mesh(Path(str(data_root)))
        recipes = _rendered(mesh, config, seed, out)
    for recipe in recipes:
        _make_or_reuse(recipe, out)
    return PreparedHands.at(out, is_standin=data != "full")


def _mesh(root: Path) -> Path | None:
    """The folder of the data root's hand meshes; None, and a warning, where there are none: they are optional."""
    folder = root / "hand_mesh"
    if any(folder.glob("*.npz")) or any(folder.glob("*.glb")):
        return folder
    LOGGER.warning(
        "no hand mesh in %s; the procedural hand alone is rendered. For the meshes see data/README.md", folder
    )
    return None


def _rendered(mesh: Path | None, config: HandConfig, seed: int, out: Path) -> list[Recipe]:
    source = functools.cache(lambda: load_hands(mesh))
    target = functools.cache(stand_in_assets)
    streams = [4 * seed + part for part in range(4)]  # of random numbers, one per store
    named: dict[str, Any] = {"assets": "procedural", "meshes": {} if mesh is None else _checksums(mesh)}
    sizes = config.data
    sensor = KinectCamera()
    stand_in: dict[str, Any] = {"ranges": target_ranges(), "sensor": sensor}
    labelled = _renders("target_labels", sizes.target_poses * VIEWS, config, streams[1], target, {}, **stand_in)
    return [
        _renders("synthetic", sizes.poses * VIEWS, config, streams[0], source, named, ranges=HandRanges()),
        labelled,
        _without_labels(labelled, config, out),
        _renders("validation", sizes.validation, config, streams[2], target, {}, views=1, **stand_in),
        _renders("test", sizes.test, config, streams[3], target, {}, views=1, **stand_in),
        _renders(RECORDED, sizes.poses, config, streams[0], source, named, views=1, ranges=HandRanges(), sensor=sensor),
    ]


def _checksums(mesh: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(mesh.iterdir()) if path.suffix in (".npz", ".glb")}


def _renders(
    name: str,
    count: int,
    config: HandConfig,
    seed: int,
    assets: Callable[[], HandAssets | tuple[HandAssets, ...]],
    inputs: dict[str, Any],
    *,
    ranges: HandRanges,
    sensor: KinectCamera | None = None,
    views: int = VIEWS,
) -> Recipe:
    def make(path: Path) -> object:
        how: dict[str, Any] = {"ranges": ranges, "sensor": sensor, "views": views, "size": config.method.data.size}
        return simulate_hands(count, path, assets=assets(), seed=seed, device=_device(), **how)

    decides = {"count": count, "seed": seed, "views": views, "size": list(config.method.data.size)}
    described = {"ranges": ranges.describe(), "sensor": repr(sensor)}
    # As JSON reads it back: tuples are lists there, and the comparison with what was written must hold.
    return Recipe(name, json.loads(json.dumps({**decides, **described, **inputs})), SIMULATOR, make)


def _without_labels(labelled: Recipe, config: HandConfig, out: Path) -> Recipe:
    make = without_labels(out / labelled.name, config.method.data.size, lambda: ())
    return Recipe("target", labelled.inputs, (*labelled.sources, WRITERS), make)


def _recorded(root: Path, config: HandConfig, out: Path) -> list[Recipe]:
    """NYU's own frames, limited to the profile's counts; missing files are named now rather than after an hour.

    Fewer than all are spread over the split, whose frames are videos of one person after the other.
    """
    available = nyu.load_joints(root / "train" / nyu.JOINTS).shape[1]
    held = max(1, min(config.data.validation, available // 10))
    training = available - held
    tested = nyu.load_joints(root / "test" / nyu.JOINTS).shape[1]

    def cut(name: str, split: nyu.Split, kind: nyu.Kind, rows: Sequence[int], views: tuple[int, ...]) -> Recipe:
        frames = nyu.find_frames(root, split, kind, views, rows)
        options: dict[str, Any] = {"split": split, "kind": kind, "views": views, "size": config.method.data.size}
        inputs = nyu.nyu_provenance(frames, **{key: _plain(value) for key, value in options.items()})
        return Recipe(name, inputs, ADAPTER, lambda path: nyu.prepare_nyu(root, path, rows=rows, **options))

    labelled = cut("target_labels", "train", "real", spread(training, config.data.target_poses).tolist(), nyu.VIEWS)
    return [
        cut("synthetic", "train", "synthetic", spread(training, config.data.poses).tolist(), nyu.VIEWS),
        labelled,
        _without_labels(labelled, config, out),
        cut("validation", "train", "real", range(training, available), (1,)),
        cut("test", "test", "real", spread(tested, config.data.test).tolist(), (1,)),
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
