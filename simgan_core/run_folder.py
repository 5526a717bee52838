"""The working folder of a run: what a notebook reads and where it leaves its results.

    RUN_DIR/config.json, run.json         configuration; which data, and where they lie
    RUN_DIR/stores/                       synthetic, real, test: written by 01_data
    RUN_DIR/seed-<n>/                     one training: weights, checkpoint, metrics, samples
    RUN_DIR/<notebook>[/seed-<n>]/        claims.json, metrics.json, tables/, figures/ and local/

Pictures in figures/ may be published; pictures in local/ show single images of real people and stay on the machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simgan_core.claims import ClaimResult
from simgan_core.config import Config, from_json, to_json
from simgan_core.profiles import profile
from simgan_core.provenance import home, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from simgan_core.evaluation.statistics import Estimate

DATA = ("embedded", "mini", "full")
MAX_PICTURE_BYTES = 300_000
RESIZABLE = ("seeds", "ablation_seeds", "ablation_stop")
"""Settings that a run may change and keep what it has."""
SHOW_ABLATIONS = ("03", "04", "05", "07")
"""Notebooks whose results depend on the stop where ablations end."""


@dataclass(frozen=True)
class Metric:
    """A measured number with its 95 % interval; `low` and `high` are None where a single seed gives none.

    `note` says what a reader must know before using the number (e.g. that no person was asked).
    """

    value: float
    low: float | None
    high: float | None
    unit: str
    seeds: int
    n: int
    note: str = ""

    @classmethod
    def of(cls, estimate: Estimate, unit: str) -> Metric:
        """An estimate with its interval."""
        return cls(estimate.value, estimate.low, estimate.high, unit, estimate.seeds, estimate.n)

    def to_dict(self) -> dict[str, object]:
        """The metric as `metrics.json` holds it; `note` only where there is one."""
        return {name: value for name, value in vars(self).items() if name != "note" or value}


def settings_digest(folder: Path, notebook: str) -> str | None:
    """What the settings and the data of the run in `folder` come to for a notebook, apart from the number of seeds.

    A notebook's trace keeps it, so that a report does not take results of earlier settings for the present ones'.
    Where ablations end counts for those that show some. None where the folder holds no run.
    """
    if not (folder / "config.json").is_file():
        return None
    config, run = read_json(folder / "config.json"), read_json(folder / "run.json")
    decides = {name: value for name, value in config.items() if name not in RESIZABLE}
    if notebook.startswith(SHOW_ABLATIONS):
        decides["ablation_stop"] = config["ablation_stop"]
    if run["data"] != "embedded":
        decides["data_root"] = run["data_root"]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class NotebookFolder:
    """Results of one notebook (for one seed, if it runs once per seed)."""

    path: Path
    shows_people: bool

    def write_claims(self, claims: Iterable[ClaimResult] = ()) -> Path:
        """Write the rows that this notebook contributes to the scorecard."""
        return write_json(self.path / "claims.json", [claim.to_dict() for claim in claims])

    def write_metrics(self, metrics: Mapping[str, Metric]) -> Path:
        """Write named numbers, e.g. `gaze.refined.mean_error_deg`."""
        return write_json(self.path / "metrics.json", {name: metric.to_dict() for name, metric in metrics.items()})

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write a table as `tables/<name>.csv`."""
        path = self.path / "tables" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        table.to_csv(partial, index=False, float_format="%.6g")
        partial.replace(path)
        return path

    def save_figure(self, name: str, figure: Figure, caption: str, *, of_real_images: bool = False) -> Path:
        """Save a figure as PNG with its caption inside.

        `of_real_images`: it shows single images of the target domain; where those are people it stays out of reports.
        On the stand-in data nobody is shown, and every figure may be published.

        Raises:
            ValueError: the picture is larger than 300 kB even with 256 colours.

        """
        from simgan_core.figures import save_png

        folder = self.path / ("local" if of_real_images and self.shows_people else "figures")
        return save_png(figure, folder / f"{name}.png", caption, max_bytes=MAX_PICTURE_BYTES)


