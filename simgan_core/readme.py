"""Fill the numbers of README.md and docs/ from `reports/` and the code: python -m simgan_core.readme [--check]

Everything between `<!-- name:begin -->` and `<!-- name:end -->` is written from what runs have left, or from settings
in the code; nothing there is typed by hand. Reports on real images come before the stand-in, larger profiles before
smaller ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from simgan_core.config import to_dict
from simgan_core.evaluation.leave_one_out import ARM, TITLE
from simgan_core.profiles import profile
from simgan_core.provenance import REPOSITORY, read_json
from simgan_core.report import arms, format_hardware, format_interval, in_pieces
from simgan_core.simulators.mpiigaze_ranges import MPIIGAZE_RANGES
from simgan_core.simulators.ranges import EyeRanges
from simgan_core.standins import candidate_at, judged, one_standard_error

OTHERS = f"gaze.{ARM}.mean_error_deg"
"""The published estimator that 07 tests on the same images: no arm of ours."""
README = REPOSITORY / "README.md"
RESULTS = REPOSITORY / "docs" / "results.md"
HANDS = REPOSITORY / "docs" / "hands.md"
FIT = REPOSITORY / "docs" / "simulator_fit.md"
SELECTION = REPOSITORY / "docs" / "selection.md"
REPORTS = REPOSITORY / "reports"
LAMBDA = "lambda-embedded"
"""Selections by which the default lambda was judged, as `simgan select --json` printed them."""
FIRST = (
    "constant", "raw", "raw_augmented", "refined", "refined_augmented", "raw_augmented_committee",
    "refined_augmented_committee", "oracle", ARM,
)  # fmt: skip
"""Arms of the gaze comparison that README shows; docs/results.md shows all."""
UNFITTED = "unfitted-mini"
"""Selections on renders of other ranges, as `simgan select --json` printed them: `<name>-seed-<n>.json`."""
RANGES = {
    "fitted": "fitted ranges, gaze of the other 14 persons (`mini`)",
    "plain": "plain ranges, gaze of the other 14 persons",
    "uniform": "plain ranges, uniform gaze",
}
ORDER = ("paper-full", "gpu-full", "cpu-full", "gpu-mini", "cpu-mini", "gpu-embedded", "cpu-embedded")
"""Reports that README shows, in this order."""
OPTIONS = ("seeds", "ablation_stop")
"""Settings that a run's command names."""
UNTOLD = ("training.log_every", "training.sample_every", "training.checkpoint_every")
"""Settings that decide no number."""
EMPTY = "*No run is committed yet: `make reproduce` makes one.*"


def reports(folder: Path = REPORTS) -> list[Path]:
    """Finished reports, the most telling one first."""
    return [folder / name for name in ORDER if (folder / name / "index.html").is_file()]


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replace the contents of the named blocks.

    Raises:
        ValueError: the text lacks a block.

    """
    for name, content in blocks.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the text has no block {name!r}; expected <!-- {name}:begin --> … <!-- {name}:end -->.")
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)  # type: ignore[misc]
    return text


def blocks(folder: Path = REPORTS) -> dict[str, str]:
    """The README's blocks from the reports in `folder`."""
    found = reports(folder)
    return {
        "strip": _strip(found), "claims": _claims(found), "arms": _arms(found, FIRST),
        "minutes": _minutes(found), "profiles": _profiles(found),
    }  # fmt: skip


def result_blocks(folder: Path = REPORTS) -> dict[str, str]:
    """Blocks of docs/results.md from the reports in `folder`: every arm, committees, distances to the target."""
    found = reports(folder)
    return {"arms": _arms(found), "committees": _committees(found), "realism": _realism(found)}


def hand_blocks(folder: Path = REPORTS) -> dict[str, str]:
    """Blocks of docs/hands.md from the first report that compared recorded hands: poses fitted, edges beside edges."""
    for report in reports(folder):
        poses, edges = (report / "tables" / f"08_{name}.csv" for name in ("pose_fit", "recorded_edges"))
        if poses.is_file() and edges.is_file():
            named = f"Of report [{report.name}](../{_link(report, 'index.html')}):\n\n"
            return {name: named + _markdown(file) for name, file in (("poses", poses), ("edges", edges))}
    return {"poses": EMPTY, "edges": EMPTY}


def fit_blocks() -> dict[str, str]:
    """Block of docs/simulator_fit.md from the code: what the fit to MPIIGaze changed in the plain ranges."""
    plain, fitted = dataclasses.asdict(EyeRanges()), dataclasses.asdict(MPIIGAZE_RANGES)
    lines = ["| `EyeRanges` | plain | fitted |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {_range_cell(name, plain[name])} | {_range_cell(name, value)} |"
        for name, value in fitted.items()
        if value != plain[name]
    ]
    return {"ranges": "\n".join(lines)}


