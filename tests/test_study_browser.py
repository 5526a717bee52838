"""The whole study in a real browser, on the page that subjects open and in JupyterLab: keys, mouse, touch, reload."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from study_tools import NAMES, PATIENCE_MS, contrast, need_chrome, small_study, study_file, truths
from toy_eyes import toy_store

from simgan_core.profiles import profile
from simgan_core.run_folder import RunFolder
from simgan_core.study.load_client import Server, free_port
from simgan_core.study.storage import StudyStore, open_study

SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 740}}
ANSWERED = "([n]) => { const s = document.querySelector('.sgs'); return s.dataset.screen !== 'trial' || " \
    "(s.querySelector('.sgs-count').textContent !== n && !!s.querySelector('.sgs-answer:enabled')); }"  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chrome = need_chrome()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=chrome, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StudyStore, Server]]:
    need_chrome()
    study = small_study(tmp_path_factory.mktemp("page") / "study.db", subjects=12)
    server = Server(study_file(study), base_url="/of/the/lab")  # as behind a proxy
    server.start()
    yield study, server
    server.stop()
    study.close()


@contextmanager
def served(study: StudyStore) -> Iterator[Server]:
    """A server of its own for one study, ended with it whatever happens."""
    server = Server(study_file(study))
    server.start()
    try:
        yield server
    finally:
        server.stop()
        study.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(viewport=SIZES["desktop"])
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()


class Window:
    """A page of the study, and what was sent to it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.frames: list[bytes] = []
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._note))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    @classmethod
    def open(cls, context: Any, server: Server, token: str) -> "Window":
        window = cls(context.new_page())
        window.page.goto(f"{server.address}/s/{token}", wait_until="commit")
        return window

    def _note(self, payload: Any) -> None:
        self.frames.append(payload if isinstance(payload, bytes) else payload.encode())

    def wait(self, screen: str) -> None:
        self.page.wait_for_selector(f'.sgs[data-screen="{screen}"]')

    @property
    def screen(self) -> str:
        return str(self.page.get_attribute(".sgs", "data-screen"))

    def ready(self) -> str:
        """Wait until a trial may be answered, or a button pressed; the screen."""
        self.page.wait_for_selector('.sgs-answer:enabled, .sgs-primary:enabled, #sgs-agree, .sgs[data-screen="end"]')
        return self.screen

    def count(self) -> str:
        return str(self.page.inner_text(".sgs-count"))

    def answered(self, before: str) -> None:
        self.page.wait_for_function(ANSWERED, arg=[before])

    def leave(self, screen: str) -> None:
        self.page.wait_for_function("k => document.querySelector('.sgs').dataset.screen !== k", arg=screen)

    def sent(self) -> bytes:
        return b"\n".join(self.frames)


def by_keys(window: Window, until: str = "end", key: str = "f") -> None:
    while (screen := window.ready()) != until:
        before = window.count() if screen == "trial" else ""
        if screen == "consent":
            window.page.keyboard.press("Space")  # the box has the focus
            window.page.keyboard.press("Tab")
            window.page.keyboard.press("Enter")
        elif screen == "trial":
            window.page.keyboard.press(key)
            window.answered(before)
            continue
        else:
            window.page.wait_for_timeout(350)  # keys rest for a moment, so that no answer skips a screen
            window.page.keyboard.press("Space")
        window.leave(screen)


def by_pointer(window: Window, press: str, until: str = "end", stop_at: str | None = None) -> None:
    """`press`: the page's method, click or tap."""
    touch = getattr(window.page, press)
    while (screen := window.ready()) != until:
        before = window.count() if screen == "trial" else ""
        if before and before == stop_at:
            return
        if screen == "consent":
            touch(".sgs-agree")
        touch('.sgs-answer[data-answer="refined"]' if screen == "trial" else ".sgs-primary")
        window.answered(before) if screen == "trial" else window.leave(screen)


def answers(study: StudyStore, name: str) -> list[Any]:
    return [row["answer"] for row in study.rows() if row["subject"] == name]


