"""Analysis of a study: from a database, an export or any table of answers to table 1, its tests and claim C1.

    analysis = analyse(read_answers("study.db"))
    analysis.to_dict()                     # what `simgan study analyse --json` prints
    judge_c1(analysis, profile="cpu")      # the row of the scorecard

Fixed beforehand, for every study: practice and timeouts do not count; who passes no more than half of the attention
checks of either answer is left out (pressing one key throughout passes all of one); C1 is judged by people alone, at
least `FEWEST_SUBJECTS` of them, and only where the control shows that they looked (they tell unrefined renders from
real images).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from simgan_core import __version__
from simgan_core.claims import BY_ID, ClaimResult, judge
from simgan_core.datasets.errors import DataError
from simgan_core.study.scoring import (
    Confusion,
    Share,
    clopper_pearson,
    equivalence,
    equivalence_over_subjects,
    mixed_logistic,
    over_subjects,
    p_one_sided,
    p_two_sided,
    per_subject,
    sensitivity,
    subject_bootstrap,
)

MARGIN = 0.05  # 'cannot tell': right in 45 to 55 % of the trials, as claim C1 has it
FEWEST_SUBJECTS = 5
COLUMNS = ("subject", "truth", "answer")
VALUES = ("real", "refined")
KINDS = ("practice", "main", "attention", "control")


@dataclass(frozen=True)
class Answers:
    """Answers of a study, one row per answered trial.

    Attributes:
        table: columns subject, truth, answer ('real', 'refined'; answer also 'timeout'), kind; where known trial,
            image, source, reaction_ms.
        responders: 'human', or names that begin with 'simulated'; empty where the file does not say.
        origin: what the study says of its pictures.

    """

    table: pd.DataFrame
    responders: tuple[str, ...]
    origin: dict[str, object]

    @property
    def simulated(self) -> bool:
        """Whether any of the answers is a program's."""
        return any(name != "human" for name in self.responders)


@dataclass(frozen=True)
class Control:
    """Real against unrefined synthetic images (the paper: 162 of 200)."""

    n: int
    correct: int
    share: Share
    p_one_sided: float
    d_prime: float


