"""The stores of a run (section 3.1, 'Data'): `synthetic` (labelled), `real` (no labels), `test` (labelled, held back).

`real` has no label columns at all: what refines towards it cannot read one. The labels of those images that have some
lie in a store of their own, `real_oracle_labels`, which only the oracle arm of the comparison opens.

    embedded  synthetic: procedural eyes. real, test: the *stand-in target*, other procedural people through a camera
              model; never called real elsewhere.
    mini      synthetic: UnityEyes' own assets, gaze from the published labels of the 14 other persons (a uniform range
              where that file is absent). real: a fixed part of one MPIIGaze person and unlabelled eyes of others;
              test: the rest of that person.
    full      synthetic: a UnityEyes output folder, or renders of its assets with a uniform range of gaze. real:
              MPIIGaze without its evaluation subset; test: that subset.

A store is made again when its inputs, its settings or the code behind it changed, and reused otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.config import Config
from simgan_core.datasets import mpiigaze
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.files import listing_sha256
from simgan_core.datasets.image_stores import without_labels, write_eyes
from simgan_core.datasets.npz import read_arrays
from simgan_core.datasets.store import Store
from simgan_core.datasets.unityeyes import prepare_unityeyes, unityeyes_provenance
from simgan_core.datasets.writer import MANIFEST, sha256
from simgan_core.provenance import PACKAGE, code_fingerprint, read_json, write_json
from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.mpiigaze_ranges import MPIIGAZE_RANGES
from simgan_core.simulators.procedural_assets import procedural_assets
from simgan_core.simulators.ranges import EyeRanges, published_prior
from simgan_core.simulators.sensor import CameraModel
from simgan_core.simulators.simulate import load_assets, simulate_eyes

Data = Literal["embedded", "mini", "full"]
PUBLISHED = "published_lenet_leave_one_out.npz"
TESTED_PERSON = 0  # of the mini data, unless the published labels say that the file holds another one's images
LABELS = "real_oracle_labels"
WRITERS = PACKAGE / "datasets" / "image_stores.py"
SIMULATOR = tuple(PACKAGE / "simulators" / name for name in ("simulate.py", "sensor.py"))
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Where the stores are. `oracle` holds the labelled ones of the real images: for the oracle arm alone."""

    synthetic: Path
    real: Path
    test: Path
    oracle: Path
    real_is_standin: bool


@dataclass(frozen=True)
class Recipe:
    """How one store is made, and everything that decides what is in it (plain JSON)."""

    name: str
    inputs: dict[str, Any]
    sources: tuple[Path, ...]  # the modules whose code, with all that they import, decides
    make: Callable[[Path], object]


def prepare(data: str, config: Config, data_root: Path | str | None, out: Path | str, seed: int = 0) -> Prepared:
    """Make or reuse the stores of `data` in `out`. `seed` is that of the renders; the split of real images is fixed.

    Raises ValueError for an unknown `data` or for settings that it cannot have, DataError for missing or broken files;
    inputs are checked before anything is made.
    """
    out = Path(out)
    if data == "embedded":
        recipes = _embedded(config, seed, out)
    elif data in ("mini", "full"):
        if config.data.channels != 1:
            raise ValueError(
                f"data.channels = {config.data.channels} found; MPIIGaze is grey: 1 expected, or embedded data"
            )
        if data_root is None:
            raise ValueError(f"no data root for {data!r} data; name one (--data-root or SIMGAN_DATA_ROOT)")
        recipes = (_mini if data == "mini" else _full)(Path(data_root), config, seed, out)
    else:
        raise ValueError(f"data {data!r} found; embedded, mini or full expected")
    for recipe in recipes:
        _make_or_reuse(recipe, out)
    return Prepared(out / "synthetic", out / "real", out / "test", out / LABELS, real_is_standin=data == "embedded")