@dataclass(frozen=True)
class RunFolder:
    """A run: its folder, its data and its configuration."""

    path: Path
    data: str
    config: Config
    data_root: Path

    @classmethod
    def open(cls, path: str | Path, *, data: str, profile_name: str, data_root: Path | None = None) -> RunFolder:
        """Open the folder of a run, or begin one; an empty `path` means `runs/<profile>-<data>` in `home()`.

        `data_root`, where given, becomes the run's: its notebooks read there from then on.

        Raises:
            ValueError: unknown data or profile, or the folder belongs to another one.

        """
        if data not in DATA:
            raise ValueError(f"DATA is {data!r}; expected one of {', '.join(DATA)}.")
        default = profile(profile_name, data)
        folder = Path(path) if path else home() / "runs" / f"{profile_name}-{data}"
        if not (folder / "run.json").is_file():
            return cls.create(folder, data=data, config=default, data_root=data_root)
        run = cls.read(folder)
        if (run.data, run.config.profile) != (data, profile_name):
            raise ValueError(
                f"{folder} holds a run of profile {run.config.profile!r} on data {run.data!r}; the notebook wants "
                f"{profile_name!r} on {data!r}. Change DATA and PROFILE, or give RUN_DIR another folder."
            )
        if data_root is not None and find_data_root(data_root) != run.data_root:
            return cls.create(folder, data=data, config=run.config, data_root=data_root)
        return run

    @classmethod
    def read(cls, folder: Path) -> RunFolder:
        """Open the folder of a run that has begun.

        Raises:
            FileNotFoundError: the folder holds no run.

        """
        if not (folder / "run.json").is_file():
            raise FileNotFoundError(f"{folder} holds no run (no run.json); expected a folder that 01_data has written.")
        run = read_json(folder / "run.json")
        config = from_json((folder / "config.json").read_text(encoding="utf-8"))
        return cls(folder.resolve(), run["data"], config, find_data_root(run["data_root"]))

    @classmethod
    def create(cls, path: Path, *, data: str, config: Config, data_root: Path | None = None) -> RunFolder:
        """Write `run.json` and `config.json` where they are missing or differ, and return the run."""
        path.mkdir(parents=True, exist_ok=True)
        root = find_data_root(data_root)
        run = {"data": data, "data_root": str(root)}
        for name, content in (("run.json", run), ("config.json", json.loads(to_json(config)))):
            if not (path / name).is_file() or read_json(path / name) != content:  # unchanged files keep their date
                write_json(path / name, content)
        return cls(path.resolve(), data, config, root)

    @property
    def title(self) -> str:
        """Profile and data in one word, as reports are named."""
        return f"{self.config.profile}-{self.data}"

    @property
    def shows_people(self) -> bool:
        """True when the real images are of real people, and not of the stand-in target."""
        return self.data != "embedded"

    @property
    def real_name(self) -> str:
        """What figures call the target domain."""
        return "real" if self.shows_people else "stand-in target"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of this run."""
        return tuple(range(self.config.seeds))

    @property
    def ablation_seeds(self) -> tuple[int, ...]:
        """Seeds of the ablations and of the hands: the first of this run's."""
        return self.seeds[: self.config.ablation_seeds]

    @property
    def stores(self) -> Path:
        """Folder of the image stores."""
        return self.path / "stores"

    def training(self, seed: int) -> Path:
        """Folder of one training of the refiner."""
        return self.path / f"seed-{seed}"

    def refiner(self, seed: int) -> Path:
        """Folder of the refiner of `seed`, at the stop that the rule without labels took."""
        return self.training(seed) / "refiner"

    def refined(self, seed: int) -> Path:
        """Store of the synthetic images after the refiner of `seed`."""
        return self.training(seed) / "refined"

    def notebook(self, name: str, seed: int | None = None) -> NotebookFolder:
        """Result folder of a notebook, e.g. `07_gaze_evaluation`; with `seed` where it runs once per seed."""
        folder = self.path / name
        return NotebookFolder(folder if seed is None else folder / f"seed-{seed}", self.shows_people)


def find_data_root(named: str | Path | None = None) -> Path:
    """Folder of the data sets: `named`, else the environment's SIMGAN_DATA_ROOT, else `data/` in `home()`."""
    chosen = named or os.environ.get("SIMGAN_DATA_ROOT") or home() / "data"
    return Path(chosen).expanduser().resolve()
