"""The report of a run: claims, metrics, provenance, tables, figures and one index page with the scorecard.

    python -m simgan_core.report --run RUN_DIR --out REPORT

Everything here is copied or computed from what the notebooks wrote; nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simgan_core.claims import CLAIMS, judge
from simgan_core.config import to_dict
from simgan_core.execution import TRACE
from simgan_core.profiles import profile
from simgan_core.provenance import PACKAGE, commit, device, package_versions, read_json, write_json
from simgan_core.reproduce import only
from simgan_core.run_folder import Metric, RunFolder, settings_digest

Row = dict[str, Any]


MEASURING = "0[1-8]_*"
"""Result folders of the notebooks that measure; the scorecard shows what they wrote."""


def collect_claims(run: RunFolder) -> list[Row]:
    """All claims in the paper's order; those that no notebook of this run has judged are 'not evaluated'."""
    judged = {row["id"]: row for file in _results(run, "claims.json") for row in read_json(file)}
    return [judged.get(claim.id) or judge(claim.id, None, profile=run.config.profile).to_dict() for claim in CLAIMS]


def collect_metrics(run: RunFolder) -> dict[str, Row]:
    """Every notebook's numbers by name; numbers of single seeds are averaged, with a t interval over seeds.

    Raises:
        ValueError: two notebooks give the same name.

    """
    metrics: dict[str, Row] = {}
    for folder in _notebook_folders(run):
        for name, metric in _metrics_of(folder, run.seeds).items():
            if name in metrics:
                raise ValueError(f"{folder.name} repeats the metric {name!r}; rename it in one of the notebooks.")
            metrics[name] = metric
    return dict(sorted(metrics.items()))


def _notebook_folders(run: RunFolder) -> list[Path]:
    """Result folders of the measuring notebooks (01 to 08), in order, but for those of earlier settings."""
    earlier = of_earlier_settings(run)
    return [path for path in sorted(run.path.glob(MEASURING)) if path.is_dir() and path.name not in earlier]


def of_earlier_settings(run: RunFolder) -> set[str]:
    """Notebooks that ran last when the run had other settings: `--only` leaves them there, reports leave them out."""
    earlier = set()
    for name, trace in _traces(run).items():
        notebook, now = _notebook_of(name), settings_digest(run.path, _notebook_of(name))
        if trace.get("settings", now) != now:
            earlier.add(notebook)
    return earlier


def _notebook_of(name: str) -> str:
    """The notebook of an execution, which has a seed in its name where it is one of several."""
    return name.split("-seed-")[0]


def _is_of(run: RunFolder, name: str) -> bool:
    """Whether an execution is of a seed that the run still has, or of all of them."""
    _, of_one, seed = name.partition("-seed-")
    return not of_one or int(seed) in run.seeds


def _traces(run: RunFolder) -> dict[str, Row]:
    """What each execution of a notebook has left, by notebook (and seed); seeds that a run once had are left out."""
    files = {file.name.removesuffix(TRACE): file for file in sorted((run.path / "notebooks").glob(f"*{TRACE}"))}
    return {name: read_json(file) for name, file in files.items() if _is_of(run, name)}


def _results(run: RunFolder, name: str) -> list[Path]:
    folders = _notebook_folders(run)
    return [file for folder in folders for file in sorted([*folder.glob(name), *folder.glob(f"seed-*/{name}")])]


def _metrics_of(folder: Path, seeds: Sequence[int]) -> dict[str, Row]:
    if (folder / "metrics.json").is_file():
        return dict(read_json(folder / "metrics.json"))
    files = [folder / f"seed-{seed}" / "metrics.json" for seed in seeds]
    per_seed = [read_json(file) for file in files if file.is_file()]
    names = [name for name in (per_seed[0] if per_seed else {}) if all(name in one for one in per_seed)]
    return {name: over_seeds([one[name] for one in per_seed]).to_dict() for name in names}


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> Metric:
    """Mean of one metric over seeds, with the 95 % t interval; a single seed has no interval."""
    from simgan_core.evaluation.statistics import t_interval

    values = [float(row["value"]) for row in rows]
    mean = sum(values) / len(values)
    low, high = t_interval(values) or (None, None)
    return Metric(mean, low, high, str(rows[0]["unit"]), len(values), sum(int(row["n"]) for row in rows))