def _make_or_reuse(recipe: Recipe, out: Path) -> None:
    path, stamp = out / recipe.name, out / f"{recipe.name}.made_with.json"
    made_with = {"code": [code_fingerprint(source) for source in recipe.sources], "inputs": recipe.inputs}
    if stamp.is_file() and (path / MANIFEST).is_file() and read_json(stamp) == made_with:
        try:
            Store.open(path)
            return
        except DataError as error:  # a file was lost or cut since
            LOGGER.warning("%s", error)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    recipe.make(path)
    write_json(stamp, made_with)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _rendered(
    name: str,
    count: int,
    config: Config,
    seed: int,
    assets: Callable[[], EyeAssets],
    inputs: dict[str, Any],
    **how: Any,
) -> Recipe:
    """A store of renders; `inputs` says what `assets` loads, `how` goes to the simulator."""
    options: dict[str, Any] = {"size": config.data.size, "colour": config.data.channels == 3, "seed": seed, **how}

    def make(path: Path) -> object:
        return simulate_eyes(count, path, assets=assets(), device=_device(), **options)

    plain = {key: _plain(value) for key, value in options.items()}
    return Recipe(name, {"count": count, **plain, **inputs}, SIMULATOR, make)


def _plain(value: Any) -> Any:
    """A setting as JSON; arrays by their checksum."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def target_ranges() -> EyeRanges:
    """The stand-in target's own statistics: gaze as at a laptop, light from the side, looser framing and head pose.

    Gaze is normal about 9 degrees down, inside the uniform range that the synthetic eyes cover, as laptop gaze is.
    """
    normal = np.random.default_rng(20170721).normal((-9.0, 0.0), (5.5, 7.5), (4000, 2))
    inside = normal[(normal[:, 0] > -22) & (normal[:, 0] < 4) & (np.abs(normal[:, 1]) < 18)]
    return replace(
        EyeRanges(),
        head_yaw_normal_deg=(-4.0, 8.0),
        light_azimuth_normal_deg=(20.0, 45.0),
        light_elevation_normal_deg=(30.0, 20.0),
        ambient_intensity=(0.25, 0.7),
        screen_intensity=(0.2, 0.8),
        shift_x_normal_mm=(1.2, 0.9),
    ).with_prior(np.deg2rad(inside))


def _embedded(config: Config, seed: int, out: Path) -> list[Recipe]:
    # Textures take seconds to paint: once per call, and only where a store is to be made.
    target = functools.cache(lambda: procedural_assets(seed=1, variant="target"))
    source = functools.cache(lambda: procedural_assets(seed=0))
    stand_in: dict[str, Any] = {"ranges": target_ranges(), "sensor": CameraModel()}
    sizes, named = config.data, {"assets": "procedural target"}
    streams = [3 * seed + part for part in range(3)]  # of random numbers, one per store
    labelled = _rendered(LABELS, sizes.real_images, config, streams[1], target, named, **stand_in)
    unlabelled = without_labels(out / LABELS, sizes.size, lambda: ())
    return [
        _rendered(
            "synthetic",
            sizes.synthetic_images,
            config,
            streams[0],
            source,
            {"assets": "procedural"},
            ranges=EyeRanges(),
        ),
        labelled,
        replace(labelled, name="real", sources=(*labelled.sources, WRITERS), make=unlabelled),
        _rendered("test", sizes.test_images, config, streams[2], target, named, **stand_in),
    ]


def _assets_recipe(root: Path, config: Config, seed: int, ranges: EyeRanges) -> Recipe:
    folder = root / "unityeyes2"
    files = sorted(path for path in (folder / "Assets").rglob("*") if path.is_file())
    if not files:
        raise DataError(
            folder / "Assets",
            found="no files",
            expected="UnityEyes' assets",
            remedy="fetch them with: simgan data fetch unityeyes2",
        )
    digest = hashlib.sha256("".join(sha256(path) for path in files).encode()).hexdigest()
    return _rendered(
        "synthetic",
        config.data.synthetic_images,
        config,
        3 * seed,
        lambda: load_assets(folder),
        {"assets": "unityeyes2", "files": digest},
        ranges=ranges,
    )


def gaze_prior_ranges(root: Path, tested: int = TESTED_PERSON) -> EyeRanges:
    """Ranges fitted to MPIIGaze, with the gaze of the 14 persons not tested, or a uniform one without that file."""
    published = root / "mpiigaze" / PUBLISHED
    if not published.is_file():
        LOGGER.warning("no %s: the simulator's gaze is uniform instead of the other 14 persons'", published)
        return MPIIGAZE_RANGES
    return MPIIGAZE_RANGES.with_prior(published_prior(published, exclude_subject=tested))


def held_back_person(root: Path, eyes: mpiigaze.Eyes) -> int:
    """Who is tested on mini data: the published person with these labels, else p00, as the file is called."""
    published = root / "mpiigaze" / PUBLISHED
    if not published.is_file():
        return TESTED_PERSON
    labels = read_arrays(published, ("pitch_yaw",), mpiigaze.DOWNLOAD)["pitch_yaw"]
    person = mpiigaze.person_of(eyes.pitch_yaw, eyes.row, labels)
    if person is None:
        LOGGER.warning("the labels of %s are nobody's in %s; the prior leaves out p00", mpiigaze.PERSON, PUBLISHED)
    return TESTED_PERSON if person is None else person


def _mini(root: Path, config: Config, seed: int, out: Path) -> list[Recipe]:
    eyes = mpiigaze.load_mini(root)
    train, test = mpiigaze.split_mini(eyes.row)
    if not len(train) or not len(test):
        path = root / "mpiigaze" / mpiigaze.PERSON
        raise DataError(path, found=f"{len(eyes)} images", expected="enough for two parts", remedy=mpiigaze.DOWNLOAD)
    mixed = root / "mpiigaze" / mpiigaze.UNLABELLED
    person = held_back_person(root, eyes)
    file = sha256(root / "mpiigaze" / mpiigaze.PERSON)
    inputs: dict[str, Any] = {"size": list(config.data.size), "person": person, "p00": file}
    source = (PACKAGE / "datasets" / "mpiigaze.py", WRITERS)

    def labelled(index: NDArray[np.int64], part: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            write_eyes(path, config.data.size, {**inputs, "part": part}, [(person, 0, eyes.subset(index))])

        return make

    def others() -> list[NDArray[np.uint8]]:
        return mpiigaze.load_unlabelled(root, eyes.images[train])

    unlabelled = {**inputs, "unlabelled": sha256(mixed) if mixed.is_file() else None}
    return [
        _assets_recipe(root, config, seed, gaze_prior_ranges(root, person)),
        Recipe(LABELS, inputs, source, labelled(train, "train")),
        Recipe("real", unlabelled, source, without_labels(out / LABELS, config.data.size, others)),
        Recipe("test", inputs, source, labelled(test, "test")),
    ]


def _full(root: Path, config: Config, seed: int, out: Path) -> list[Recipe]:
    gaze_root = mpiigaze.full_root(root)
    days = mpiigaze.day_files(gaze_root)
    lists = [gaze_root / mpiigaze.SAMPLE_LISTS / f"p{person:02d}.txt" for person in days]
    for person in days:
        mpiigaze.sample_list(gaze_root, person)  # complains now rather than after an hour
    files = [path for paths in days.values() for path in paths]
    inputs: dict[str, Any] = {"size": list(config.data.size), "files": listing_sha256(files + lists)}
    source = (PACKAGE / "datasets" / "mpiigaze.py", WRITERS)

    def part(name: Literal["rest", "evaluation"]) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            eyes: Iterator[tuple[int, int, mpiigaze.Eyes]] = mpiigaze.read_full(gaze_root, name)
            write_eyes(path, config.data.size, {**inputs, "part": name}, eyes)

        return make

    return [
        _full_synthetic(root, config, seed),
        Recipe(LABELS, inputs, source, part("rest")),
        Recipe("real", inputs, source, without_labels(out / LABELS, config.data.size, lambda: ())),
        Recipe("test", inputs, source, part("evaluation")),
    ]


def _full_synthetic(root: Path, config: Config, seed: int) -> Recipe:
    """UnityEyes' own output where there is some, else renders of its assets."""
    for folder in (root / "UnityEyes", root / "unityeyes"):
        if any((folder / "imgs").glob("*.jpg")) or any(folder.glob("*.jpg")):
            limit = config.data.synthetic_images
            inputs = {**unityeyes_provenance(folder, limit=limit), "size": list(config.data.size)}

            make = functools.partial(prepare_unityeyes, folder, size=config.data.size, limit=limit)
            return Recipe("synthetic", inputs, (PACKAGE / "datasets" / "unityeyes.py",), make)
    return _assets_recipe(root, config, seed, MPIIGAZE_RANGES)
