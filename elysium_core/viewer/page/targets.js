// The list of targets: one card each, with its state, its score over time, and what was said about it.

import { hueOf } from "./picture.js";

const HISTORY = 150;
const STATES = { TRACKED: "tracked", UNCERTAIN: "uncertain", LOST: "lost", REMOVED: "ended", STALE: "no news" };

export class Targets {
  /** @param on callbacks: stop(id), describe(id), choose(id) */
  constructor(list, on) {
    this.list = list;
    this.on = on;
    this.cards = new Map();
    this.chosen = "";
  }

  get ids() {
    return [...this.cards.keys()];
  }

  show(targets) {
    const present = new Set();
    for (const target of targets) {
      if (target.state === "REMOVED") continue;
      present.add(target.id);
      const card = this.cards.get(target.id) ?? this.make(target.id);
      card.update(target);
    }
    for (const [id, card] of this.cards) {
      if (present.has(id)) continue;
      card.element.remove();
      this.cards.delete(id);
      if (this.chosen === id) this.choose("");
    }
  }

  /** Nothing is known about the targets any more, because the tracker says nothing. */
  lose() {
    for (const card of this.cards.values()) card.update({ ...card.last, state: "STALE", box: null, reason: "" });
  }

  clear() {
    this.show([]);
  }

  choose(id) {
    this.chosen = id;
    for (const [other, card] of this.cards) card.element.classList.toggle("chosen", other === id);
  }

  busy(id, isBusy) {
    const card = this.cards.get(id);
    if (!card) return;
    card.describe.disabled = isBusy;
    card.describe.textContent = isBusy ? "Looking…" : "Describe";
  }

  make(id) {
    const card = new Card(id, this.on);
    this.cards.set(id, card);
    card.element.classList.toggle("chosen", id === this.chosen);
    this.list.append(card.element);
    return card;
  }
}

class Card {
  constructor(id, on) {
    this.scores = [];
    this.element = make("li", "target");
    this.element.style.setProperty("--hue", hueOf(id));
    this.element.dataset.target = id;
    this.name = make("button", "name");
    this.name.type = "button";
    this.name.addEventListener("click", () => on.choose(id));
    this.state = make("span", "state");
    this.graph = make("canvas", "line");
    this.graph.setAttribute("role", "img");
    this.score = make("span", "score");
    this.reason = make("p", "quiet");
    this.text = make("p", "text");
    this.describe = make("button", "small", "Describe");
    this.stop = make("button", "small", "Stop");
    for (const button of [this.describe, this.stop]) button.type = "button";
    this.describe.addEventListener("click", () => on.describe(id));
    this.stop.addEventListener("click", () => on.stop(id));
    this.stop.setAttribute("aria-label", `Stop target ${id}`);
    this.describe.setAttribute("aria-label", `Describe target ${id}`);
    const head = make("div", "row");
    head.append(this.name, this.state);
    const graph = make("div", "row graph");
    graph.append(this.graph, this.score, this.describe, this.stop);
    this.element.append(head, graph, this.reason, this.text);
  }

  update(target) {
    this.last = target;
    const { dataset } = this.element;
    dataset.state = target.state;
    dataset.box = target.box ? target.box.join(",") : "";
    setText(this.name, `${target.id}  ${target.words || "box"}`);
    setText(this.state, STATES[target.state] ?? target.state);
    this.state.dataset.state = target.state;
    setText(this.score, target.state === "TRACKED" || target.state === "UNCERTAIN" ? target.score.toFixed(2) : "–");
    setText(this.reason, target.reason);
    this.reason.hidden = !target.reason;
    if (target.text) setText(this.text, target.text);
    this.text.hidden = !this.text.textContent;
    this.scores.push(target.box && target.state !== "LOST" ? target.score : null);
    if (this.scores.length > HISTORY) this.scores.shift();
    this.drawGraph();
  }

  /** The score over the last pictures; a gap where there was no box. */
  drawGraph() {
    const { graph, scores } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [graph.clientWidth, graph.clientHeight];
    if (!width) return;
    [graph.width, graph.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = graph.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.element);
    context.strokeStyle = style.getPropertyValue("--line");
    context.beginPath();
    for (const y of [3, height - 3]) {
      context.moveTo(0, y);
      context.lineTo(width, y);
    }
    context.stroke();
    context.strokeStyle = style.getPropertyValue("--accent");
    context.lineWidth = 2;
    context.beginPath();
    let isDown = false;
    scores.forEach((score, i) => {
      const x = width - ((scores.length - 1 - i) / (HISTORY - 1)) * width;
      if (score === null) isDown = false;
      else {
        const y = 3 + (1 - score) * (height - 6);
        if (isDown) context.lineTo(x, y);
        else context.moveTo(x, y);
        isDown = true;
      }
    });
    context.stroke();
    graph.setAttribute("aria-label", `Score over time, now ${this.score.textContent}`);
  }
}

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