def unfitted_blocks(folder: Path = REPORTS) -> dict[str, str]:
    """Block of docs/simulator_fit.md: errors on the validation part by ranges, one row per selection."""
    rows = []
    for name, title in RANGES.items():
        for file in sorted((folder / UNFITTED).glob(f"{name}-seed-*.json")):
            found = read_json(file)
            errors = [found["raw_validation_error_deg"]]
            errors += [one["validation_error_deg"] for one in found["candidates"]]
            lambdas = [one["lambda_sum"] for one in found["candidates"]]
            cells = [f"{error['plain']['value']:.2f}, {error['augmented']['value']:.2f}" for error in errors]
            rows.append(f"| {title} | {found['settings']['seed']} | " + " | ".join(cells) + " |")
    if not rows:
        return {"unfitted": "*No selection is committed.*"}
    head = "| renders | seed | raw (°) | " + " | ".join(f"refined, λ = {value:g}" for value in lambdas) + " |"
    return {"unfitted": "\n".join([head, "|---|---|" + "---|" * (1 + len(lambdas)), *rows])}


def lambda_blocks(folder: Path = REPORTS) -> dict[str, str]:
    """Block of docs/selection.md: what `simgan select --validation` found on `embedded`, one file per seed."""
    found = [read_json(file) for file in sorted((folder / LAMBDA).glob("seed-*.json"))]
    if not found:
        return {"lambda": "*No selection is committed.*"}
    choice = one_standard_error(judged(found))
    raw = [{"auc": one["raw_auc"], "validation_error_deg": one["raw_validation_error_deg"]} for one in found]
    rows = [_lambda_row("raw renders", raw, "–")]
    for one in choice.candidates:
        seeds = [candidate_at(selection, (one.lambda_sum, one.step)) for selection in found]
        rows.append(_lambda_row(f"λ = {one.lambda_sum:g}", seeds, choice.verdict(one)))
    settings = [selection["settings"] for selection in found]
    what = f"{choice.candidates[0].step:,} steps, seeds {', '.join(str(one['seed']) for one in settings)}, "
    what += f"{settings[0]['cnns']} gaze CNNs each"
    head = f"| {what} | AUC of a fresh D | shift (px) | error (°), mean and by seed | augmented | by the rule |"
    error = f"Standard error of a mean over seeds: {choice.standard_error:.2f}°."
    return {"lambda": "\n".join([head, "|---|---|---|---|---|---|", *rows, "", error])}


def _lambda_row(title: str, seeds: Sequence[Mapping[str, Any]], verdict: str) -> str:
    def mean(name: str, digits: int) -> str:
        values = [one[name]["value"] for one in seeds if name in one]
        return f"{sum(values) / len(values):.{digits}f}" if values else "–"

    def errors(kind: str) -> str:
        values = [one["validation_error_deg"][kind]["value"] for one in seeds]
        return f"{sum(values) / len(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"

    measured = f"{mean('auc', 3)} | {mean('shift_px', 2)} | {errors('plain')} | {errors('augmented')}"
    return f"| {title} | {measured} | {verdict} |"


def _range_cell(name: str, value: float | tuple[float, float]) -> str:
    """'-3.5 ± 3.27' for the mean and deviation of a normal distribution, '0.48 to 0.88' for a uniform one."""
    if not isinstance(value, tuple):
        return f"{value:g}"
    low, high = value
    return f"{low:g} ± {high:g}" if "_normal" in name else f"{low:g} to {high:g}"