def test_keyboard_alone_takes_the_whole_study_and_nothing_leaks(place: tuple[StudyStore, Server], context: Any) -> None:
    study, server = place
    name, token = list(study.tokens().items())[0]
    window = Window.open(context, server, token)
    by_keys(window, until="trial")
    assert window.page.inner_text(".sgs-answers kbd >> nth=0") == "F", "keys are shown"
    for key in ("x", "Enter", "1", "Shift", "ArrowLeft", "Control+f", "Space"):
        window.page.keyboard.press(key)
    assert window.ready() == "trial" and answers(study, name) == [None] * 8, "other keys do nothing"
    window.page.keyboard.press("f")
    window.wait("feedback")
    by_keys(window)
    assert answers(study, name) == ["real"] * 8
    rows = [row for row in study.rows() if row["subject"] == name]
    assert all(0 < row["reaction_ms"] < PATIENCE_MS for row in rows)
    assert {row["window_width"] for row in rows} == {1280} and "Chrom" in rows[0]["browser"]
    check_nothing_leaked(study, window, name)
    assert not window.errors
    assert not [event for event in study.events() if event["kind"] == "bad message"], "a normal study refuses nothing"
    hosts = {url.split("/")[2] for url in window.asked if url.startswith(("http", "ws"))}
    assert hosts == {f"127.0.0.1:{server.port}"}, "the page asks nobody else"


def check_nothing_leaked(study: StudyStore, window: Window, name: str) -> None:
    """Truths are sent for practice trials alone, each after its answer; names and ids of images never."""
    sent = window.sent()
    for word in (*NAMES, "attention_", "control", "synthetic/", "sha256"):
        assert word.encode() not in sent, word
    for row in study.rows():
        assert row["image"].encode() not in sent
    told = re.findall(rb'"type": ?"feedback", ?"trial": ?(\d+).{0,40}?"truth": ?"(\w+)"', sent)
    right = truths(study, name)
    assert [(int(trial), truth.decode()) for trial, truth in told] == [(0, right[0]), (1, right[1])]
    assert sent.count(b'"truth"') == len(told) and sent.count(b"\x89PNG") == len(right)
    values = re.findall(rb'"(?:value|answer|truth)": ?"(real|refined)"', sent)
    assert len(values) == 2 + len(told), "the two answers of the set-up, and the feedback"


def test_mouse_with_a_reload_in_the_middle(place: tuple[StudyStore, Server], context: Any) -> None:
    study, server = place
    name, token = list(study.tokens().items())[1]
    window = Window.open(context, server, token)
    by_pointer(window, "click", stop_at="3 of 6")
    assert [answer is not None for answer in answers(study, name)] == [True] * 4 + [False] * 4
    window.page.reload(wait_until="commit")
    window.wait("resume")
    assert "another window" not in window.page.inner_text(".sgs")
    by_pointer(window, "click")
    assert answers(study, name) == ["refined"] * 8
    assert not window.errors


def test_touch_at_phone_width(place: tuple[StudyStore, Server], browser: Any) -> None:
    study, server = place
    name, token = list(study.tokens().items())[2]
    context = browser.new_context(viewport=SIZES["phone"], has_touch=True, is_mobile=True, device_scale_factor=2)
    context.set_default_timeout(PATIENCE_MS)
    window = Window.open(context, server, token)
    by_pointer(window, "tap", until="trial")
    shape = window.page.evaluate(
        """() => { const image = document.querySelector('.sgs-image'), box = image.getBoundingClientRect();
        const small = [...document.querySelectorAll('.sgs button:not([hidden])')].map((b) => b.offsetHeight);
        const ratio = devicePixelRatio;
        return {scale: box.width * ratio / image.naturalWidth, tall: box.height * ratio / image.naturalHeight,
          rendering: getComputedStyle(image).imageRendering, wide: document.documentElement.scrollWidth,
          high: document.documentElement.scrollHeight, least: Math.min(...small)}; }"""
    )
    assert shape["rendering"] == "pixelated"
    assert shape["scale"] == pytest.approx(round(shape["scale"])) == pytest.approx(shape["tall"]), "square pixels"
    assert shape["scale"] >= 10 and shape["wide"] <= 390 and shape["high"] <= 740, "nothing to scroll for"
    assert shape["least"] >= 44, "large enough for a thumb"
    by_pointer(window, "tap")
    assert answers(study, name) == ["refined"] * 8
    assert not window.errors
    context.close()


