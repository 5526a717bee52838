// The screen of the visual Turing test: a thin view. What to show next is decided in Python (session.py); here are
// keys, buttons, timing and pictures. The truth of a trial is never known here, except after a practice answer.

const PATIENCE_MS = 15000; // no reply for so long: the connection counts as lost
const REST_MS = 300; // keys are dead for this long after a screen appears, so that no answer skips it
const RESIZE_MS = 500; // without another change the window has come to rest
const ELSEWHERE_MS = 250; // for another tab to say that it shows this session
const PENDING = "simgan-study-pending";
const SESSION = "simgan-study-session";

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function remembered(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null; // storage is switched off, or holds something else
  }
}

function remember(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Without storage a reload in mid-answer shows that image again; nothing else changes.
  }
}

// Whether another tab shows this session: a tab that was duplicated brings the first one's memory along.
function ownedElsewhere(session, signal) {
  if (typeof BroadcastChannel === "undefined") return Promise.resolve(false);
  const channel = new BroadcastChannel("simgan-study");
  const me = (window.simganStudyTab ??= `${Math.random()}`); // views in one tab, as in JupyterLab, are no strangers
  let shown = null; // the session of this tab, once it is sure
  signal.addEventListener("abort", () => channel.close());
  return new Promise((settle) => {
    channel.onmessage = ({ data }) => {
      if (data.asks && data.from !== me && shown !== null && data.asks === shown()) channel.postMessage({ tells: data.from });
      if (data.tells === me) settle(true);
    };
    if (session !== null) channel.postMessage({ asks: session, from: me });
    setTimeout(() => settle(false), session === null ? 0 : ELSEWHERE_MS);
  }).then((found) => {
    shown = () => remembered(SESSION);
    return found;
  });
}

function milliseconds(value) {
  return Math.max(0, Math.round(value * 10) / 10);
}

function client() {
  return {
    user_agent: navigator.userAgent.slice(0, 300),
    window_width: Math.round(window.innerWidth),
    window_height: Math.round(window.innerHeight),
    pixel_ratio: window.devicePixelRatio || 1,
  };
}

// Keys are compared by the letter that they type. Where that is of another script (Cyrillic, Greek, ...) than the
// study's keys, by their place.
function answerOf(event, answers) {
  const typed = event.key.toLowerCase();
  const exact = answers.find((one) => one.key === typed);
  if (exact || typed.length !== 1 || typed.charCodeAt(0) <= 127 || !/^Key[A-Z]$/.test(event.code)) return exact;
  return answers.find((one) => one.key === event.code.slice(3).toLowerCase());
}

// Whether the picture can be shown. A browser short of memory refuses to decode ahead what it can still draw.
async function decoded(picture) {
  try {
    await picture.decode();
    return true;
  } catch {
    if (!picture.complete) await new Promise((wake) => ["load", "error"].forEach((kind) => picture.addEventListener(kind, wake)));
    return picture.naturalWidth > 0;
  }
}

