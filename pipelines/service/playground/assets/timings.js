// Where the time went, as one bar, and why reading ended.

import { byId, element } from "./element.js";
import { count, milliseconds, several } from "./numbers.js";

const STAGES = [["encode", "encode"], ["retrieve", "first stage"], ["rerank", "rerank"]];
const REASONS = {
  complete: ", all it was asked to read",
  budget: "; then the budget was spent",
  settled: "; then the best could not change any more",
  likely: "; then the best would hardly change any more",
};

/**
 * Show the time of a search.
 * @param {Object} results Answer of the service.
 * @param {number|null} budget Milliseconds for reading, null for no limit.
 * @param {number} waited Milliseconds from the request to the answer, as this page saw it.
 */
export function showTimings(results, budget, waited) {
  const { timings } = results;
  const spent = timings.encode + timings.retrieve + (budget ?? 0); // when the budget ends
  const most = Math.max(timings.total, spent, 1e-9);
  const bars = STAGES.map(([name]) => sized(element("span", { class: `bar ${name}` }), timings[name] / most));
  if (budget !== null && results.stopped !== "off") {
    const tick = element("span", { class: "tick" });
    tick.style.setProperty("--at", String(spent / most));
    bars.push(tick);
  }
  byId("bars").replaceChildren(...bars);
  byId("legend").replaceChildren(
    ...STAGES.map(([name, text]) => entry(text, timings[name], `key ${name}`)),
    entry("total", timings.total, ""),
    entry("round trip", waited, ""),
  );
  byId("reading").textContent = reading(results);
  byId("timings").hidden = false;
}

/** A sentence on what the cross-encoder read. */
export function reading({ reranked, candidates, stopped }) {
  const found = several(candidates, "candidate");
  if (stopped === "off") return `The cross-encoder read none of ${found}.`;
  return `The cross-encoder read ${count(reranked)} of ${found}${REASONS[stopped] ?? `; ${stopped}`}.`;
}

function sized(bar, share) {
  bar.style.setProperty("--share", String(share));
  return bar;
}

const entry = (text, value, kind) =>
  element("li", {}, kind && element("span", { class: kind }), `${text} `, element("b", {}, milliseconds(value)));
