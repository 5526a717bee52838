"""The long stages of the notebooks, resumable: prepare data, train a refiner, choose its stop, refine the images.

Each stage leaves `made_with.json`, the fingerprint of all that decides its result. A rerun with the same fingerprint
goes on where the stage stopped, or returns at once; with another one the stage starts afresh. So a notebook can be run
again after its text or a figure changed, and costs seconds.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simgan_core.config import to_dict
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.store import Store
from simgan_core.locks import alone
from simgan_core.provenance import PACKAGE, code_fingerprint, read_json, write_json
from simgan_core.run_folder import RunFolder

if TYPE_CHECKING:
    from simgan_core.config import Config
    from simgan_core.datasets.prepare import Prepared
    from simgan_core.stops import Stop, Training

MADE_WITH = "made_with.json"


def prepare_data(run: RunFolder) -> Prepared:
    """The stores of the run: synthetic, real and test; made where missing or out of date. For 01_data."""
    from simgan_core.datasets.prepare import prepare

    with alone(run.path / ".stores.lock"):
        return prepare(run.data, run.config, run.data_root, run.stores, 0)


def prepared_data(run: RunFolder) -> Prepared:
    """The stores that 01_data left; made first where there are none, as in a notebook that is opened alone.

    Existing ones are not checked against the code: notebooks that run side by side must all see the same images.
    """
    from simgan_core.datasets.prepare import LABELS, Prepared

    stores = [run.stores / name for name in ("synthetic", "real", "test", LABELS)]
    if not all((store / "store.json").is_file() for store in stores):
        return prepare_data(run)
    return Prepared(stores[0], stores[1], stores[2], stores[3], real_is_standin=not run.shows_people)


def train_refiner(run: RunFolder, seed: int, *, progress: bool = True) -> Path:
    """Train the refiner of `seed` on the run's stores, kept at its stops, or go on with it; returns its folder."""
    from simgan_core.stops import train_to_stops

    task = training_of(run, seed)
    synthetic, real = Store.open(task.synthetic), Store.open(task.real)
    code = code_fingerprint(PACKAGE / "training.py")
    inputs = {"code": code, "stops": list(task.steps), **training_inputs(synthetic, real, run.config)}
    with alone(task.folder.with_suffix(".lock")):  # a notebook opened by hand beside a run waits for it
        _begin(task.folder, inputs)
        train_to_stops(task, progress=progress)
    return task.folder


def choose_stop(run: RunFolder, seed: int) -> Stop:
    """Let the rule without labels take a stop of the refiner of `seed`, trained before; its weights are the run's."""
    from simgan_core import stops

    training = training_of(run, seed)
    if not all(training.kept(step).is_file() for step in training.steps):
        raise FileNotFoundError(
            f"{training.folder}: no refiner kept at steps {', '.join(map(str, training.steps))}; expected the training "
            f"of seed {seed}. Run 02_training with SEED = {seed} first, or 'simgan reproduce'."
        )
    return stops.choose_stop(training, run.refiner(seed))


def training_of(run: RunFolder, seed: int) -> Training:
    """The training of `seed` on the run's stores, kept at `Config.stops` steps."""
    from simgan_core.stops import Training, spaced

    places = spaced(run.config, run.config.stops)
    synthetic, real = (run.stores / name for name in ("synthetic", "real"))
    return Training(synthetic, real, run.training(seed), run.config, places, seed)


def trained(synthetic: Store, real: Store, folder: Path, config: Config, seed: int, *, progress: bool = True) -> Path:
    """Train a refiner into `folder`, go on with it, or leave what equal settings and stores have made there."""
    from simgan_core.training import train

    _begin(folder, {"code": code_fingerprint(PACKAGE / "training.py"), **training_inputs(synthetic, real, config)})
    return train(synthetic, real, folder, config, seed=seed, resume=True, progress=progress)


def training_inputs(synthetic: Store, real: Store, config: Config) -> dict[str, Any]:
    """What decides a refiner's training besides code and seed: its settings and its images, as plain JSON."""
    tree = to_dict(config)
    settings = {section: tree[section] for section in ("refiner", "discriminator", "loss", "training")}
    return {"settings": settings, "stores": [synthetic.checksum, real.checksum]}


def refine_synthetic(run: RunFolder, seed: int, *, progress: bool = True) -> Store:
    """The synthetic images after the refiner of `seed`, with their labels, as a store."""
    from simgan_core.checkpoints import REFINER, load_refiner
    from simgan_core.datasets.writer import sha256
    from simgan_core.refine import refine_store

    choose_stop(run, seed)
    synthetic, out = Store.open(run.stores / "synthetic"), run.refined(seed)
    weights = run.refiner(seed) / REFINER
    code = code_fingerprint(PACKAGE / "refine.py")
    made_with = {"code": code, "weights": sha256(weights), "synthetic": synthetic.checksum}
    stamp = out.with_name(f"{out.name}-{MADE_WITH}")
    with alone(out.with_name(f"{out.name}.lock")):  # as in `train_refiner`
        if stamp.is_file() and read_json(stamp) == made_with and (kept := whole(out)) is not None:
            return kept
        shutil.rmtree(out, ignore_errors=True)
        refined = refine_store(load_refiner(weights), synthetic, out, progress=progress)
        write_json(stamp, made_with)
        return refined


def whole(path: Path) -> Store | None:
    """The store at `path`; None where there is none, or a damaged one, which is to be made again."""
    try:
        return Store.open(path)
    except DataError:
        return None


def _begin(folder: Path, made_with: dict[str, Any]) -> None:
    """Empty `folder` unless what it holds was made with the same inputs."""
    stamp = folder / MADE_WITH
    if folder.is_dir() and not (stamp.is_file() and read_json(stamp) == made_with):
        shutil.rmtree(folder)
    write_json(stamp, made_with)