def test_two_windows_of_one_token(place: tuple[StudyStore, Server], context: Any, browser: Any) -> None:
    study, server = place
    name, token = list(study.tokens().items())[3]
    one = Window.open(context, server, token)
    by_keys(one, until="trial")
    elsewhere = browser.new_context(viewport=SIZES["desktop"])
    elsewhere.set_default_timeout(PATIENCE_MS)
    two = Window.open(elsewhere, server, token)
    two.wait("occupied")
    one.page.keyboard.press("f")
    one.wait("feedback")
    two.page.click(".sgs-primary")
    two.wait("resume")
    one.page.wait_for_timeout(350)
    one.page.keyboard.press("Space")
    one.wait("superseded")
    by_keys(two, key="j")
    assert answers(study, name) == ["real"] + ["refined"] * 7
    elsewhere.close()


def test_two_tabs_and_a_duplicated_tab_of_one_browser(place: tuple[StudyStore, Server], context: Any) -> None:
    """A duplicated tab brings the memory of the first along, and is asked all the same, as any second tab is."""
    study, server = place
    name, token = list(study.tokens().items())[9]
    one = Window.open(context, server, token)
    by_keys(one, until="trial")
    two = Window.open(context, server, token)
    two.wait("occupied")
    with one.page.expect_popup() as opened:
        one.page.evaluate("window.open(location.href)")  # session storage is copied, as by 'Duplicate tab'
    copy = Window(opened.value)
    copy.wait("occupied")
    assert copy.page.evaluate("window.opener !== null"), "it is no copy"
    one.page.bring_to_front()
    one.page.keyboard.press("f")
    one.wait("feedback")
    copy.page.bring_to_front()
    copy.page.click(".sgs-primary")
    copy.wait("resume")
    one.page.bring_to_front()
    one.page.click(".sgs-primary")
    one.wait("superseded")
    copy.page.bring_to_front()
    copy.page.reload(wait_until="commit")
    copy.wait("resume")  # a tab of its own by now: a reload is not asked
    by_keys(copy, key="j")
    assert answers(study, name) == ["real"] + ["refined"] * 7
    assert not one.errors and not two.errors and not copy.errors


NOTE_EXPOSURE = """() => { window.noted = {};
  const look = (now) => { const image = document.querySelector('.sgs-image');
    const seen = image && getComputedStyle(image).visibility === 'visible';
    if (seen) window.noted.shown ??= now;
    else if (window.noted.shown) window.noted.gone ??= now;
    if (!window.noted.gone) requestAnimationFrame(look); };
  requestAnimationFrame(look); }"""


def test_killed_server_loses_no_answer_and_the_page_goes_on(tmp_path: Path, context: Any) -> None:
    study = small_study(tmp_path / "study.db", subjects=1, practice=0, attention=0, deadline_ms=60_000, exposure_ms=150)
    name, token = next(iter(study.tokens().items()))
    server = Server(study_file(study))
    server.start()
    window = Window.open(context, server, token)
    by_keys(window, until="instructions")
    window.page.evaluate(NOTE_EXPOSURE)
    by_keys(window, until="trial")
    window.page.wait_for_function("window.noted.gone")
    noted = window.page.evaluate("window.noted.gone - window.noted.shown")
    before = window.count()
    window.page.keyboard.press("f")
    window.answered(before)
    server.kill()
    window.page.keyboard.press("j")  # this answer finds no server
    window.wait("lost")
    assert answers(study, name)[:2] == ["real", None]
    server.start()
    window.wait("resume")
    window.page.wait_for_timeout(350)
    window.page.keyboard.press("Space")
    window.wait("trial")
    assert answers(study, name)[:2] == ["real", "refined"], "the answer was sent again by itself"
    by_keys(window)
    rows = study.rows()
    assert [row["answer"] for row in rows] == ["real", "refined", "real", "real"]
    # The first frame at or after 150 ms takes the image away; a frame early is rounding.
    assert rows[0]["exposure_ms"] >= 149 and rows[0]["exposure_ms"] == pytest.approx(noted, abs=60)
    assert all(0 < row["exposure_ms"] <= row["reaction_ms"] for row in rows), "nothing is seen after the answer"
    server.stop()
    study.close()