def provenance(run: RunFolder) -> Row:
    """How this run came about; names no folder and no machine."""
    earlier = of_earlier_settings(run)
    traces = {name: trace for name, trace in _traces(run).items() if _notebook_of(name) not in earlier}
    return {
        "command": _command(run, {_notebook_of(name) for name in traces}),
        "commit": _commit_of(traces.values()),
        "data": run.data,
        "real_is_standin": not run.shows_people,
        "seeds": list(run.seeds),
        "device": device(),
        "packages": package_versions(),
        "notebooks": traces,
        "trainings": _trainings(run),
        "wall_s": {name: trace["wall_s"] for name, trace in traces.items()},
        "total_wall_s": total_wall_s(traces.values()),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "configuration": to_dict(run.config),
    }


def _commit_of(traces: Iterable[Mapping[str, Any]]) -> str | None:
    """The commit that all notebooks were run by; the present one where they differ or did not note it."""
    commits = {trace.get("commit") for trace in traces}
    return commits.pop() if len(commits) == 1 and None not in commits else commit()


def _trainings(run: RunFolder) -> dict[str, str | None]:
    """The commit by which each seed's refiner was trained; a notebook that runs again finds it there."""
    files = {seed: run.training(seed) / "provenance.json" for seed in run.seeds}
    return {f"seed-{seed}": read_json(file).get("commit") for seed, file in files.items() if file.is_file()}


def _command(run: RunFolder, notebooks: Collection[str]) -> str:
    usual, given = profile(run.config.profile, run.data), run.config
    more = "" if given.seeds == usual.seeds else f" --seeds {given.seeds}"
    more += "" if given.ablation_stop == usual.ablation_stop else f" --ablation-stop {given.ablation_stop}"
    part = only(notebooks)
    more += f" --only {part}" if part else ""
    return f"simgan reproduce --data {run.data} --profile {given.profile}{more}"


def in_pieces(origin: Mapping[str, Any]) -> bool:
    """Whether notebooks and refiners' trainings of a report are of several commits.

    Its time is then the sum of each notebook's last run, and lacks trainings that an earlier one had left.
    """
    commits = {trace.get("commit") for trace in origin.get("notebooks", {}).values()}
    return len(commits | set(origin.get("trainings", {}).values())) > 1


def total_wall_s(traces: Iterable[Mapping[str, Any]]) -> float:
    """Seconds during which at least one notebook ran: side by side counts once, a pause between two starts does not."""
    total, end = 0.0, -math.inf
    for start, seconds in sorted((trace["started"], trace["wall_s"]) for trace in traces):
        total += max(0.0, start + seconds - max(start, end))
        end = max(end, start + seconds)
    return round(total, 1)


def write_report(run: RunFolder, out: Path) -> Path:
    """Write the report of `run` to the folder `out` and return its index page, which is written last."""
    out.mkdir(parents=True, exist_ok=True)
    claims, metrics, origin = collect_claims(run), collect_metrics(run), provenance(run)
    write_json(out / "claims.json", claims)
    write_json(out / "metrics.json", metrics)
    write_json(out / "provenance.json", origin)
    for kind, pattern in (("figures", "*.png"), ("tables", "*.csv")):
        _copy(run, kind, pattern, out / kind)
    notebooks = _pages(run)
    _replace_files(notebooks, out / "notebooks", {file: file.name for file in notebooks})
    index = _index(run, claims, metrics, origin, _figures(out / "figures"), [file.name for file in notebooks])
    partial = out / ".index.html.partial"
    partial.write_text(index, encoding="utf-8")
    partial.replace(out / "index.html")
    return out / "index.html"


