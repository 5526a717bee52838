"""Many subjects at once: does the page keep up, and does it lose an answer when the server is killed?

Each subject is a client that does what a browser does: it loads its page, takes the kernel's id and the widget's from
it, opens the websocket and speaks the kernel's protocol. In the run with the kill the server gets SIGKILL when half of
the answers are in, and is started again; clients load their pages again and go on. Then the database is compared with
what each client saw confirmed.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from simgan_core import provenance
from simgan_core.study.creation import create_study
from simgan_core.study.load_client import Run, Server, Subject
from simgan_core.study.plan import StudySettings
from simgan_core.study.records import Picture
from simgan_core.study.storage import StudyStore

P95_LIMIT_MS = 150.0
LATENCY_SUBJECTS = 10


def run_load(folder: Path, *, subjects: int, trials: int, think_ms: float, kill: bool) -> tuple[Run, dict[str, Any]]:
    """One run in `folder`; what it measured, and how the database compares with what the clients saw."""
    study = load_study(folder / "study.db", subjects, trials)
    run = Run(subjects, trials, kill)
    server = Server(folder / "study.db")
    server.start()
    try:
        asyncio.run(_take_all(study, server, run, think_ms))
    finally:
        server.stop()
    verdict = compare(study.rows(), run)
    study.close()
    return run, verdict


async def _take_all(study: StudyStore, server: Server, run: Run, think_ms: float) -> None:
    clients = [
        asyncio.create_task(Subject(name, server.address, token, run, think_ms, seed).take_part())
        for seed, (name, token) in enumerate(study.tokens().items())
    ]
    half = run.subjects * run.trials // 2
    while sum(map(len, run.confirmed.values())) < half and not all(client.done() for client in clients):
        await asyncio.sleep(0.05)
    run.kernel_mib, run.server_mib = await asyncio.to_thread(memory_mib, server.pid)
    if run.killed:
        server.kill()
        await asyncio.to_thread(server.start)
    await asyncio.gather(*clients)


def compare(rows: Sequence[dict[str, Any]], run: Run) -> dict[str, Any]:
    """Answers that were confirmed but are not in the database, that differ, or that are there twice."""
    stored: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        if row["answer"] is not None:
            stored.setdefault((row["subject"], row["trial"]), []).append(row["answer"])
    confirmed = {(name, trial): answer for name, own in run.confirmed.items() for trial, answer in own.items()}
    return {
        "confirmed": len(confirmed),
        "stored": sum(map(len, stored.values())),
        "planned": run.subjects * run.trials,
        "lost": sum(key not in stored for key in confirmed),
        "changed": sum(key in stored and stored[key][0] != answer for key, answer in confirmed.items()),
        "double": sum(len(answers) - 1 for answers in stored.values()),
        "finished": run.finished,
        "gave_up": run.gave_up,
        "reconnects": len(run.page_seconds) - run.subjects,
    }


def memory_mib(pid: int) -> tuple[list[float], float]:
    """Proportional memory (PSS: shared pages are divided among those that share them) of each kernel, and the server's.

    MiB; of processes that end meanwhile nothing is known, and they are left out.
    """
    import psutil

    def proportional(process: psutil.Process) -> float | None:
        try:
            return float(process.memory_full_info().pss) / 2**20
        except psutil.Error:
            return None

    server = psutil.Process(pid)
    kernels = [proportional(child) for child in server.children()]
    return [one for one in kernels if one is not None], proportional(server) or 0.0


def load_study(file: Path, subjects: int, trials: int) -> StudyStore:
    """A study of programs with noise for images: half real, half refined; no fixation, no practice."""
    from simgan_core.study.pictures import encode_png

    rng = np.random.default_rng(0)
    settings = StudySettings(
        title="Load test", subjects=subjects, real=trials // 2, refined=trials - trials // 2, control=0, practice=0,
        attention=0, fixation_ms=0, break_every=40,
    )  # fmt: skip
    pictures = [
        Picture(f"{index}.png", encode_png(rng.integers(0, 256, (1, 35, 55), dtype=np.uint8)))
        for index in range(trials)
    ]
    return create_study(file, settings, {"real": pictures, "refined": pictures}, simulated=True)


def measure(
    out: Path,
    *,
    subjects: int = 25,
    trials: int = 100,
    think_ms: float = 1000.0,
    latency_subjects: int = LATENCY_SUBJECTS,
) -> dict[str, Any]:
    """Both runs, and their report in `out`: load.json and a short table, README.md."""
    begun = time.perf_counter()
    load_before = os.getloadavg()[0]
    runs = {}
    for name, count, kill in (("latency", latency_subjects, False), ("kill", subjects, True)):
        with tempfile.TemporaryDirectory(prefix="simgan-load-") as folder:
            run, verdict = run_load(Path(folder), subjects=count, trials=trials, think_ms=think_ms, kill=kill)
        runs[name] = summary(run) | verdict
    whole = all(one["lost"] == one["changed"] == one["double"] == 0 for one in runs.values())
    complete = all(one["stored"] == one["planned"] and not one["gave_up"] for one in runs.values())
    fast = runs["latency"]["latency_p95_ms"] <= P95_LIMIT_MS
    found = {
        "passed": whole and complete and fast, "no_answer_lost_or_double": whole, "all_answers_stored": complete,
        "latency_p95_limit_ms": P95_LIMIT_MS, "latency_within_limit": fast, "think_ms": think_ms, "runs": runs,
        "provenance": {
            "commit": provenance.commit(), "packages": provenance.package_versions(), "device": provenance.device(),
            "load_average_before": round(load_before, 2), "wall_seconds": round(time.perf_counter() - begun, 1),
            "date": datetime.now(UTC).date().isoformat(),
            "command": f"simgan study load --subjects {subjects} --trials {trials} --think-ms {think_ms:.0f}",
        },
    }  # fmt: skip
    provenance.write_json(out / "load.json", found)
    (out / "README.md").write_text(report_text(found), encoding="utf-8")
    return found


def summary(run: Run) -> dict[str, Any]:
    """The figures of a run: latency from sending an answer to the next question, time of a page, memory."""
    latency = np.array(run.latencies_ms or [np.nan])
    memory = np.array(run.kernel_mib or [np.nan])
    figures = {
        "latency_p50_ms": np.percentile(latency, 50), "latency_p95_ms": np.percentile(latency, 95),
        "latency_p99_ms": np.percentile(latency, 99), "page_p50_s": np.percentile(run.page_seconds, 50),
        "page_p95_s": np.percentile(run.page_seconds, 95), "kernel_pss_mean_mib": memory.mean(),
        "kernel_pss_max_mib": memory.max(), "server_pss_mib": run.server_mib,
    }  # fmt: skip
    return {
        "subjects": run.subjects, "trials": run.trials, "server_killed": run.killed,
        "kernels_measured": len(run.kernel_mib), "latencies_measured": len(run.latencies_ms),
    } | {name: round(float(value), 2) for name, value in figures.items()}  # fmt: skip


def report_text(found: dict[str, Any]) -> str:
    """The table of `measure` in Markdown."""
    rows = [
        ("subjects at once", "subjects"), ("trials each", "trials"), ("server killed half way", "server_killed"),
        ("answers confirmed to a client", "confirmed"), ("answers stored", "stored"), ("answers planned", "planned"),
        ("confirmed, but lost", "lost"), ("confirmed, but changed", "changed"), ("stored twice", "double"),
        ("pages loaded again", "reconnects"), ("clients that gave up", "gave_up"),
        ("latency of a trial, median (ms)", "latency_p50_ms"),
        ("latency of a trial, 95 % (ms)", "latency_p95_ms"), ("latency of a trial, 99 % (ms)", "latency_p99_ms"),
        ("page loaded, median (s)", "page_p50_s"),
        ("memory of a subject's kernel, mean (MiB PSS)", "kernel_pss_mean_mib"),
        ("memory of the server (MiB PSS)", "server_pss_mib"),
    ]  # fmt: skip
    one, two = found["runs"]["latency"], found["runs"]["kill"]
    origin = found["provenance"]
    lines = ["# Load of the study's page", "", "| | latency | kill |", "|---|---:|---:|"]
    lines += [f"| {label} | {_shown(one[name])} | {_shown(two[name])} |" for label, name in rows]
    lines += [
        "",
        f"Verdict: {'passed' if found['passed'] else 'failed'} (no answer lost, changed or double: "
        f"{_shown(found['no_answer_lost_or_double'])}; 95 % of trials within {found['latency_p95_limit_ms']:.0f} ms "
        f"with {one['subjects']} subjects: {_shown(found['latency_within_limit'])}).",
        "",
        f"Clients speak the kernel's protocol over loopback on the machine of the server, and think for "
        f"{found['think_ms']:.0f} ms on average. Latency: from sending an answer to the next question, the answer "
        "being durable in between.",
        "",
        f"`{origin['command']}`, commit {origin['commit']}, {origin['device'].get('cpu')} "
        f"({origin['device'].get('cores')} cores, load average before: {origin['load_average_before']}), "
        f"{origin['wall_seconds']} s, {origin['date']}.",
        "",
    ]
    return "\n".join(lines)


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
