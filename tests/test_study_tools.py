"""The tools of the study's tests: without a browser they skip on a laptop, and fail in continuous integration."""

import pytest
import study_tools


@pytest.mark.parametrize(("ci", "outcome"), [("true", "Failed"), ("", "Skipped"), (None, "Skipped")])
def test_a_missing_browser_fails_in_continuous_integration(
    monkeypatch: pytest.MonkeyPatch, ci: str | None, outcome: str
) -> None:
    monkeypatch.setattr(study_tools, "find_chrome", lambda: None)
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(BaseException, match="apt-get install chromium") as ended:
        study_tools.need_chrome()
    assert type(ended.value).__name__ == outcome
