"""The widget of the study: the same in JupyterLab and on the page that `simgan study serve` shows to subjects.

A thin view: `session.py` decides what comes next, `widget.js` shows it and measures reaction times in the browser.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from simgan_core.study.session import SubjectScreen
from simgan_core.study.storage import StudyStore

_HERE = Path(__file__).parent
_log = logging.getLogger(__name__)


class StudyWidget(anywidget.AnyWidget):
    """The study as one subject sees it. Nothing of the study is a synchronised trait: the browser gets messages only.

    Args:
        study: the opened study.
        token: the subject's token, from `study.tokens()`.
        on_page: the widget is alone on its page: it takes keys wherever the focus is, and loads the page again when the
            connection is lost.
        alive_url: asked on such a page whether the server is back.

    """

    _esm = _HERE / "widget.js"
    _css = _HERE / "widget.css"
    on_page = traitlets.Bool(False).tag(sync=True)
    alive_url = traitlets.Unicode("").tag(sync=True)

    def __init__(self, study: StudyStore, token: str, *, on_page: bool = False, alive_url: str = "") -> None:
        super().__init__(on_page=on_page, alive_url=alive_url)
        self._screen = SubjectScreen(study, token)
        self.on_msg(self._receive)

    def _receive(self, _widget: object, content: object, _buffers: Any) -> None:
        try:
            for reply, buffers in self._screen.receive(content):
                self.send(reply, buffers)
        except Exception:
            # The page notices the missing reply, says so, and sends the answer again: see PATIENCE_MS in widget.js.
            _log.exception("a message of the study's page could not be served")

    def close_session(self) -> None:
        """End the subject's session, as closing the window does."""
        self._screen.close()
