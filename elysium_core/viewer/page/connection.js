// The WebSocket to the server: greets, comes back by itself, pairs requests with replies, and unpacks pictures.

export const VERSION = 1;
const WRONG_TOKEN = 4401;
const FIRST_PAUSE_MS = 400;
const LONGEST_PAUSE_MS = 8000;
const REPLY_TIMEOUT_MS = 90000;

export class Connection {
  /** @param on callbacks: link(state), message(object), picture(header, blob), token() */
  constructor(on) {
    this.on = on;
    this.camera = "";
    this.pauseMs = FIRST_PAUSE_MS;
    this.next = 1;
    this.waiting = new Map();
    this.token = takeToken();
  }

  open() {
    clearTimeout(this.timer);
    this.on.link("connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.send({ type: "hello", version: VERSION, token: this.token, camera: this.camera });
    socket.onmessage = (event) => this.take(event.data);
    socket.onclose = (event) => this.closed(event.code);
  }

  useToken(token) {
    this.token = token;
    sessionStorage.setItem("elysium-token", token);
    this.open();
  }

  /** Comes back at once if the connection is lost, for example when the page is looked at again. */
  hurry() {
    if (this.socket && this.socket.readyState === WebSocket.CLOSED && !this.needsToken) {
      this.pauseMs = FIRST_PAUSE_MS;
      this.open();
    }
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  ack(sequence) {
    this.send({ type: "ack", sequence });
  }

  /** Sends a request; resolves with the reply, which is never an exception. */
  ask(request) {
    const number = this.next++;
    if (!this.socket || this.socket.readyState !== WebSocket.OPEN) {
      return Promise.resolve({ ok: false, code: "OFFLINE", text: "the viewer is not connected; it tries again by itself" });
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.settle(number, { ok: false, code: "NO_ANSWER", text: "there was no answer in time" }), REPLY_TIMEOUT_MS);
      this.waiting.set(number, { resolve, timer });
      this.send({ ...request, request: number });
    });
  }

  settle(number, reply) {
    const entry = this.waiting.get(number);
    if (!entry) return;
    clearTimeout(entry.timer);
    this.waiting.delete(number);
    entry.resolve(reply);
  }

  take(data) {
    if (typeof data !== "string") {
      const length = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      this.on.picture(header, new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "reply") return this.settle(message.request, message);
    if (message.type === "welcome") {
      this.pauseMs = FIRST_PAUSE_MS;
      this.needsToken = false;
      this.camera = message.camera;
      this.on.link("open");
    }
    this.on.message(message);
  }

  closed(code) {
    for (const number of [...this.waiting.keys()]) {
      this.settle(number, { ok: false, code: "OFFLINE", text: "the connection was lost before the answer came" });
    }
    this.on.link("lost");
    this.needsToken = code === WRONG_TOKEN;
    if (this.needsToken) return this.on.token(this.token !== "");
    this.timer = setTimeout(() => this.open(), this.pauseMs * (0.75 + Math.random() / 2));
    this.pauseMs = Math.min(2 * this.pauseMs, LONGEST_PAUSE_MS);
  }
}

/** The token of the address, which is then taken out of it: addresses are copied and photographed. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("elysium-token", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("elysium-token") ?? "";
}
