// The page: connects the parts. All text from outside is shown by textContent, never as HTML.

import { Connection } from "./connection.js";
import { Picture } from "./picture.js";
import { make, Targets } from "./targets.js";

const NOTICE_MS = 9000;
const MOST_NOTICES = 3;
const SILENT_MS = 4000;
const LINKS = { connecting: "Connecting", open: "Connected", lost: "Connection lost, trying again" };

const at = (id) => document.getElementById(id);
let cameras = [];
let isPaused = false;
let lastPictureMs = 0;
let fault = "";
let pending = null;
let owed = [];
let newest = 0;

const picture = new Picture(at("picture"), {
  box: (box, stamp) => follow({ box, stamp }),
  click: (point, stamp) => follow({ point, stamp }),
  choose,
  mode: (text) => {
    at("mode").textContent = text;
    at("mode").hidden = !text;
  },
});
const targets = new Targets(at("targets"), { stop, describe, choose });
const link = new Connection({ link: showLink, message: take, picture: takePicture, token: askToken });

// ---------------------------------------------------------------------------------------------------- from the server

function take(message) {
  if (message.type === "welcome") {
    cameras = message.cameras;
    newest = 0; // another server counts anew
    at("source").textContent = message.source;
    document.title = `${message.source} – elysium`;
    at("camera").replaceChildren(...cameras.map((name) => new Option(name || "camera", name)));
    at("camera").value = message.camera;
    at("camera-choice").hidden = cameras.length < 2;
    at("pause").disabled = false;
  } else if (message.type === "status") showStatus(message);
  else if (message.type === "notice") notice(message.code, message.text);
}

/** Decodes off the page's thread and draws with the next repaint: a page that nobody sees draws and takes nothing. */
async function takePicture(header, blob) {
  let image = null;
  try {
    image = await decode(blob);
  } catch {
    link.ack(header.sequence);
    return;
  }
  if (header.sequence < newest) {
    // Decoding overtook it.
    image.close();
    link.ack(header.sequence);
    return;
  }
  newest = header.sequence;
  const isScheduled = pending !== null;
  pending?.image.close();
  pending = { header, image };
  owed.push(header.sequence);
  if (!isScheduled) requestAnimationFrame(drawPending);
}

/** Boxes are in pixels of the picture as it was sent, so an orientation in the file is ignored. */
async function decode(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "none" });
  } catch (error) {
    if (error instanceof TypeError) return createImageBitmap(blob); // a browser that does not know this option
    throw error;
  }
}

function drawPending() {
  const { header, image } = pending;
  pending = null;
  for (const sequence of owed) link.ack(sequence);
  owed = [];
  if (header.camera !== link.camera) return image.close();
  lastPictureMs = performance.now();
  document.body.dataset.pictures = Number(document.body.dataset.pictures ?? 0) + 1;
  picture.show(header, image);
  if (header.results) targets.show(header.targets);
  else targets.lose();
  at("no-targets").hidden = targets.ids.length > 0;
  at("stop-all").hidden = targets.ids.length < 2;
  showWaiting();
}

function showLink(state) {
  at("link").dataset.link = state;
  at("link").textContent = LINKS[state];
  document.body.dataset.link = state;
}

function showStatus(status) {
  const hz = (value) => (value ? value.toFixed(value < 10 ? 1 : 0) : "0");
  const ms = (value) => (value ? `${value.toFixed(value < 10 ? 1 : 0)}` : "–");
  at("rate").textContent = `${hz(status.input_hz)} in · ${hz(status.output_hz)} out /s`;
  at("latency").textContent = `${ms(status.latency_p50_ms)} · p95 ${ms(status.latency_p95_ms)} ms`;
  const share = status.received ? Math.round((100 * status.dropped) / status.received) : 0;
  at("dropped").textContent = `${status.dropped} (${share} %)`;
  at("model").textContent = [status.model, status.device].filter(Boolean).join(" · ") || "–";
  isPaused = status.paused;
  at("pause").textContent = isPaused ? "Go on" : "Pause";
  at("pause").setAttribute("aria-pressed", String(isPaused));
  at("progress").hidden = status.position === null;
  if (status.position !== null) at("progress").firstElementChild.style.width = `${100 * status.position}%`;
  fault = status.fault ? sentence(status.fault_text) : "";
  showWaiting();
}

/** Says why there is no new picture. */
function showWaiting() {
  const isSilent = !isPaused && performance.now() - lastPictureMs > SILENT_MS;
  const hasPicture = Boolean(picture.image);
  at("wait").hidden = hasPicture && !fault && !isSilent;
  at("wait").classList.toggle("over", hasPicture);
  at("wait-text").textContent = fault || (hasPicture ? "No new pictures arrive" : "Waiting for the first picture");
}

