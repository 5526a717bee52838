"""Export of a study: one row per planned trial, as CSV or Parquet, with what an analysis elsewhere needs.

Each row has subject, plan (trial, kind, source, truth, image), answer, times, browser, the window at the answer, the
software that stored it, and whether a program answered. The settings go along, with the software that planned the
study: in Parquet as metadata, beside a CSV as JSON.
Tokens and the study's secret stay in the database.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from simgan_core.datasets.errors import DataError
from simgan_core.provenance import write_json
from simgan_core.study.storage import StudyStore

# A spreadsheet takes a cell that begins with one of these for a formula, also after blanks.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
COLUMNS = (
    "subject", "responder", "simulated", "trial", "kind", "source", "truth", "answer", "correct", "reaction_ms",
    "exposure_ms", "answered", "image", "file", "session", "browser", "window_width", "window_height", "pixel_ratio",
    "software",
)  # fmt: skip


def trials_table(study: StudyStore) -> pd.DataFrame:
    """One row per planned trial, answered or not, in the order of subjects and trials."""
    table = pd.DataFrame(study.rows())
    table["simulated"] = table["responder"] != "human"
    correct = (table["answer"] == table["truth"]).astype("boolean")
    table["correct"] = correct.where(table["answer"].isin(["real", "refined"]))
    for name in ("session", "window_width", "window_height"):
        table[name] = table[name].astype("Int64")
    return table[list(COLUMNS)]


def description(study: StudyStore) -> dict[str, Any]:
    """The study's settings, its pictures' origin, software and date, as plain JSON."""
    return {
        "simulated": study.simulated, "software": study.software, "created": study.created, "pictures": study.source,
        "settings": json.loads(study.settings.to_json()),
    }  # fmt: skip


def export(study: StudyStore, out: Path) -> list[Path]:
    """Write the trials to `out` (.csv or .parquet); returns the files. Existing ones are replaced whole.

    Beside NAME.csv lies NAME.study.json, what the study is; a NAME.json may be somebody's settings and is left alone.

    Raises:
        DataError: another suffix.

    """
    table, out = trials_table(study), Path(out)
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".csv":
        spreadsheet_safe(table).to_csv(partial, index=False, lineterminator="\n")
        partial.replace(out)
        return [out, write_json(out.with_suffix(".study.json"), description(study))]
    if out.suffix.lower() == ".parquet":
        _write_parquet(table, partial, description(study))
        return [partial.replace(out)]
    raise DataError(out, found=f"suffix {out.suffix!r}", expected=".csv or .parquet", remedy="name the file so")


def spreadsheet_safe(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before every text that a spreadsheet would run as a formula."""
    safe = table.copy()
    for name in safe.columns:
        if pd.api.types.is_string_dtype(safe[name]) or safe[name].dtype == object:
            safe[name] = safe[name].map(_safe)
    return safe


def _safe(value: Any) -> Any:
    if isinstance(value, str) and (value.startswith(FORMULA) or value.lstrip().startswith(FORMULA)):
        return "'" + value
    return value


def _write_parquet(table: pd.DataFrame, path: Path, about: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), b"simgan_study": json.dumps(about).encode()}
    pq.write_table(content.replace_schema_metadata(metadata), path)