@pytest.mark.parametrize("press", ["click", "tap"])
def test_a_crash_in_the_practice_leaves_nobody_stuck(tmp_path: Path, browser: Any, press: str) -> None:
    """The practice answer is sent again after the crash; who has no keyboard must come on from there as well."""
    study = small_study(tmp_path / "study.db", subjects=1)
    name, token = next(iter(study.tokens().items()))
    context = browser.new_context(viewport=SIZES["phone"], has_touch=True)
    context.set_default_timeout(PATIENCE_MS)
    with served(study) as server:
        window = Window.open(context, server, token)
        by_pointer(window, press, stop_at="Practice: 2 of 2")
        server.kill()
        getattr(window.page, press)('.sgs-answer[data-answer="real"]')  # this answer finds no server
        window.wait("lost")
        server.start()
        window.wait("resume")
        getattr(window.page, press)(".sgs-primary")
        window.wait("ready")  # the practice is over: the answer was sent again by itself
        assert answers(study, name)[:3] == ["refined", "real", None]
        by_pointer(window, press)
        assert answers(study, name) == ["refined", "real"] + ["refined"] * 6
        assert not window.errors
    context.close()


BROKEN_DECODE = """HTMLImageElement.prototype.decode = () => Promise.reject(new DOMException('short of memory'))"""
BROKEN_PICTURES = """{ const make = URL.createObjectURL;
  URL.createObjectURL = (blob) =>
    make.call(URL, sessionStorage.whole || blob.type !== 'image/png' ? blob : new Blob(['?']));
}"""


def test_a_picture_that_can_not_be_decoded_ahead_is_shown_and_a_broken_one_is_no_dead_end(
    place: tuple[StudyStore, Server], browser: Any
) -> None:
    study, server = place
    token = list(study.tokens().values())[8]
    for script in (BROKEN_DECODE, BROKEN_PICTURES):
        context = browser.new_context(viewport=SIZES["desktop"])
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(script)
        window = Window.open(context, server, token)
        if script == BROKEN_PICTURES:
            by_pointer(window, "click", until="broken")
            window.page.evaluate("sessionStorage.whole = 'yes'")  # as after a better connection
            window.page.click(".sgs-primary")
            window.wait("resume")
        by_pointer(window, "click", stop_at="3 of 6" if script == BROKEN_DECODE else None)
        assert window.page.is_visible(".sgs-image") or window.screen == "end"
        assert not window.errors, "nothing is left unhandled"
        context.close()


@pytest.mark.parametrize(
    ("keys", "typed"),
    [
        (("ф", "о"), [("ф", "KeyA"), ("о", "KeyJ")]), (("λ", "π"), [("λ", "KeyL"), ("Π", "KeyP")]),
        (("f", "j"), [("а", "KeyF"), ("о", "KeyJ")]),  # Latin keys on a Russian keyboard: by their place
    ],
)  # fmt: skip
def test_keys_of_other_scripts(
    tmp_path: Path, context: Any, keys: tuple[str, str], typed: list[tuple[str, str]]
) -> None:
    study = small_study(tmp_path / "study.db", subjects=1, practice=0, attention=0, keys=keys, break_every=None)
    name, token = next(iter(study.tokens().items()))
    with served(study) as server:
        window = Window.open(context, server, token)
        by_keys(window, until="trial")
        devtools = context.new_cdp_session(window.page)
        for key, code in (typed[1], typed[0], typed[1]):
            assert window.ready() == "trial"
            before = window.count()
            for kind in ("keyDown", "keyUp"):
                devtools.send("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": code, "text": key})
            window.answered(before)
        assert answers(study, name) == ["refined", "real", "refined", None]


def test_pause(place: tuple[StudyStore, Server], context: Any) -> None:
    study, server = place
    name, token = list(study.tokens().items())[4]
    window = Window.open(context, server, token)
    by_keys(window, until="trial")
    window.page.keyboard.press("Escape")
    assert "pauses after" in window.page.inner_text(".sgs-status")
    window.page.keyboard.press("f")
    window.wait("feedback")
    window.page.wait_for_timeout(350)
    window.page.keyboard.press("Space")
    window.wait("paused")
    window.page.keyboard.press("f")
    assert window.screen == "paused"
    window.page.wait_for_timeout(350)
    window.page.keyboard.press("Space")
    assert window.ready() == "trial"
    window.page.set_viewport_size({"width": 900, "height": 700})
    window.page.keyboard.press("f")  # at once: the answer belongs to the new size
    window.wait("feedback")
    rows = [row for row in study.rows() if row["subject"] == name][:2]
    assert [(row["window_width"], row["window_height"]) for row in rows] == [(1280, 800), (900, 700)]
    events = [event["kind"] for event in reversed(study.events()) if event["participant"] == name]
    assert events == ["paused", "went on", "resized"], "the screen notes what it did"


