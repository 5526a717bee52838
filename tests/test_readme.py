"""Numbers of README and docs come from reports and settings; commands and links exist."""

import json
import re
from pathlib import Path

import pytest

from simgan_core import readme, standins
from simgan_core.config import to_dict, with_overrides
from simgan_core.profiles import profile

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def write_report(folder: Path, error: float) -> None:
    claim = {"id": "C3", "title": "Lower", "paper": "30 % lower", "ours": 33.0, "low": 25.0, "high": 40.0, "unit": "%"}
    metric = {"value": error, "low": 4.0, "high": 5.0, "unit": "°", "seeds": 3, "n": 10}
    origin = {"command": "simgan reproduce", "seeds": [0, 1], "device": {"cpu": "CPU", "cores": 2}, "total_wall_s": 600}
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("")
    (folder / "claims.json").write_text(json.dumps([claim | {"verdict": "supported"}]))
    (folder / "metrics.json").write_text(json.dumps({"gaze.refined.mean_error_deg": metric}))
    (folder / "provenance.json").write_text(json.dumps(origin))


def test_blocks_come_from_reports_real_before_stand_in(tmp_path: Path) -> None:
    write_report(tmp_path / "reports/cpu-embedded", 4.4)
    write_report(tmp_path / "reports/cpu-mini", 4.7)
    write_report(tmp_path / "reports/smoke-embedded", 9.9)
    blocks = readme.blocks(tmp_path / "reports")
    assert "| ours, [cpu-mini](reports/cpu-mini/index.html) | ours, [cpu-embedded]" in blocks["claims"]
    assert "33.0 % (25.0 to 40.0): **supported**" in blocks["claims"]
    assert "| 4.70° (4.00 to 5.00) | 4.40° (4.00 to 5.00) |" in blocks["arms"]
    assert "2 cores of CPU | 2 | 10 |" in blocks["minutes"]
    assert "9.9" not in str(blocks)
    filled = readme.fill(TEXT, blocks)
    assert "33.0 %" in filled
    assert readme.fill(filled, blocks) == filled


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ({"cpu": "CPU", "cores": 2, "bf16": True}, "2 cores of CPU with bf16"),
        ({"cpu": "CPU", "cores": 2, "bf16": False}, "2 cores of CPU without bf16"),
        ({"cpu": "CPU", "cores": 16, "bf16": True, "gpu": "GPU"}, "GPU"),
    ],
)
def test_minutes_say_what_they_depend_on_most(tmp_path: Path, device: dict[str, object], text: str) -> None:
    write_report(tmp_path / "cpu-mini", 4.7)
    file = tmp_path / "cpu-mini/provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"device": device}))
    assert f"| {text} |" in readme.blocks(tmp_path)["minutes"]


def test_reports_of_an_earlier_profile_are_named_with_what_changed(tmp_path: Path) -> None:
    write_report(tmp_path / "cpu-mini", 4.7)
    file = tmp_path / "cpu-mini/provenance.json"

    def told(**overrides: object) -> str:
        configuration = to_dict(with_overrides(profile("cpu"), overrides))
        file.write_text(json.dumps(json.loads(file.read_text()) | {"configuration": configuration}))
        return readme.blocks(tmp_path)["profiles"]

    assert told(seeds=8, **{"training.log_every": 3}) == told() == "All reports are of the profiles as they are now."
    steps = profile("cpu").training.steps
    assert told(**{"training.steps": 7}) == f"- `cpu-mini` is of an earlier profile: `training.steps` 7 (now {steps})."


def test_the_published_lenet_stands_beside_the_arms_it_was_tested_with(tmp_path: Path) -> None:
    for name in ("cpu-embedded", "cpu-mini"):
        write_report(tmp_path / name, 4.7)
    assert "LeNet" not in readme.blocks(tmp_path)["arms"]
    metrics = json.loads((tmp_path / "cpu-mini/metrics.json").read_text())
    lenet = {"value": 4.2, "low": 4.0, "high": 4.4, "unit": "°", "seeds": 1, "n": 10}
    (tmp_path / "cpu-mini/metrics.json").write_text(json.dumps(metrics | {readme.OTHERS: lenet}))
    (row,) = [line for line in readme.blocks(tmp_path)["arms"].splitlines() if "LeNet" in line]
    assert row.endswith("| 4.20° (4.00 to 4.40) | – |")


