// The lines between both orders: from the place of a hit in the first stage to its final place.

import { byId, drawn } from "./element.js";

const PADDING = 6;

/** Draw the lines of some moves, and again whenever something changes its place. */
export class Lines {
  constructor() {
    this.moves = [];
    this.frame = 0;
    this.watch = new ResizeObserver(() => this.soon());
    for (const id of ["first", "final", "lines"]) this.watch.observe(byId(id));
  }

  /** Show other moves. */
  show(moves) {
    this.moves = moves;
    this.draw();
  }

  /** Draw before the next frame. */
  soon() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    const area = byId("lines");
    const box = area.getBoundingClientRect();
    if (box.width === 0) {
      area.replaceChildren();
      return;
    }
    area.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    const left = heights("first", box.top);
    const right = heights("final", box.top);
    const drawings = this.moves.filter(({ key }) => right.has(key)).flatMap(({ key, up, was }) => {
      const to = right.get(key);
      if (was === null || !left.has(key)) return [dot(box.width - PADDING, to, key, "up")];
      const from = left.get(key);
      const kind = up > 0 ? "up" : up < 0 ? "down" : "same";
      return [curve(from, to, box.width, key, kind), dot(PADDING, from, key, kind), dot(box.width - PADDING, to, key, kind)];
    });
    area.replaceChildren(...drawings);
  }
}

/** The height of each hit of a list, at the middle of its rank. */
function heights(list, top) {
  const found = new Map();
  for (const item of byId(list).querySelectorAll("[data-key]")) {
    const box = item.querySelector(".rank").getBoundingClientRect();
    found.set(item.dataset.key, box.top + box.height / 2 - top);
  }
  return found;
}

function curve(from, to, width, key, kind) {
  const [start, end, bend] = [PADDING, width - PADDING, width * 0.5];
  const path = `M${start} ${from}C${bend} ${from} ${bend} ${to} ${end} ${to}`;
  return drawn("path", { d: path, class: `line ${kind}`, "data-key": key });
}

const dot = (x, y, key, kind) => drawn("circle", { cx: x, cy: y, r: 3.5, class: `dot ${kind}`, "data-key": key });