COLOURS = """() => [...document.querySelectorAll('.sgs h1, .sgs p, .sgs button, .sgs span, .sgs kbd, .sgs li')]
  .filter((e) => e.offsetParent && e.textContent.trim()).map((e) => { let back = e;
    while (/, 0\\)$|transparent/.test(getComputedStyle(back).backgroundColor)) back = back.parentElement;
    return [getComputedStyle(e).color, getComputedStyle(back).backgroundColor, e.textContent.slice(0, 30)]; })"""
FOCUS = """() => { const s = getComputedStyle(document.activeElement);
  return [s.outlineStyle, parseFloat(s.outlineWidth), s.outlineColor]; }"""


def test_contrast_and_focus_can_be_seen(place: tuple[StudyStore, Server], context: Any) -> None:
    study, server = place
    window = Window.open(context, server, list(study.tokens().values())[5])
    colours, focus = COLOURS, FOCUS
    seen = set()
    while (screen := window.ready()) != "break":
        for ink, paper, text in window.page.evaluate(colours):
            assert contrast(ink, paper) >= 4.5, f"{screen}: {text!r} is {ink} on {paper}"
        if screen not in seen:
            seen.add(screen)
            if not window.page.evaluate("document.activeElement.matches('button, input')"):
                window.page.keyboard.press("Tab")
            style, width, colour = window.page.evaluate(focus)
            assert style == "solid" and width >= 2, f"{screen}: focus cannot be seen"
            assert contrast(colour, "rgb(244, 244, 242)") >= 3
        if screen == "consent":
            window.page.check("#sgs-agree")
        target = '.sgs-answer[data-answer="real"]' if screen == "trial" else ".sgs-primary"
        before = window.count() if screen == "trial" else ""
        window.page.focus(target)
        window.page.keyboard.press("Enter")  # buttons by keyboard, as a screen reader presses them
        window.answered(before) if before else window.leave(screen)
    assert seen == {"consent", "instructions", "trial", "feedback", "ready"}


@pytest.mark.parametrize("width", SIZES)
def test_every_screen_can_be_seen_and_worked(
    place: tuple[StudyStore, Server], browser: Any, width: str, tmp_path: Path
) -> None:
    """Nothing to scroll sideways, contrast, a visible focus: on all screens. SIMGAN_SCREENSHOTS keeps the pictures."""
    study, server = place
    token = list(study.tokens().values())[10 + list(SIZES).index(width)]
    touch = width == "phone"
    context = browser.new_context(
        viewport=SIZES[width], has_touch=touch, is_mobile=touch, device_scale_factor=1 + touch
    )
    context.set_default_timeout(PATIENCE_MS)
    window = Window.open(context, server, token)
    seen: set[str] = set()
    while (screen := window.ready()) != "end":
        check_screen(window, screen, width, seen)
        before = window.count() if screen == "trial" else ""
        if screen == "consent":
            window.page.check("#sgs-agree")
        if screen == "feedback" and "paused" not in seen:
            window.page.click(".sgs-quiet")
            screen = "feedback"
        elif screen == "break" and "resume" not in seen:
            window.page.reload(wait_until="commit")
            window.wait("resume")
            continue
        else:
            window.page.click('.sgs-answer[data-answer="real"]' if screen == "trial" else ".sgs-primary")
        window.answered(before) if before else window.leave(screen)
    check_screen(window, "end", width, seen)
    assert seen == {"consent", "instructions", "trial", "feedback", "paused", "ready", "break", "resume", "end"}
    context.close()