def test_readme_shows_the_first_arms_and_the_page_of_results_all_with_their_committees(tmp_path: Path) -> None:
    write_report(tmp_path / "cpu-mini", 4.7)
    file = tmp_path / "cpu-mini/metrics.json"
    metric = json.loads(file.read_text())["gaze.refined.mean_error_deg"]
    names = ("raw", "refined", "refined_committee", "refined_augmented_committee", "knn")
    file.write_text(json.dumps({f"gaze.{name}.mean_error_deg": metric for name in names}))
    few, all_of_them = (page(tmp_path)["arms"].splitlines()[2:] for page in (readme.blocks, readme.result_blocks))
    assert len(few) == 3 and len(all_of_them) == 5 and set(few) < set(all_of_them)
    assert readme.result_blocks(tmp_path)["committees"] == readme.EMPTY
    (tmp_path / "cpu-mini/tables").mkdir()
    (tmp_path / "cpu-mini/tables/07_committees.csv").write_text(
        "committee,beside,mean error (°),of the other (°),reduction (%),low,high,seeds,images\n"
        "ours,theirs,3.9,4.2,7.14,1,13,5,750\n"
    )
    lines = readme.result_blocks(tmp_path)["committees"].splitlines()
    assert lines[2:] == ["| cpu-mini | ours | theirs | 3.90 | 4.20 | 7.1 (1.0 to 13.0) |"]


def test_distances_to_the_target_are_those_of_the_tables(tmp_path: Path) -> None:
    write_report(tmp_path / "cpu-mini", 4.7)
    assert readme.result_blocks(tmp_path)["realism"] == readme.EMPTY
    tables = tmp_path / "cpu-mini" / "tables"
    tables.mkdir()
    (tables / "07_realism.csv").write_text(
        "measure,images,value,low,high\nAUC,raw,0.9812,0.96,0.99\nAUC,refined,0.84,0.79,0.89\nonly raw,raw,1,0.9,1.1\n"
    )
    lines = readme.result_blocks(tmp_path)["realism"].splitlines()
    assert lines[0] == "| distance to the target | cpu-mini: raw | cpu-mini: refined |"
    assert lines[2:] == [
        "| AUC | 0.981 (0.96 to 0.99) | 0.84 (0.79 to 0.89) |",
        "| only raw | 1 (0.9 to 1.1) | – |",
    ]


def test_minutes_of_several_commits_are_called_pieces(tmp_path: Path) -> None:
    write_report(tmp_path / "cpu-mini", 4.7)
    file = tmp_path / "cpu-mini/provenance.json"
    origin = json.loads(file.read_text())
    for commits, cell in ((("a", "a"), "| 10 |"), (("a", "b"), "| 10, in pieces |")):
        traces = dict(zip(("01_data", "07_gaze_evaluation"), ({"commit": one} for one in commits), strict=True))
        file.write_text(json.dumps(origin | {"notebooks": traces}))
        assert cell in readme.blocks(tmp_path)["minutes"]


def test_without_reports_the_readme_says_so(tmp_path: Path) -> None:
    assert set((readme.blocks(tmp_path) | readme.result_blocks(tmp_path)).values()) == {readme.EMPTY}


def test_tables_of_hands_come_from_the_first_report_that_has_them(tmp_path: Path) -> None:
    assert readme.hand_blocks(tmp_path) == {"poses": readme.EMPTY, "edges": readme.EMPTY}
    for name in ("cpu-mini", "cpu-embedded"):
        write_report(tmp_path / name, 4.7)
    tables = tmp_path / "cpu-embedded/tables"
    tables.mkdir()
    (tables / "08_pose_fit.csv").write_text("frames,mean (mm)\n80,2.28128\n")
    (tables / "08_recorded_edges.csv").write_text("images,n,noise (mm)\nno camera,40,0.09447\ncrops,20,\n")
    found = readme.hand_blocks(tmp_path)
    assert "cpu-embedded/index.html" in found["poses"]
    assert "| 80 | 2.28 |" in found["poses"]
    assert "| no camera | 40 | 0.0945 |\n| crops | 20 | – |" in found["edges"]


def test_a_missing_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="no block 'claims'"):
        readme.fill("# Nothing", {"claims": "x"})


def test_the_committed_readme_is_what_the_reports_say() -> None:
    assert readme.fill(TEXT, readme.blocks()) == TEXT, "run `make readme`"
    results = readme.RESULTS.read_text()
    assert readme.fill(results, readme.result_blocks()) == results, "run `make readme`"
    hands = readme.HANDS.read_text()
    assert readme.fill(hands, readme.hand_blocks()) == hands, "run `make readme`"
    fit = readme.FIT.read_text()
    assert readme.fill(fit, readme.fit_blocks() | readme.unfitted_blocks()) == fit, "run `make readme`"
    selection = readme.SELECTION.read_text()
    assert readme.fill(selection, readme.lambda_blocks()) == selection, "run `make readme`"


