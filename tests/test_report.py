"""The report: what programs read from it, what may be published, and that numbers come from the run alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from simgan_core import figures, report
from simgan_core.claims import judge
from simgan_core.evaluation.statistics import Estimate
from simgan_core.profiles import profile
from simgan_core.reproduce import SCORECARD, STEPS
from simgan_core.run_folder import Metric, RunFolder, settings_digest

KEYS = {"id", "title", "paper", "ours", "low", "high", "unit", "seeds", "n", "verdict", "notebook"}


def picture(text: str = "x") -> Figure:
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.set_title(text)
    return figure


def finished_run(path: Path, *, data: str = "embedded", profile_name: str = "cpu") -> RunFolder:
    """A run folder as the notebooks leave it, with made-up numbers."""
    run = RunFolder.create(path, data=data, config=profile(profile_name), data_root=path)
    for seed in run.seeds:
        training = run.notebook("02_training", seed)
        training.write_metrics({"training.images_per_second": Metric(100.0 + seed, None, None, "images/s", 1, 10)})
        training.write_claims()
        training.save_figure("curves", picture(), "Curves.")
        training.save_figure("faces", picture(), "Faces.", of_real_images=True)
    evaluation = run.notebook("07_gaze_evaluation")
    errors = {"raw": Estimate(7.0, 6.5, 7.5, 3, 1500), "refined": Estimate(4.7, 4.5, 5.0, 3, 1500)}
    evaluation.write_metrics({
        f"gaze.{arm}.mean_error_deg": Metric(e.value, e.low, e.high, "°", e.seeds, e.n) for arm, e in errors.items()
    })  # fmt: skip
    evaluation.write_claims([judge("C3", Estimate(33.0, 25.0, 40.0, 3, 1500), profile=profile_name)])
    (run.path / "notebooks").mkdir()
    (run.path / "notebooks" / "01_data.html").write_text("<p>executed</p>")
    (run.path / "notebooks" / "01_data.execution.json").write_text('{"wall_s": 12.5, "started": 100}')
    plt.close("all")
    return run


def test_files_hold_what_the_contract_says(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    index = report.write_report(run, tmp_path / "report")
    claims = json.loads((tmp_path / "report/claims.json").read_text())
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    provenance = json.loads((tmp_path / "report/provenance.json").read_text())
    assert [claim["id"] for claim in claims] == [f"C{number}" for number in range(1, 9)]
    assert all(set(claim) >= KEYS for claim in claims)
    assert [claim["verdict"] for claim in claims].count("supported") == 1
    assert metrics["gaze.refined.mean_error_deg"] == {
        "value": 4.7, "low": 4.5, "high": 5.0, "unit": "°", "seeds": 3, "n": 1500,
    }  # fmt: skip
    assert {"commit", "configuration", "seeds", "packages", "device", "wall_s"} <= set(provenance)
    assert provenance["wall_s"] == {"01_data": 12.5}
    command = f"simgan reproduce --data {run.data} --profile {run.config.profile}"
    assert provenance["command"] == f"{command} --only 01"
    assert "in pieces" not in index.read_text()
    (run.path / "notebooks" / "03_history.execution.json").write_text(
        '{"wall_s": 1, "started": 200, "commit": "other"}'
    )
    assert "in pieces" in report.write_report(run, tmp_path / "again").read_text()
    more = RunFolder.create(run.path, data=run.data, config=replace(run.config, seeds=len(run.seeds) + 5))
    assert report.provenance(more)["command"] == f"{command} --seeds {len(run.seeds) + 5} --only 03"
    longer = RunFolder.create(run.path, data=run.data, config=replace(run.config, ablation_stop=2))
    for step in (*STEPS, SCORECARD):
        (run.path / "notebooks" / f"{step.name}.execution.json").write_text('{"wall_s": 1, "started": 300}')
    assert report.provenance(longer)["command"] == f"{command} --ablation-stop 2"
    page = index.read_text()
    assert "4.70° (4.50 to 5.00)" in page and "33.0 % (25.0 to 40.0)" in page
    assert page.count('class="verdict supported"') == 1


def test_numbers_of_single_seeds_become_a_mean_with_interval(tmp_path: Path) -> None:
    metric = report.collect_metrics(finished_run(tmp_path / "run"))["training.images_per_second"]
    assert metric["value"] == pytest.approx(101)
    assert (metric["seeds"], metric["n"]) == (3, 30)
    # t interval of 100, 101, 102: 101 +- 4.303 / sqrt(3)
    assert (metric["low"], metric["high"]) == pytest.approx((98.516, 103.484), abs=1e-3)


def test_jobs_side_by_side_count_once() -> None:
    traces = [{"started": 0, "wall_s": 10.0}, {"started": 5, "wall_s": 10.0}, {"started": 6, "wall_s": 1.0}]
    assert report.total_wall_s([*traces, {"started": 100, "wall_s": 3.0}]) == 18.0
    assert report.total_wall_s([]) == 0


def test_a_training_left_by_another_commit_makes_a_report_in_pieces(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    trace = run.path / "notebooks" / "01_data.execution.json"
    trace.write_text('{"wall_s": 12.5, "started": 100, "commit": "now"}')
    for seed, made_by in ((0, "now"), (1, "now")):
        run.training(seed).mkdir(exist_ok=True)
        (run.training(seed) / "provenance.json").write_text(json.dumps({"commit": made_by}))
    origin = report.provenance(run)
    assert origin["commit"] == "now" and origin["trainings"] == {"seed-0": "now", "seed-1": "now"}
    assert not report.in_pieces(origin)
    (run.training(1) / "provenance.json").write_text(json.dumps({"commit": "before"}))
    assert report.in_pieces(report.provenance(run))


def test_results_of_earlier_settings_are_left_out(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    trace = run.path / "notebooks" / "07_gaze_evaluation.execution.json"
    of_run = {"wall_s": 9, "started": 200, "settings": settings_digest(run.path, "07_gaze_evaluation")}
    trace.write_text(json.dumps(of_run))
    judged = {row["id"]: row["verdict"] for row in report.collect_claims(run)}
    assert judged["C3"] == "supported" and "gaze.raw.mean_error_deg" in report.collect_metrics(run)
    more = RunFolder.create(run.path, data=run.data, config=replace(run.config, seeds=9), data_root=run.path)
    assert not report.of_earlier_settings(more), "more seeds are no other settings"
    training = replace(run.config.training, batch=64)
    changed = RunFolder.create(
        run.path, data=run.data, config=replace(run.config, training=training), data_root=run.path
    )
    assert report.of_earlier_settings(changed) == {"07_gaze_evaluation"}
    judged = {row["id"]: row["verdict"] for row in report.collect_claims(changed)}
    assert judged["C3"] == "not evaluated" and "gaze.raw.mean_error_deg" not in report.collect_metrics(changed)
    assert "07_gaze_evaluation" not in report.provenance(changed)["notebooks"]
    (run.path / "notebooks" / "07_gaze_evaluation.html").write_text("<p>of before</p>")
    page = report.write_report(changed, tmp_path / "report").read_text()
    assert "01_data.html" in page and "07_gaze_evaluation.html" not in page, "its page has the earlier verdicts"
    assert not (tmp_path / "report/notebooks/07_gaze_evaluation.html").exists()


def test_other_ends_of_ablations_and_other_data_are_other_settings_where_they_count(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", data="mini")
    steps = ("01_data", "03_history", "07_gaze_evaluation")
    for name in steps:
        trace = {"wall_s": 9, "started": 200, "settings": settings_digest(run.path, name)}
        (run.path / "notebooks" / f"{name}.execution.json").write_text(json.dumps(trace))
    assert report.of_earlier_settings(run) == set()
    config = replace(run.config, ablation_stop=run.config.ablation_stop + 1)
    longer = RunFolder.create(run.path, data="mini", config=config, data_root=run.path)
    assert report.of_earlier_settings(longer) == {"03_history", "07_gaze_evaluation"}
    (tmp_path / "other").mkdir()
    other = RunFolder.create(run.path, data="mini", config=run.config, data_root=tmp_path / "other")
    assert report.of_earlier_settings(other) == set(steps)


def test_seeds_that_a_run_no_longer_has_take_no_part(tmp_path: Path) -> None:
    """Traces of more seeds and earlier settings once left the whole notebook out of the report."""
    run = finished_run(tmp_path / "run")
    for seed in range(5):
        settings = settings_digest(run.path, "02_training") if seed in run.seeds else "of before"
        trace = {"wall_s": 10, "started": 1000 * seed, "settings": settings, "commit": "now" if seed < 3 else "before"}
        (run.path / "notebooks" / f"02_training-seed-{seed}.execution.json").write_text(json.dumps(trace))
        (run.path / "notebooks" / f"02_training-seed-{seed}.html").write_text("<p>executed</p>")
    assert report.of_earlier_settings(run) == set() and "training.images_per_second" in report.collect_metrics(run)
    (run.path / "notebooks" / "01_data.execution.json").unlink()
    origin = report.provenance(run)
    assert (origin["commit"], origin["total_wall_s"], len(origin["notebooks"])) == ("now", 30, 3)
    report.write_report(run, tmp_path / "report")
    pages = {file.stem for file in (tmp_path / "report" / "notebooks").iterdir()}
    assert pages == {"01_data", *(f"02_training-seed-{seed}" for seed in range(3))}


def test_a_single_seed_has_no_interval() -> None:
    assert report.over_seeds([{"value": 2.0, "unit": "°", "n": 5}]).low is None


def test_pictures_of_people_never_reach_the_report(tmp_path: Path) -> None:
    for data, expected in (("mini", {"02_curves.png"}), ("embedded", {"02_curves.png", "02_faces.png"})):
        report.write_report(finished_run(tmp_path / data, data=data), tmp_path / f"{data}-report")
        published = {file.name for file in (tmp_path / f"{data}-report" / "figures").iterdir()}
        assert published == expected


def test_the_report_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    report.write_report(finished_run(tmp_path / "run"), tmp_path / "report")
    for file in (tmp_path / "report").glob("*.*"):
        assert str(tmp_path) not in file.read_text(), file.name
        assert str(Path.home()) + "/" not in file.read_text(), file.name


def test_smoke_and_stand_in_are_announced(tmp_path: Path) -> None:
    page = report.write_report(finished_run(tmp_path / "a", profile_name="smoke"), tmp_path / "b").read_text()
    assert "stand-in" in page and "Its numbers mean nothing" in page
    page = report.write_report(finished_run(tmp_path / "c", data="mini"), tmp_path / "d").read_text()
    assert "stand-in" not in page and "Its numbers mean nothing" not in page


def test_an_older_report_is_replaced_whole(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    report.write_report(run, tmp_path / "report")
    (tmp_path / "report/figures/02_gone.png").write_bytes(b"old")
    report.write_report(run, tmp_path / "report")
    assert not (tmp_path / "report/figures/02_gone.png").exists()


def test_captions_travel_inside_the_pictures_and_big_ones_are_refused(tmp_path: Path) -> None:
    path = figures.save_png(picture(), tmp_path / "a.png", "Ein Bild, 7°.", max_bytes=300_000)
    assert report._figures(tmp_path) == [{"file": "figures/a.png", "caption": "Ein Bild, 7°."}]
    assert path.stat().st_size < 300_000
    figure, axes = plt.subplots(figsize=(6, 6))
    axes.imshow(np.random.default_rng(0).random((600, 600, 3)))
    with pytest.raises(ValueError, match="expected at most 3000"):
        figures.save_png(figure, tmp_path / "big.png", "", max_bytes=3000)
    assert not (tmp_path / "big.png").exists()
    plt.close("all")


def test_averages_of_too_few_people_are_refused() -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), dtype=np.uint8)
    assert figures.nearest_average(images[:2], images).shape == (2, 1, 8, 8)
    for count, pool in ((49, images), (50, images[:49])):
        with pytest.raises(ValueError, match="at least 50"):
            figures.nearest_average(images[:2], pool, count=count)
    with pytest.raises(ValueError, match="at least 50"):
        figures.averages({"real": images[:49]})
    plt.close("all")


def test_two_notebooks_cannot_claim_one_name(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    run.notebook("01_data").write_metrics({"gaze.raw.mean_error_deg": Metric(1, None, None, "°", 1, 1)})
    with pytest.raises(ValueError, match=r"repeats the metric 'gaze\.raw\.mean_error_deg'"):
        report.collect_metrics(run)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.7123, "°", "4.71°"),
        (0.0, "%", "0.0 %"),
        (1234.5, "images", "1,234 images"),
        (-21.2, "%", "-21.2 %"),
        (None, "", "–"),
    ],
)
def test_numbers_are_written_with_three_digits(value: float | None, unit: str, text: str) -> None:
    assert report.format_number(value, unit) == text
