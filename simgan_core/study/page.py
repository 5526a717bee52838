"""What the notebook behind a subject's page runs, in the subject's own kernel."""

from __future__ import annotations

import atexit
import os
from urllib.parse import unquote

DATABASE = "SIMGAN_STUDY_DATABASE"
ALIVE = "SIMGAN_STUDY_ALIVE"


def token_of_page(address: str) -> str:
    """The token that ends the path of a subject's page; browsers and mail programs may have encoded some of it."""
    return unquote(address).rstrip("/").rsplit("/", 1)[-1]


def subject_page() -> None:
    """Show the study to the subject whose token ends the address of this page (the server has checked it)."""
    from IPython.display import display

    from simgan_core.study.storage import open_study
    from simgan_core.study.widget import StudyWidget

    token = token_of_page(os.environ.get("SCRIPT_NAME", ""))
    widget = StudyWidget(open_study(os.environ[DATABASE]), token, on_page=True, alive_url=os.environ[ALIVE])
    atexit.register(widget.close_session)
    display(widget)  # type: ignore[no-untyped-call]