@dataclass(frozen=True)
class Analysis:
    """What a study found. `main` holds the counted trials of real and refined images."""

    answers: Answers
    main: pd.DataFrame
    control: Control | None
    excluded: tuple[str, ...]
    attention: pd.DataFrame  # subject, checks, passed, failed (whether the subject is left out)
    timeouts: int

    @property
    def cells(self) -> Confusion:
        """Table 1."""
        return Confusion.of(self.main)

    @property
    def subjects(self) -> int:
        """Subjects that count."""
        return int(self.main["subject"].nunique())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where a number does not exist. Shares lie in [0, 1].

        `interval` and `equivalence` take all answers as independent; claim C1 is judged by `interval_over_subjects`,
        to which `equivalence_over_subjects` belongs.
        """
        cells, found = self.cells, sensitivity(self.cells)
        exact = clopper_pearson(cells.correct, cells.n)
        model, clustered = mixed_logistic(self.main), equivalence_over_subjects(self.main, MARGIN)
        bootstrap, wide = subject_bootstrap(self.main), over_subjects(self.main)
        values: dict[str, Any] = _plain({
            "simulated": self.answers.simulated,
            "responders": list(self.answers.responders),
            "subjects": self.subjects,
            "n": cells.n,
            "correct": cells.correct,
            "accuracy": cells.accuracy,
            "low": exact.low,
            "high": exact.high,
            "interval": [exact.low, exact.high],
            "interval_over_subjects": None if wide is None else [wide.low, wide.high],
            "interval_bootstrap": None if bootstrap is None else [bootstrap.low, bootstrap.high],
            "p_one_sided": p_one_sided(cells.correct, cells.n),
            "p_two_sided": p_two_sided(cells.correct, cells.n),
            "d_prime": found.d_prime,
            "criterion": found.criterion,
            "confusion": cells.to_dict(),
            "equivalence": dataclasses.asdict(equivalence(cells.correct, cells.n, MARGIN)),
            "equivalence_over_subjects": None if clustered is None else dataclasses.asdict(clustered),
            "mixed_model": None if model is None else dataclasses.asdict(model),
            "control": None if self.control is None else _control_dict(self.control),
            "per_subject": per_subject(self.main).to_dict("records"),
            "attention": self.attention.to_dict("records"),
            "excluded_subjects": list(self.excluded),
            "timeouts": self.timeouts,
            "claim": judge_c1(self, profile="").to_dict(),
            "origin": self.answers.origin,
            "software": f"simgan-core {__version__}",
        })  # fmt: skip
        return values


def read_answers(where: str | Path) -> Answers:
    """Answers from a study's database (file or URL), or from a table (CSV, Parquet).

    A table needs the columns subject, truth and answer (values 'real' and 'refined'); `kind`, `trial`, `image`,
    `reaction_ms`, `source`, `responder` and `simulated` are used where they exist.

    Raises:
        DataError: no such file, a missing column, a value that is none of these; the message names the row.
        StudyError: the database holds no study.

    """
    if "://" not in str(where):
        path = Path(where)
        if not path.is_file():
            raise DataError(
                path, found="no such file", expected="a study's database, or a CSV with subject, truth and answer",
                remedy="check the path",
            )  # fmt: skip
        if path.suffix.lower() == ".csv":
            return _from_table(path, _read_csv(path))
        if path.suffix.lower() == ".parquet":
            return _from_table(path, pd.read_parquet(path))
    return _from_database(where)


def analyse(answers: Answers) -> Analysis:
    """Sort the answers into main task, control and attention checks, leave out who did not look, and count.

    Raises:
        ValueError: nothing is left to count.

    """
    table = answers.table
    timeouts = table["answer"] == "timeout"
    attention = _attention(table[table["kind"] == "attention"])
    excluded = tuple(attention.loc[attention["failed"], "subject"])
    counted = table[~timeouts & ~table["subject"].isin(excluded)]
    main = counted[counted["kind"] == "main"]
    if main.empty:
        raise ValueError(
            f"{len(table)} answers found, none that counts; expected answers of the main task. "
            f"Left out: {int(timeouts.sum())} timeouts, {len(excluded)} subjects who failed the attention checks."
        )
    late = int((timeouts & (table["kind"] != "practice")).sum())
    return Analysis(answers, main, _control(counted[counted["kind"] == "control"]), excluded, attention, late)


def judge_c1(analysis: Analysis, *, profile: str) -> ClaimResult:
    """Claim C1, 'people cannot tell': judged by people alone, and only where the control says that they looked.

    Answers of programs, or of unknown origin mixed with programs', are not evaluated, carry no number, and say so in
    title and note.
    """
    title = BY_ID["C1"].title
    if analysis.answers.simulated:
        note = "Simulated responders only: " + "; ".join(analysis.answers.responders) + ". "
        aside = analysis.answers.origin.get("set_aside")
        note += f"Answers of people were set aside: {aside}" if aside else "No person was asked."
        empty = judge("C1", None, profile=profile, note=note)
        return dataclasses.replace(empty, title=f"{title} – simulated responders, not people")
    share = over_subjects(analysis.main)
    assert share is not None  # analyse() has seen answers
    estimate = _Percent(100 * share.value, 100 * share.low, 100 * share.high, len(analysis.main))
    missing = _missing(analysis)
    standin = " 'Real' are images of the stand-in target." if analysis.answers.origin.get("real_is_standin") else ""
    people = f"{analysis.subjects} people, {len(analysis.main)} answers."
    result = judge("C1", estimate, profile=profile, note=(f"{people} {missing or ''}{standin}").strip())
    return dataclasses.replace(result, verdict="not evaluated") if missing else result


def _missing(analysis: Analysis) -> str:
    """What a study lacks to say anything about C1; empty where it lacks nothing."""
    if analysis.subjects < FEWEST_SUBJECTS:
        return f"Fewer than {FEWEST_SUBJECTS} people."
    if analysis.main["truth"].nunique() < 2:
        return "Only one kind of image was shown."
    if analysis.control is None:
        return "No control with unrefined images: nothing shows that people looked."
    if analysis.control.share.low <= 0.5:
        return "People did not tell unrefined images from real ones either: nothing shows that they looked."
    return ""


@dataclass(frozen=True)
class _Percent:
    """An estimate in percent, as `judge` wants it."""

    value: float
    low: float
    high: float
    n: int
    seeds: int = 1


def _from_database(where: str | Path) -> Answers:
    from simgan_core.study.storage import open_study

    study = open_study(where)
    try:
        rows = pd.DataFrame(study.rows())
        origin = study.source
    finally:
        study.close()
    table = rows[rows["answer"].notna()]
    # A simulated study says so before anybody has answered.
    responders = sorted(set(table["responder"])) or (["simulated"] if study.simulated else [])
    return Answers(table.reset_index(drop=True), tuple(responders), origin)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)  # spreadsheets of some countries write semicolons
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=separator)
    except ValueError as error:  # pandas' and the decoder's errors are ValueErrors
        raise DataError(
            path, found=f"no table ({error})", expected="comma separated values", remedy="export it as CSV"
        ) from error


def _from_table(path: Path, table: pd.DataFrame) -> Answers:
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise DataError(
            path, found=f"columns {', '.join(map(str, table.columns))}", expected=f"also {', '.join(missing)}",
            remedy="one row per answer with subject, truth and answer",
        )  # fmt: skip
    table = table.copy()
    for name in (*COLUMNS, *[name for name in ("kind", "responder", "image") if name in table]):
        table[name] = table[name].fillna("").astype(str).str.strip()
    table["row"] = range(2, len(table) + 2)  # line of the file, below its header
    if "kind" not in table:
        table["kind"] = "main"
    table = table[table["answer"] != ""]  # an export also lists trials that nobody answered
    _check_values(path, table, "kind", KINDS)
    _check_values(path, table, "truth", VALUES)
    _check_values(path, table, "answer", (*VALUES, "timeout"))
    if (table["subject"] == "").any():
        _bad_row(path, table[table["subject"] == ""], "subject", "a name for every subject")
    if "trial" in table and table.duplicated(["subject", "trial"]).any():
        _bad_row(path, table[table.duplicated(["subject", "trial"])], "trial", "one answer per subject and trial")
    if "reaction_ms" in table:
        table["reaction_ms"] = pd.to_numeric(table["reaction_ms"], errors="coerce")
    responders = _responders(path, table)
    return Answers(table.drop(columns="row").reset_index(drop=True), responders, {"kind": "table", "file": path.name})


def _responders(path: Path, table: pd.DataFrame) -> tuple[str, ...]:
    """Who answered, by the columns `responder` and `simulated`: either of them is enough to name a program."""
    named = table["responder"] if "responder" in table else pd.Series("", table.index)
    found = set(named) - {""}
    if "simulated" in table:
        said = table.assign(simulated=table["simulated"].fillna("").astype(str).str.strip().str.casefold())
        _check_values(path, said, "simulated", ("true", "false", "1", "0", ""))
        if (said["simulated"].isin(["true", "1"]) & ~named.str.startswith("simulated")).any():
            found.add("simulated")
    return tuple(sorted(found))


def _check_values(path: Path, table: pd.DataFrame, column: str, allowed: Sequence[str]) -> None:
    wrong = table[~table[column].isin(allowed)]
    if not wrong.empty:
        _bad_row(path, wrong, column, f"one of {', '.join(allowed)}")


def _bad_row(path: Path, rows: pd.DataFrame, column: str, expected: str) -> None:
    first = rows.iloc[0]
    raise DataError(
        path, found=f"{column} {str(first[column])[:40]!r} in line {first['row']}", expected=expected,
        remedy=f"correct this line{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}",
    )  # fmt: skip


def _attention(checks: pd.DataFrame) -> pd.DataFrame:
    """How many checks each subject had and passed, and who failed; a timeout is not passed."""
    right = checks["answer"] == checks["truth"]
    failed = right.groupby([checks["subject"], checks["truth"]]).mean() <= 0.5
    passed = right.groupby(checks["subject"])
    columns = {"checks": passed.size(), "passed": passed.sum(), "failed": failed.groupby("subject").any()}
    return pd.DataFrame(columns).rename_axis("subject").reset_index()


def _control(answers: pd.DataFrame) -> Control | None:
    if answers.empty:
        return None
    cells = Confusion.of(answers)
    share = over_subjects(answers)
    assert share is not None
    return Control(cells.n, cells.correct, share, p_one_sided(cells.correct, cells.n), sensitivity(cells).d_prime)


def _control_dict(control: Control) -> dict[str, Any]:
    return {
        "n": control.n, "correct": control.correct, "accuracy": control.share.value,
        "interval_over_subjects": [control.share.low, control.share.high], "p_one_sided": control.p_one_sided,
        "d_prime": control.d_prime,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON's own types; NaN and infinities, which JSON does not have, become None."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