def check_screen(window: Window, screen: str, width: str, seen: set[str]) -> None:
    if screen in seen:
        return
    seen.add(screen)
    page = window.page
    if (folder := os.environ.get("SIMGAN_SCREENSHOTS")) is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{width}-{screen}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[width]["width"], f"{screen}: wider than it"
    for ink, paper, text in page.evaluate(COLOURS):
        assert contrast(ink, paper) >= 4.5, f"{screen}: {text!r} is {ink} on {paper}"
    if page.locator(".sgs button:visible, .sgs input:visible").count() == 0:
        assert screen == "end", "a dead end"
        return
    for _ in range(4):  # the page's own start, then the first of its buttons
        if page.evaluate("document.activeElement.matches('.sgs button, .sgs input')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Shift")  # a key: the ring is for keyboards
    style, line, colour = page.evaluate(FOCUS)
    assert style == "solid" and line >= 2, f"{screen}: focus cannot be seen"
    assert contrast(colour, "rgb(244, 244, 242)") >= 3 and contrast(colour, "rgb(255, 255, 255)") >= 3


def test_reaction_time_is_measured_from_the_frame_with_the_image(
    place: tuple[StudyStore, Server], context: Any
) -> None:
    """The page itself notes when the image turns visible and when the key comes down; both clocks must agree."""
    study, server = place
    name, token = list(study.tokens().items())[6]
    window = Window.open(context, server, token)
    by_keys(window, until="instructions")
    window.page.evaluate("""() => { window.noted = {};
      const look = (now) => { const image = document.querySelector('.sgs-image');
        const seen = image && getComputedStyle(image).visibility === 'visible';
        const cross = document.querySelector('.sgs-fixation');
        if (cross && !window.noted.cross) window.noted.cross = now;
        if (cross && seen) window.noted.both = true;
        if (seen && !window.noted.shown) window.noted.shown = now;
        if (!window.noted.key) requestAnimationFrame(look); };
      document.addEventListener('keydown', (e) => { if (e.key === 'f') window.noted.key = e.timeStamp; }, true);
      requestAnimationFrame(look); }""")
    window.page.wait_for_timeout(350)
    window.page.keyboard.press("Space")
    window.ready()
    window.page.wait_for_timeout(400)
    window.page.keyboard.press("f")
    window.wait("feedback")
    noted = window.page.evaluate("window.noted")
    stored = next(row["reaction_ms"] for row in study.rows() if row["subject"] == name)
    assert stored >= 380
    assert noted["shown"] - noted["cross"] >= 30, "the fixation cross (50 ms) stands before the image"
    assert "both" not in noted, "and is gone when the image comes"
    assert stored == pytest.approx(noted["key"] - noted["shown"], abs=60), "at most a few frames apart"


def test_experimenters_page_counts_live(place: tuple[StudyStore, Server], context: Any) -> None:
    study, server = place
    page = context.new_page()
    page.goto(f"{server.address}/e/{study.experimenter_token}")
    page.wait_for_selector("#subjects tr:nth-of-type(12)")  # no wait_for_function: this page forbids eval
    name, token = list(study.tokens().items())[7]
    row = f"#subjects tr:has-text('{name}')"
    assert "0 of 8" in page.inner_text(row)
    window = Window.open(context, server, token)
    by_keys(window, until="trial")
    window.page.keyboard.press("f")
    window.wait("feedback")
    page.wait_for_selector(f"{row}:has-text('1 of 8'):has-text('in a window now')")
    window.page.close()
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline and "in a window now" in page.inner_text(row):
        page.wait_for_timeout(200)
    assert "interrupted" in page.inner_text(row), "a closed window leaves no session behind"
    assert "right" not in json.dumps(study.counts())


