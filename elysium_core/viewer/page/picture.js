// The picture: draws frame, boxes and trails, and turns pointer and keys into boxes and clicks.

const HUES = ["#4cc9f0", "#ffd166", "#f78fb3", "#80ed99", "#c8a2ff", "#ff9f5a", "#7ae7d6", "#f2f27a"];
const TRAIL = 45;
// A trail begins anew where a target jumps, as at the end of a film that starts over.
const JUMP = 0.25;
const LEAST_DRAG_PX = 6;
const STEP = 0.02;

/** The colour of a target, the same in the picture and in the list. */
export const hueOf = (id) => HUES[(Number(id) - 1) % HUES.length];

export class Picture {
  /** @param on callbacks: box(corners, stamp), click(point, stamp), choose(id), mode(text) */
  constructor(canvas, on) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.on = on;
    this.trails = new Map();
    this.chosen = "";
    this.drag = null;
    this.keyBox = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => this.leave());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  get isEditing() {
    return this.drag !== null || this.keyBox !== null;
  }

  /** Takes a frame. While a box is drawn, the picture stands still, so that the box fits what is seen. */
  show(header, image) {
    if (this.isEditing) {
      this.held?.image.close();
      this.held = { header, image };
      return;
    }
    this.image?.close();
    this.image = image;
    this.header = header;
    this.canvas.style.aspectRatio = `${header.width} / ${header.height}`;
    this.extendTrails();
    this.draw();
  }

  clear() {
    this.image?.close();
    this.image = this.header = null;
    this.trails.clear();
    this.leave();
    this.draw();
  }

  extendTrails() {
    const present = new Set();
    for (const target of this.header.targets) {
      present.add(target.id);
      const trail = this.trails.get(target.id) ?? [];
      if (target.box && target.state !== "LOST") {
        const [x, y] = [(target.box[0] + target.box[2]) / 2, (target.box[1] + target.box[3]) / 2];
        const last = trail.at(-1);
        if (last && Math.hypot(x - last[0], y - last[1]) > JUMP) trail.length = 0;
        trail.push([x, y]);
        if (trail.length > TRAIL) trail.shift();
      } else if (trail.length) trail.shift();
      this.trails.set(target.id, trail);
    }
    for (const id of this.trails.keys()) if (!present.has(id)) this.trails.delete(id);
  }

  // ------------------------------------------------------------------------------------------------------- drawing

  /** Left, top, width and height of the picture in the canvas [CSS px]. */
  place() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.header) return [0, 0, width, height];
    const scale = Math.min(width / this.header.width, height / this.header.height);
    const [w, h] = [this.header.width * scale, this.header.height * scale];
    return [(width - w) / 2, (height - h) / 2, w, h];
  }

  draw() {
    const { canvas, context } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = getComputedStyle(canvas).getPropertyValue("--picture");
    context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    if (!this.image) return;
    const place = this.place();
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image, ...place);
    context.save();
    context.beginPath();
    context.rect(...place);
    context.clip();
    for (const target of this.header.targets) this.drawTrail(target, place);
    const shown = this.header.targets.filter((target) => target.box);
    for (const target of shown) this.drawTarget(target, place);
    // Above all boxes, so that no line crosses the words.
    for (const target of shown) this.drawName(target, place);
    const box = this.keyBox ?? (this.drag && this.dragBox());
    if (box) this.drawBox(box, place, "#ffffff", [6, 4], 2);
    context.restore();
  }

  drawTrail(target, [left, top, width, height]) {
    const points = this.trails.get(target.id) ?? [];
    const { context } = this;
    context.lineCap = "round";
    context.strokeStyle = hueOf(target.id);
    for (let i = 1; i < points.length; i++) {
      context.globalAlpha = (0.75 * i) / points.length;
      context.lineWidth = 1 + (2.5 * i) / points.length;
      context.beginPath();
      context.moveTo(left + points[i - 1][0] * width, top + points[i - 1][1] * height);
      context.lineTo(left + points[i][0] * width, top + points[i][1] * height);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  drawTarget(target, place) {
    const dashes = { TRACKED: [], UNCERTAIN: [10, 6] }[target.state] ?? [2, 6];
    this.context.globalAlpha = opacityOf(target);
    this.drawBox(target.box, place, hueOf(target.id), dashes, target.id === this.chosen ? 4 : 2.5);
    this.context.globalAlpha = 1;
  }

  drawName(target, place) {
    const note = { UNCERTAIN: " ?", LOST: " lost", STALE: " no news" }[target.state] ?? "";
    const words = target.words.length > 28 ? `${target.words.slice(0, 27)}…` : target.words || "box";
    const score = target.state === "TRACKED" ? ` ${target.score.toFixed(2)}` : "";
    this.context.globalAlpha = opacityOf(target);
    this.drawLabel(`${target.id} ${words}${note}${score}`, target.box, place, hueOf(target.id));
    this.context.globalAlpha = 1;
  }

  drawBox(box, [left, top, width, height], color, dashes, lineWidth) {
    const { context } = this;
    const corners = [left + box[0] * width, top + box[1] * height, (box[2] - box[0]) * width, (box[3] - box[1]) * height];
    context.setLineDash(dashes);
    context.lineJoin = "round";
    context.strokeStyle = "#000a";
    context.lineWidth = lineWidth + 2.5;
    context.strokeRect(...corners);
    context.strokeStyle = color;
    context.lineWidth = lineWidth;
    context.strokeRect(...corners);
    context.setLineDash([]);
  }

  drawLabel(text, box, [left, top, width, height], color) {
    const { context } = this;
    context.font = '600 13px system-ui, "DejaVu Sans", sans-serif';
    const wide = context.measureText(text).width + 12;
    const x = Math.min(Math.max(left + box[0] * width - 1, left), Math.max(left, left + width - wide));
    const above = top + box[1] * height - 22;
    const y = above > top ? above : Math.min(top + box[1] * height + 3, top + height - 20);
    context.fillStyle = color;
    context.beginPath();
    context.roundRect(x, y, wide, 20, 5);
    context.fill();
    context.fillStyle = "#071018";
    context.textBaseline = "middle";
    context.fillText(text, x + 6, y + 10.5);
  }

  // ------------------------------------------------------------------------------------------------------- pointer

  at(event) {
    const rect = this.canvas.getBoundingClientRect();
    const [left, top, width, height] = this.place();
    return [(event.clientX - rect.left - left) / width, (event.clientY - rect.top - top) / height];
  }

  down(event) {
    if (!this.image || event.button !== 0) return;
    const point = this.at(event);
    if (!isInside(point)) return;
    this.keyBox = null;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { from: point, to: point, x: event.clientX, y: event.clientY, isBox: false };
  }

  move(event) {
    if (!this.drag) return;
    this.drag.to = this.at(event).map(clamp);
    const moved = Math.hypot(event.clientX - this.drag.x, event.clientY - this.drag.y);
    this.drag.isBox ||= moved >= LEAST_DRAG_PX;
    if (this.drag.isBox) this.draw();
  }

  up(event) {
    if (!this.drag) return;
    const { isBox, from } = this.drag;
    const box = this.dragBox();
    const header = this.header;
    this.drag = null;
    if (isBox && box[2] > box[0] && box[3] > box[1]) this.on.box(box, header.stamp);
    else if (!isBox) {
      const hit = event.shiftKey ? undefined : this.hit(from);
      if (hit) this.on.choose(hit);
      else this.on.click(from.map(clamp), header.stamp);
    }
    this.leave();
  }

  dragBox() {
    const { from, to } = this.drag;
    return [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
  }

  /** The smallest target at a point. */
  hit([x, y]) {
    const area = (b) => (b[2] - b[0]) * (b[3] - b[1]);
    return this.header.targets
      .filter(({ box: b, state }) => b && state !== "LOST" && x >= b[0] && x <= b[2] && y >= b[1] && y <= b[3])
      .sort((a, b) => area(a.box) - area(b.box))[0]?.id;
  }

  leave() {
    this.drag = this.keyBox = null;
    this.on.mode("");
    const held = this.held;
    this.held = null;
    if (held) this.show(held.header, held.image);
    else this.draw();
  }

  // ---------------------------------------------------------------------------------------------------------- keys

  startKeyBox() {
    if (!this.image) return;
    this.keyBox = [0.4, 0.4, 0.6, 0.6];
    this.canvas.focus();
    this.on.mode("Arrows move the box, Shift and arrows change its size, Enter follows, Esc leaves");
    this.draw();
  }

  key(event) {
    if (!this.keyBox) return;
    const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (by) {
      const [x1, y1, x2, y2] = this.keyBox;
      if (event.shiftKey) this.keyBox = [x1, y1, clamp(Math.max(x1 + STEP, x2 + by[0])), clamp(Math.max(y1 + STEP, y2 + by[1]))];
      else {
        const dx = Math.min(Math.max(by[0], -x1), 1 - x2);
        const dy = Math.min(Math.max(by[1], -y1), 1 - y2);
        this.keyBox = [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
      }
      this.draw();
    } else if (event.key === "Enter") {
      this.on.box(this.keyBox, this.header.stamp);
      this.leave();
    } else if (event.key === "Escape") this.leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const opacityOf = ({ state }) => (state === "TRACKED" || state === "UNCERTAIN" ? 1 : 0.65);
const clamp = (value) => Math.min(1, Math.max(0, value));
const isInside = ([x, y]) => x >= 0 && x <= 1 && y >= 0 && y <= 1;