function render({ model, el }) {
  const onPage = model.get("on_page");
  const listeners = new AbortController();
  const images = new Map(); // trial -> {picture: HTMLImageElement, ready: Promise of whether it can be shown, url}
  const timers = new Set();
  let setup = null;
  let trial = null; // {trial, practice, done, total, shown, gone: times of frames, open: may be answered, refit}
  let goOn = null; // what Space, Enter and the one button do on this screen
  let screenSince = 0;
  let paused = false;
  let pauseWanted = false;
  let watchdog = null;
  let alive = true;
  let told = client(); // the window as Python knows it
  let resizing = null;

  const bar = element("div", { class: "sgs-bar-fill" });
  const count = element("span", { class: "sgs-count" });
  const pauseButton = element("button", { class: "sgs-quiet", type: "button", text: "Pause" });
  const header = element(
    "header", { class: "sgs-header" },
    element("div", { class: "sgs-bar", "aria-hidden": "true" }, bar),
    element("div", { class: "sgs-row" }, count, pauseButton),
  );
  const main = element("div", { class: "sgs-main" });
  const status = element("p", { class: "sgs-status", role: "status", "aria-live": "polite" });
  const root = element(
    "section",
    // JupyterLab would take F and J for its own shortcuts.
    { class: "sgs", tabindex: "-1", "aria-label": "Study", "data-lm-suppress-shortcuts": "true" },
    header, main, status,
  );
  if (onPage) root.classList.add("sgs-page");
  el.replaceChildren(root);

  // ------------------------------------------------------------------ talk with Python
  function later(delay, action) {
    const timer = setTimeout(() => {
      timers.delete(timer);
      if (alive) action();
    }, delay);
    timers.add(timer);
    return timer;
  }

  function send(message) {
    clearTimeout(watchdog);
    watchdog = later(PATIENCE_MS, connectionLost);
    try {
      model.send(message);
    } catch {
      connectionLost();
    }
  }

  // What happens to this window goes to the study's event log; nothing is sent back, so that nothing is waited for.
  function note(what) {
    if (setup === null) return;
    told = client();
    try {
      model.send({ type: "note", what, client: told });
    } catch {
      // The next answer will notice that the connection is lost.
    }
  }

  function noteSize() {
    const now = client();
    if (told && ["window_width", "window_height", "pixel_ratio"].some((name) => now[name] !== told[name])) note("resized");
  }

  function connectionLost() {
    clearTimeout(watchdog);
    trial = null;
    const again = onPage ? "The page continues by itself as soon as the server answers." : "Run the cell again to go on.";
    showText({
      kind: "lost", title: "Connection lost", button: onPage ? "Try now" : null,
      text: ["Every answer so far is stored.", again],
    }, () => location.reload());
    if (onPage) waitForServer();
  }

  // By hand only: a page that loads itself again would do so for ever where the picture stays broken.
  function pictureBroken() {
    trial = null;
    showText({
      kind: "broken", title: "A picture did not arrive whole", button: onPage ? "Try again" : null,
      text: ["Every answer so far is stored.", onPage ? "Loading the page again usually helps." : "Run the cell again to go on."],
    }, () => location.reload());
  }

  async function waitForServer() {
    while (alive && root.dataset.screen === "lost") {
      await new Promise((wake) => later(2000, wake));
      try {
        const reply = await fetch(model.get("alive_url"), { cache: "no-store" });
        if (reply.ok && root.dataset.screen === "lost") {
          location.reload();
          return;
        }
      } catch {
        // Still away.
      }
    }
  }

  // ------------------------------------------------------------------ screens of text
  function clear(kind) {
    root.dataset.screen = kind;
    main.replaceChildren();
    status.textContent = "";
    goOn = null;
    screenSince = performance.now();
    header.hidden = !["trial", "feedback", "break", "ready", "paused"].includes(kind);
    pauseButton.hidden = kind !== "trial" && kind !== "feedback";
  }

  function showText({ kind, title, text, button, choice }, action) {
    clear(kind);
    const card = element("div", { class: "sgs-card" }, element("h1", { text: title, tabindex: "-1" }));
    for (const paragraph of text) card.append(element("p", { text: paragraph }));
    if (kind === "instructions" || kind === "ready") card.append(keyLegend());
    let agree = null;
    if (choice) {
      agree = element("input", { type: "checkbox", id: "sgs-agree" });
      card.append(element("label", { class: "sgs-agree", for: "sgs-agree" }, agree, element("span", { text: choice })));
    }
    if (button) {
      const made = element("button", { class: "sgs-primary", type: "button", text: button });
      made.disabled = agree !== null;
      agree?.addEventListener("change", () => (made.disabled = !agree.checked));
      goOn = () => {
        if (made.disabled) return;
        made.disabled = true;
        goOn = null;
        action();
      };
      made.addEventListener("click", () => goOn?.());
      card.append(made);
      if (!choice) card.append(element("p", { class: "sgs-hint", text: "or press the space bar" }));
    }
    main.append(card);
    (agree ?? card.querySelector("h1")).focus({ preventScroll: true });
    root.scrollIntoView?.({ block: "nearest" });
  }

  function keyLegend() {
    const rows = setup.answers.map((answer) =>
      element("li", {}, element("kbd", { text: answer.key.toUpperCase() }), element("span", { text: answer.label })));
    return element("ul", { class: "sgs-keys", "aria-label": "Keys" }, ...rows);
  }

  function progress({ done, total, practice }, between = false) {
    bar.style.width = `${total ? (100 * done) / total : 0}%`;
    const place = between ? `${done} of ${total} done` : `${Math.min(done + 1, total)} of ${total}`;
    count.textContent = `${practice ? "Practice: " : ""}${place}`;
  }

  // ------------------------------------------------------------------ pictures
  function keepImage(number, buffer) {
    if (images.has(number)) return;
    const url = URL.createObjectURL(new Blob([buffer], { type: "image/png" }));
    const picture = element("img", { class: "sgs-image", alt: "The image to judge", draggable: "false" });
    picture.src = url;
    images.set(number, { picture, url, ready: decoded(picture) });
  }

  function dropImages(before) {
    for (const [number, kept] of images) {
      if (number >= before) continue;
      URL.revokeObjectURL(kept.url);
      images.delete(number);
    }
  }

  // Every image takes the place of the smallest one times the scale (the word of an attention check is drawn larger), in
  // whole multiples of device pixels, so that each pixel of the image is a square of one colour.
  function enlarge(picture, stage) {
    const ratio = window.devicePixelRatio || 1;
    const widths = [...images.values()].map((kept) => kept.picture.naturalWidth).filter((width) => width > 0);
    const place = Math.min(...widths) * setup.scale * ratio;
    const width = picture.naturalWidth;
    const height = picture.naturalHeight;
    const room = Math.min(place / width, (stage.clientWidth * ratio) / width, (stage.clientHeight * ratio) / height);
    const factor = room >= 1 ? Math.floor(room) : room;
    picture.style.width = `${(width * factor) / ratio}px`;
    picture.style.height = `${(height * factor) / ratio}px`;
  }

  // ------------------------------------------------------------------ one trial
  async function showTrial(message) {
    trial = { ...message, shown: null, gone: null, open: false, refit: null };
    const current = trial;
    dropImages(message.trial);
    progress(message);
    const pending = remembered(PENDING);
    if (pending && pending.subject === setup.subject && pending.answer.trial === message.trial) {
      send(pending.answer); // answered before the reload, but the answer was not confirmed
      return;
    }
    remember(PENDING, null);
    if (paused || pauseWanted) {
      showPause();
      return;
    }
    clear("trial");
    const stage = element("div", { class: "sgs-stage" });
    const cross = element("div", { class: "sgs-fixation", "aria-hidden": "true", text: "+" });
    stage.append(cross);
    const buttons = setup.answers.map((answer) => answerButton(answer));
    main.append(
      element("p", { class: "sgs-question", text: setup.question }), stage,
      element("div", { class: "sgs-answers" }, ...buttons),
    );
    root.focus({ preventScroll: true });
    const kept = images.get(message.trial);
    if (!kept) {
      connectionLost();
      return;
    }
    const [usable] = await Promise.all([kept.ready, new Promise((wake) => later(setup.fixation_ms, wake))]);
    if (!alive || trial !== current) return;
    if (!usable) {
      pictureBroken();
      return;
    }
    if (paused || pauseWanted) {
      showPause();
      return;
    }
    kept.picture.style.visibility = "hidden";
    stage.append(kept.picture);
    enlarge(kept.picture, stage);
    current.refit = () => enlarge(kept.picture, stage);
    requestAnimationFrame((frame) => {
      if (trial !== current) return;
      cross.remove();
      kept.picture.style.visibility = "visible";
      current.shown = frame;
      current.open = true;
      for (const button of buttons) button.disabled = false;
      if (setup.exposure_ms || setup.deadline_ms) requestAnimationFrame((next) => watch(current, kept.picture, next));
    });
  }

  // Exposure and deadline are checked on frames: what counts is what the screen shows.
  function watch(current, picture, frame) {
    if (!alive || trial !== current || !current.open) return;
    const elapsed = frame - current.shown;
    if (setup.exposure_ms && elapsed >= setup.exposure_ms && current.gone === null) {
      picture.style.visibility = "hidden";
      current.gone = frame;
    }
    if (setup.deadline_ms && elapsed >= setup.deadline_ms) {
      answerTrial("timeout", frame);
      return;
    }
    requestAnimationFrame((next) => watch(current, picture, next));
  }

  function answerButton(answer) {
    const button = element(
      "button", { class: "sgs-answer", type: "button", "data-answer": answer.value, "aria-keyshortcuts": answer.key.toUpperCase() },
      element("span", { text: answer.label }), element("kbd", { text: answer.key.toUpperCase() }),
    );
    button.disabled = true;
    // The press counts, not the release; a click without a press comes from the keyboard or from a screen reader.
    button.addEventListener("pointerdown", (event) => event.button === 0 && answerTrial(answer.value, event.timeStamp));
    button.addEventListener("click", (event) => event.detail === 0 && answerTrial(answer.value, event.timeStamp));
    return button;
  }

  function answerTrial(value, timestamp) {
    if (!trial?.open) return;
    trial.open = false;
    noteSize();
    const message = {
      type: "answer", trial: trial.trial, answer: value,
      reaction_ms: milliseconds(timestamp - trial.shown),
      exposure_ms: milliseconds((trial.gone ?? timestamp) - trial.shown),
    };
    for (const button of root.querySelectorAll(".sgs-answer")) {
      button.disabled = true;
      button.classList.toggle("sgs-chosen", button.dataset.answer === value);
    }
    if (value === "timeout") status.textContent = "Too slow: please answer a little faster.";
    remember(PENDING, { subject: setup.subject, answer: message });
    send(message);
  }

  function showFeedback(message) {
    const answer = setup.answers.find((one) => one.value === message.truth);
    const verdict = message.correct ? "Right." : "Not this time.";
    root.dataset.screen = "feedback";
    screenSince = performance.now();
    pauseButton.hidden = false;
    const next = element("button", { class: "sgs-primary", type: "button", text: "Next" });
    goOn = () => {
      goOn = null;
      next.disabled = true;
      send({ type: "next" });
    };
    next.addEventListener("click", () => goOn?.());
    main.querySelector(".sgs-answers")?.replaceChildren(next);
    const note = element("p", { class: message.correct ? "sgs-note sgs-right" : "sgs-note sgs-wrong" });
    note.textContent = answer ? `${verdict} This one is: ${answer.label}.` : "Too slow. Please answer a little faster.";
    main.querySelector(".sgs-question")?.replaceWith(note);
    status.textContent = "";
    next.focus({ preventScroll: true });
  }

  function showPause() {
    if (!paused) note("paused");
    paused = true;
    pauseWanted = false;
    const waiting = trial;
    showText({ kind: "paused", title: "Paused", text: ["Take your time. Your answers so far are stored."], button: "Go on" },
      () => {
        paused = false;
        note("went on");
        if (waiting) showTrial(waiting);
      });
  }

  function pause() {
    if (root.dataset.screen === "feedback") {
      pauseWanted = true;
      goOn?.();
    } else if (trial && !trial.open && trial.shown === null) {
      showPause();
    } else if (trial) {
      pauseWanted = !pauseWanted;
      status.textContent = pauseWanted ? "The study pauses after this image." : "";
    }
  }

  // ------------------------------------------------------------------ messages, keys, life
  const shows = {
    setup: (message) => {
      setup = message;
      remember(SESSION, message.session);
    },
    image: (message, buffers) => keepImage(message.trial, buffers[0]),
    trial: showTrial,
    feedback: (message) => {
      remember(PENDING, null);
      // A late reply, or one to an answer that was sent again after a reload: its picture is not on the screen.
      if (main.querySelector(".sgs-answers")) showFeedback(message);
      else send({ type: "next" });
    },
    screen: (message) => {
      trial = null;
      pauseWanted = false;
      if (message.progress) progress(message.progress, true);
      if (message.kind !== "occupied") remember(PENDING, message.kind === "resume" ? remembered(PENDING) : null);
      showText(message, () => send({ type: message.action }));
    },
  };

  function onMessage(message, buffers) {
    clearTimeout(watchdog);
    if (alive && Object.hasOwn(shows, message.type)) shows[message.type](message, buffers);
  }

  function onKey(event) {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (event.key === "Escape" && trial) {
      event.preventDefault();
      pause();
      return;
    }
    const answer = trial?.open && answerOf(event, setup.answers);
    if (answer) {
      event.preventDefault();
      event.stopPropagation();
      answerTrial(answer.value, event.timeStamp);
      return;
    }
    const elsewhere = event.target.closest?.("button, input, a");
    if ((event.key === " " || event.key === "Enter") && goOn && !elsewhere) {
      event.preventDefault();
      if (performance.now() - screenSince >= REST_MS) goOn();
    }
  }

  model.on("msg:custom", onMessage);
  pauseButton.addEventListener("click", pause);
  (onPage ? document : root).addEventListener("keydown", onKey, { signal: listeners.signal });
  window.addEventListener("resize", () => {
    trial?.refit?.();
    clearTimeout(resizing);
    resizing = later(RESIZE_MS, noteSize); // once, when the window has come to rest
  }, { signal: listeners.signal });

  clear("loading");
  main.append(element("p", { class: "sgs-loading", text: "One moment …" }));
  ownedElsewhere(remembered(SESSION), listeners.signal).then((found) => {
    if (found) for (const key of [SESSION, PENDING]) remember(key, null);
    if (alive) send({ type: "hello", session: remembered(SESSION), client: client() });
  });

  return () => {
    alive = false;
    listeners.abort();
    model.off("msg:custom", onMessage);
    for (const timer of timers) clearTimeout(timer);
    dropImages(Infinity);
  };
}

export default { render };