function notice(code, text) {
  const box = at("notices");
  for (const other of box.children) if (other.dataset.code === code) other.remove();
  const element = make("div", "notice");
  element.dataset.code = code;
  const words = make("p", "", `${sentence(text)} `);
  words.append(make("code", "", code));
  const close = make("button", "plain", "×");
  close.type = "button";
  close.setAttribute("aria-label", "Close this message");
  close.addEventListener("click", () => element.remove());
  element.append(words, close);
  box.prepend(element);
  while (box.children.length > MOST_NOTICES) box.lastElementChild.remove();
  setTimeout(() => element.remove(), NOTICE_MS);
}

const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "");

// ------------------------------------------------------------------------------------------------------- to the server

async function request(message) {
  const reply = await link.ask(message);
  if (!reply.ok) notice(reply.code, reply.text);
  return reply;
}

async function follow(what) {
  const expression = at("words").value.trim();
  if (!expression && !what.box && !what.point) return at("words").focus();
  const reply = await request({ type: "track", expression, ...what });
  if (reply.ok) {
    at("words").value = "";
    select(reply.target);
  }
}

async function stop(id) {
  await request({ type: "stop", target: id });
}

async function describe(id) {
  targets.busy(id, true);
  const reply = await request({ type: "describe", target: id });
  targets.busy(id, false);
  if (reply.ok) say(`Describe target ${id}`, reply.text);
}

async function ask(question) {
  const entry = say(question, "…");
  const reply = await request({ type: "ask", question });
  if (reply.ok) entry.lastElementChild.textContent = reply.text;
  else entry.remove();
}

function say(asked, answer) {
  const entry = make("li");
  entry.append(make("div", "asked", asked), make("div", "answer", answer));
  at("talk").prepend(entry);
  while (at("talk").children.length > 30) at("talk").lastElementChild.remove();
  return entry;
}

async function showCamera(name) {
  link.camera = name;
  at("camera").value = name;
  picture.clear();
  targets.clear();
  showWaiting();
  await request({ type: "camera", camera: name });
}

async function pause() {
  const reply = await request({ type: "pause", paused: !isPaused });
  if (reply.ok) isPaused = !isPaused;
  at("pause").textContent = isPaused ? "Go on" : "Pause";
}

function choose(id) {
  select(targets.chosen === id ? "" : id);
}

function select(id) {
  targets.choose(id);
  picture.chosen = targets.chosen;
  picture.draw();
}

// -------------------------------------------------------------------------------------------------------- person's hands

at("track").addEventListener("submit", (event) => {
  event.preventDefault();
  follow({});
});
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (question) ask(question);
  at("question").value = "";
});
at("stop-all").addEventListener("click", () => stop(""));
at("pause").addEventListener("click", pause);
at("camera").addEventListener("change", (event) => showCamera(event.target.value));
at("help-open").addEventListener("click", () => at("help").showModal());
at("help-close").addEventListener("click", () => at("help").close());

function askToken(wasWrong) {
  if (wasWrong) at("login-why").textContent = "That token is not the right one. It was printed where the viewer was started.";
  if (!at("login").open) at("login").showModal();
}
at("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  at("login").close();
  link.useToken(at("token").value.trim());
});

const KEYS = {
  "/": () => at("words").focus(),
  a: () => at("question").focus(),
  b: () => picture.startKeyBox(),
  d: () => targets.chosen && describe(targets.chosen),
  Delete: () => targets.chosen && stop(targets.chosen),
  Backspace: () => targets.chosen && stop(targets.chosen),
  " ": pause,
  c: () => cameras.length > 1 && showCamera(cameras[(cameras.indexOf(link.camera) + 1) % cameras.length]),
  "?": () => at("help").showModal(),
  Escape: () => picture.leave(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const isTyping = event.target.matches("input, select");
  if (isTyping) return event.key === "Escape" && event.target.blur();
  if (event.key === " " && event.target.matches("button")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const number = targets.ids[Number(key) - 1];
  const action = KEYS[key] ?? (number && (() => choose(number)));
  if (!action) return;
  event.preventDefault();
  action();
});

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  picture.draw();
}
const isLight = matchMedia("(prefers-color-scheme: light)");
useTheme(localStorage.getItem("elysium-theme") ?? (isLight.matches ? "light" : "dark"));
isLight.addEventListener("change", () => localStorage.getItem("elysium-theme") ?? useTheme(isLight.matches ? "light" : "dark"));
at("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  localStorage.setItem("elysium-theme", theme);
  useTheme(theme);
});

document.addEventListener("visibilitychange", () => document.hidden || link.hurry());
addEventListener("online", () => link.hurry());
setInterval(showWaiting, 1000);
link.open();