def test_the_table_of_lambda_has_a_row_per_candidate_and_its_seeds(tmp_path: Path) -> None:
    assert "No selection" in readme.lambda_blocks(tmp_path)["lambda"]

    def errors(value: float) -> dict[str, object]:
        return {kind: {"value": value} for kind in ("plain", "augmented")}

    def candidate(lambda_sum: float, value: float) -> dict[str, object]:
        measured = {"auc": {"value": 0.8}, "shift_px": {"value": 0.5}, "validation_error_deg": errors(value)}
        return {"lambda_sum": lambda_sum, "step": 1350, "verdict": "chosen"} | measured

    (tmp_path / readme.LAMBDA).mkdir()
    for seed, value in enumerate((4.9, 5.2)):
        candidates = [candidate(0.2, value), candidate(0.8, value - 1)][:: 1 - 2 * seed]  # in any order
        settings = {"seed": seed, "cnns": 2}
        selection = {"settings": settings, "raw_auc": {"value": 0.99}, "candidates": candidates, "stores": {}}
        selection["raw_validation_error_deg"] = errors(5.5)
        (tmp_path / readme.LAMBDA / f"seed-{seed}.json").write_text(json.dumps(selection))
    lines = readme.lambda_blocks(tmp_path)["lambda"].splitlines()
    assert "1,350 steps, seeds 0, 1, 2 gaze CNNs each" in lines[0]
    assert lines[2] == "| raw renders | 0.990 | – | 5.50 (5.50, 5.50) | 5.50 (5.50, 5.50) | – |"
    assert lines[3] == "| λ = 0.2 | 0.800 | 0.50 | 5.05 (4.90, 5.20) | 5.05 (4.90, 5.20) | worse |"
    assert lines[4].startswith("| λ = 0.8 | 0.800 | 0.50 | 4.05 (3.90, 4.20) |") and lines[4].endswith("| chosen |")
    assert lines[-1] == "Standard error of a mean over seeds: 0.15°."


def test_lambda_of_the_profiles_is_what_the_rule_takes_of_the_committed_selections() -> None:
    selections = standins.read_selections(sorted((readme.REPORTS / readme.LAMBDA).glob("seed-*.json")))
    chosen = standins.one_standard_error(standins.judged(selections)).chosen
    assert chosen is not None
    found = {name: profile(name).loss.lambda_sum for name in ("smoke", "cpu", "gpu", "paper")}
    assert found == dict.fromkeys(found, chosen.lambda_sum), "simgan choose reports/lambda-embedded/seed-*.json"


def test_errors_by_the_simulators_ranges_come_from_selections(tmp_path: Path) -> None:
    assert "No selection" in readme.unfitted_blocks(tmp_path)["unfitted"]

    def errors(value: float) -> dict[str, object]:
        return {kind: {"value": value + place} for place, kind in enumerate(("plain", "augmented"))}

    (tmp_path / readme.UNFITTED).mkdir()
    for name, value in (("uniform", 6.0), ("plain", 5.0)):
        candidates = [{"lambda_sum": 0.8, "validation_error_deg": errors(value - 1)}]
        selection = {"settings": {"seed": 3}, "candidates": candidates, "raw_validation_error_deg": errors(value)}
        (tmp_path / readme.UNFITTED / f"{name}-seed-3.json").write_text(json.dumps(selection))
    lines = readme.unfitted_blocks(tmp_path)["unfitted"].splitlines()
    assert lines[0] == "| renders | seed | raw (°) | refined, λ = 0.8 |"
    assert [line.split(" | ")[1:] for line in lines[2:]] == [
        ["3", "5.00, 6.00", "4.00, 5.00 |"],
        ["3", "6.00, 7.00", "5.00, 6.00 |"],
    ]


def test_the_table_of_fitted_ranges_has_what_differs_from_the_plain_ones() -> None:
    rows = readme.fit_blocks()["ranges"].splitlines()
    assert "| `head_follow` | 0.55 | 0.39 |" in rows
    assert "| `lid_gain` | 1 to 1.4 | 0.48 to 0.88 |" in rows
    assert "| `kappa_yaw_normal_deg` | 0 ± 0 | -2.1 ± 1.5 |" in rows
    assert not any("iris_tone" in row for row in rows)


def test_links_and_make_targets_exist() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), link
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