def _markdown(file: Path) -> str:
    """A report's table; numbers to three digits, empty cells as dashes."""
    table = pd.read_csv(file)
    cells = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    lines = [list(table.columns), ["---"] * len(table.columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3g}"


def _strip(found: Sequence[Path]) -> str:
    for report in found:
        picture = report / "figures" / "02_strip.png"
        if picture.is_file():
            return f"![{_caption(picture)}]({_link(report, 'figures/02_strip.png')})"
    return EMPTY


def _caption(picture: Path) -> str:
    from PIL import Image

    with Image.open(picture) as image:
        return str(image.info.get("Description", ""))


def _claims(found: Sequence[Path]) -> str:
    if not found:
        return EMPTY
    columns = [{row["id"]: row for row in read_json(report / "claims.json")} for report in found]
    ours = [f"ours, [{report.name}]({_link(report, 'index.html')})" for report in found]
    lines = [
        "| claim | paper | " + " | ".join(ours) + " |",
        "|---|---|" + "---|" * len(found),
    ]
    for row in columns[0].values():
        cells = [_claim_cell(column.get(row["id"])) for column in columns]
        lines.append(f"| **{row['id']}** {row['title']} | {row['paper']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _claim_cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["ours"] is None:
        return "not evaluated" if row is None else str(row["verdict"])
    return f"{format_interval(row, 'ours')}: **{row['verdict']}**"


def _arms(found: Sequence[Path], chosen: Sequence[str] | None = None) -> str:
    """Mean error of every arm, or of the chosen ones, one column per report."""
    if not found:
        return EMPTY
    metrics = {report: read_json(report / "metrics.json") for report in found}
    titles = {arm["name"]: arm["title"] for report in found for arm in arms(metrics[report])}
    if any(OTHERS in metrics[report] for report in found):
        titles[ARM] = f"*Published, same test images:* {TITLE}"
    names = " | ".join(report.name for report in found)
    lines = [f"| gaze CNN trained on | {names} |", "|---|" + "---|" * len(found)]
    for name, title in titles.items():
        if chosen is not None and name not in chosen:
            continue
        cells = [metrics[report].get(f"gaze.{name}.mean_error_deg") for report in found]
        lines.append(f"| {title} | " + " | ".join(format_interval(cell) if cell else "–" for cell in cells) + " |")
    return "\n".join(lines)


def _committees(found: Sequence[Path]) -> str:
    """By how much the error of one arm lies below another's, where all CNNs of an arm answer together."""
    tables = {report.name: report / "tables" / "07_committees.csv" for report in found}
    rows = [
        f"| {name} | {arm} | {other} | {error:.2f} | {others:.2f} | {lower:.1f} ({low:.1f} to {high:.1f}) |"
        for name, file in tables.items()
        if file.is_file()
        for arm, other, error, others, lower, low, high, *_ in pd.read_csv(file).itertuples(index=False)
    ]
    head = ["| report | arm | beside | error (°) | of the other (°) | lower by (%) |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else EMPTY


def _realism(found: Sequence[Path]) -> str:
    """How far raw and refined renders are from the target, two columns per report that measured it."""
    tables = {report.name: report / "tables" / "07_realism.csv" for report in found}
    measured = {
        name: pd.read_csv(file).set_index(["measure", "images"]) for name, file in tables.items() if file.is_file()
    }
    if not measured:
        return EMPTY
    kinds = ("raw", "refined")
    lines = [
        "| distance to the target | " + " | ".join(f"{name}: {kind}" for name in measured for kind in kinds) + " |"
    ]
    lines += ["|---|" + "---|" * len(kinds) * len(measured)]
    for measure in dict.fromkeys(measure for table in measured.values() for measure, _ in table.index):
        cells = [_distance(table, (measure, kind)) for table in measured.values() for kind in kinds]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _distance(table: pd.DataFrame, row: tuple[str, str]) -> str:
    if row not in table.index:
        return "–"
    value, low, high = (_cell(number) for number in table.loc[row, ["value", "low", "high"]])
    return f"{value} ({low} to {high})"


def _minutes(found: Sequence[Path]) -> str:
    if not found:
        return EMPTY
    lines = ["| run | hardware | seeds | minutes |", "|---|---|---|---|"]
    for report in found:
        origin = read_json(report / "provenance.json")
        hardware = format_hardware(origin["device"])
        minutes = f"{origin['total_wall_s'] / 60:.0f}" if origin.get("total_wall_s") else "–"
        minutes += ", in pieces" if in_pieces(origin) else ""
        lines.append(f"| `{origin['command']}` | {hardware} | {len(origin['seeds'])} | {minutes} |")
    return "\n".join(lines)


def _profiles(found: Sequence[Path]) -> str:
    """Settings by which reports differ from the profiles as they are now, one line per report."""
    if not found:
        return EMPTY
    lines = []
    for report in found:
        made_with = read_json(report / "provenance.json").get("configuration")
        differing = _differing(made_with, to_dict(profile(made_with["profile"]))) if made_with else []
        if differing:
            lines.append(f"- `{report.name}` is of an earlier profile: " + ", ".join(differing) + ".")
    return "\n".join(lines) or "All reports are of the profiles as they are now."


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """'`training.batch` 32 (now 8)' for each setting that decides numbers and has changed."""
    before, after = (pd.json_normalize(dict(tree)).to_dict("records")[0] for tree in (then, now))
    return [
        f"`{name}` {before.get(name, 'not there yet')} (now {value})"
        for name, value in after.items()
        if before.get(name) != value and name not in UNTOLD and (name not in OPTIONS or name not in before)
    ]


def _link(report: Path, file: str) -> str:
    return f"{report.parent.name}/{report.name}/{file}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m simgan_core.readme`."""
    parser = argparse.ArgumentParser(prog="python -m simgan_core.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is out of date")
    options = parser.parse_args(arguments)
    stale = []
    pages = {
        README: blocks(), RESULTS: result_blocks(), HANDS: hand_blocks(), FIT: fit_blocks() | unfitted_blocks(),
        SELECTION: lambda_blocks(),
    }  # fmt: skip
    for file, content in pages.items():
        before = file.read_text(encoding="utf-8")
        after = fill(before, content)
        if after != before:
            stale.append(file.name)
        if not options.check:
            file.write_text(after, encoding="utf-8")
    if options.check and stale:
        print(f"{' and '.join(stale)} out of date; run `make readme`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