NOTEBOOK = """from simgan_core.study.storage import open_study
from simgan_core.study.widget import StudyWidget
study = open_study({database!r})
StudyWidget(study, list(study.tokens().values())[0])"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """JupyterLab on an own folder and own settings; its address with the token."""
    pytest.importorskip("jupyterlab", reason="needs JupyterLab: pip install jupyterlab")
    settings = tmp_path / "config" / "labconfig"
    settings.mkdir(parents=True)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (settings / "page_config.json").write_text(json.dumps(quiet))
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
               "--IdentityProvider.token=secret", "--LabApp.expose_app_in_browser=True",
               f"--ServerApp.root_dir={tmp_path}"]  # fmt: skip
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True,
                                   env=os.environ | own | {"IPYTHONDIR": str(tmp_path / "ipython")})  # fmt: skip
        try:
            yield f"http://127.0.0.1:{port}/lab/tree/study.ipynb?token=secret&reset"
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_jupyterlab_by_keys_from_practice_to_end(tmp_path: Path, lab: str, context: Any) -> None:
    study = small_study(tmp_path / "lab.db", subjects=1)
    page = context.new_page()
    run_in_lab(page, lab, tmp_path, [NOTEBOOK.format(database=str(study_file(study)))])
    window = Window(page)
    by_keys(window, key="j")
    assert [row["answer"] for row in study.rows()] == ["refined"] * 8
    assert page.locator(".jp-Notebook .jp-Cell").count() == 1, "no key reached JupyterLab's own shortcuts"
    study.close()


def test_jupyterlab_with_deadline(tmp_path: Path, lab: str, context: Any) -> None:
    """The same widget in a notebook: F and J answer and do nothing else; without an answer the deadline passes."""
    study = small_study(tmp_path / "lab.db", subjects=1, practice=0, attention=0, deadline_ms=1500, break_every=None)
    page = context.new_page()
    run_in_lab(page, lab, tmp_path, [NOTEBOOK.format(database=str(study_file(study)))])
    window = Window(page)
    window.wait("consent")
    by_keys(window, until="trial")
    for key in ("f", "j"):
        window.ready()
        before = window.count()
        page.keyboard.press(key)
        window.answered(before)
    window.wait("end")  # nobody answers the other two
    assert [row["answer"] for row in study.rows()] == ["real", "refined", "timeout", "timeout"]
    assert page.locator(".jp-Notebook .jp-Cell").count() == 1, "no key reached JupyterLab's own shortcuts"
    study.close()


def run_in_lab(page: Any, lab: str, folder: Path, cells: list[str]) -> None:
    """Open a notebook of these cells in JupyterLab and run them all."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=kernel)
    nbformat.write(made, folder / "study.ipynb")
    open_patiently(page, lab)
    run_all(page)


def run_all(page: Any) -> None:
    page.wait_for_selector("#jp-main-statusbar:has-text('| Idle')")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")


def cells_of_notebook_06(run: Path) -> list[str]:
    """Its cells up to 'Who answered', on a run whose stores are there already."""
    source = nbformat.read(Path(__file__).parent.parent / "notebooks/06_visual_turing_test.ipynb", as_version=4)
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    chosen = code[: next(k for k, cell in enumerate(code) if "answers_of(run" in cell) + 1]
    assert "RUN_DIR" in chosen[0] and "StudyWidget" in "".join(chosen)
    setup = [line for line in chosen[1].splitlines() if not line.startswith("stages.")]
    return [f"{chosen[0]}\nRUN_DIR = {str(run)!r}", "\n".join(setup), *chosen[2:]]


def test_notebook_06_in_jupyterlab_by_mouse_with_a_reload(tmp_path: Path, lab: str, context: Any) -> None:
    """A person takes the study that the notebook shows, and the cells below then analyse that person's answers."""
    run = RunFolder.create(tmp_path / "run", data="embedded", config=profile("smoke"))
    for seed, path in enumerate((run.stores / "real", run.stores / "synthetic", run.refined(0))):
        toy_store(path, 40, seed)
    page = context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())  # 'leave without saving?'
    run_in_lab(page, lab, tmp_path, cells_of_notebook_06(run.path))
    window = Window(page)
    window.wait("consent")
    by_pointer(window, "click", stop_at="3 of 26")
    page.wait_for_selector(".jp-OutputArea:has-text('SIMULATED')")
    page.reload(wait_until="commit")
    run_all(page)
    window.wait("resume")
    by_pointer(window, "click")
    with open_study(run.path / "study.db") as study:
        taken = [row for row in study.rows() if row["answer"] is not None]
    assert len(taken) == 28 and {row["answer"] for row in taken} == {"refined"}
    assert {row["responder"] for row in taken} == {"human"}
    run_all(page)
    page.wait_for_selector(".jp-OutputArea:has-text('1 people')")


def open_patiently(page: Any, address: str) -> None:
    """Open a page of a server that is still starting."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while True:
        try:
            page.goto(address, wait_until="commit")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            page.wait_for_timeout(500)