def _pages(run: RunFolder) -> list[Path]:
    """The executed notebooks as HTML, but for those of earlier settings and of seeds that the run no longer has."""
    earlier = of_earlier_settings(run)
    files = sorted((run.path / "notebooks").glob("*.html"))
    return [file for file in files if _notebook_of(file.stem) not in earlier and _is_of(run, file.stem)]


def _copy(run: RunFolder, kind: str, pattern: str, out: Path) -> None:
    """Gather figures or tables; of notebooks that run once per seed, the first seed's stand for all."""
    named: dict[Path, str] = {}
    for folder in _notebook_folders(run):
        number = folder.name.split("_")[0]
        source = folder / kind if (folder / kind).is_dir() else folder / f"seed-{run.seeds[0]}" / kind
        named |= {file: f"{number}_{file.name}" for file in sorted(source.glob(pattern))}
    _replace_files(named, out, named)


def _replace_files(files: Iterable[Path], out: Path, names: Mapping[Path, str]) -> None:
    """Make `out` hold exactly these files."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, partial / names[file])
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _figures(folder: Path) -> list[Row]:
    """Name and caption of each figure; `save_figure` keeps the caption inside the picture."""
    from PIL import Image

    found = []
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as picture:
            found.append({"file": f"figures/{file.name}", "caption": picture.info.get("Description", "")})
    return found


def _index(
    run: RunFolder, claims: list[Row], metrics: dict[str, Row], origin: Row, figures: list[Row], notebooks: list[str]
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PACKAGE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": format_number, "interval": format_interval, "minutes": format_minutes, "hardware": format_hardware,
    }  # fmt: skip
    return environment.get_template("index.html").render(
        title=run.title, real_name=run.real_name, shows_people=run.shows_people, claims=claims, metrics=metrics,
        arms=arms(metrics), origin=origin, in_pieces=in_pieces(origin), figures=figures, notebooks=notebooks,
        profile=run.config.profile,
    )  # fmt: skip


def arms(metrics: Mapping[str, Row]) -> list[Row]:
    """The gaze comparison as rows: title, mean error and share within 7 degrees of each arm."""
    from simgan_core.evaluation.comparison import TITLES

    found = [(name, f"gaze.{name}.mean_error_deg", f"gaze.{name}.within_7_deg") for name in TITLES]
    return [
        {"name": name, "title": TITLES[name], "error": metrics[error], "within": metrics.get(within)}
        for name, error, within in found
        if error in metrics
    ]


def format_number(value: float | None, unit: str = "") -> str:
    """Three significant digits and the unit; a dash where there is no number."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 1000 else max(0, 2 - math.floor(math.log10(abs(value)))) if value else 1
    text = f"{value:,.{min(digits, 4)}f}"
    return text + (unit if unit in ("", "°") else f" {unit}")


def format_interval(row: Mapping[str, Any], key: str = "value") -> str:
    """'4.62° (4.45 to 4.80)', or the value alone where there is no interval."""
    if row.get(key) is None:
        return "–"
    text = format_number(row[key], row["unit"])
    if row["low"] is None:
        return text
    return f"{text} ({format_number(row['low'])} to {format_number(row['high'])})"


def format_minutes(seconds: float) -> str:
    """'6.3 min', or seconds where they are few."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def format_hardware(device: Mapping[str, Any]) -> str:
    """'2 cores of AMD EPYC with bf16', or the GPU's name; without the last words in reports that do not say."""
    if "gpu" in device:
        return str(device["gpu"])
    bf16 = "" if "bf16" not in device else " with bf16" if device["bf16"] else " without bf16"
    return f"{device['cores']} cores of {device['cpu']}{bf16}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m simgan_core.report`."""
    parser = argparse.ArgumentParser(prog="python -m simgan_core.report", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="the run's working folder")
    parser.add_argument("--out", type=Path, required=True, help="the report's folder")
    options = parser.parse_args(arguments)
    print(write_report(RunFolder.read(options.run), options.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
