// Both orders: the rows of the first stage and the cards of the final order.

import { byId, element, unseen } from "./element.js";
import { ordinal, percent, score, several } from "./numbers.js";

const ARMS = [["dense", "Static"], ["bm25", "BM25"]];
const FIRST_WORDS = 90;
const ROWS = 20;
const BEFORE_WINDOW = 40;

/** What makes a hit of one list the same as one of the other: its document, or its passage. */
export const identity = (hit, groupBy) =>
  groupBy === "passage" ? hit.passage_id : JSON.stringify([hit.source, hit.document_id]);

/**
 * What moved.
 * @param {Object[]} first Hits of the first stage in its order.
 * @param {Object[]} final Hits in the final order.
 * @param {string} groupBy Which hits are the same.
 * @returns {Object[]} Of each final hit: hit, key, place before (null when beyond what is shown) and after, and up.
 */
export function moves(first, final, groupBy) {
  const before = new Map(first.map((hit, at) => [identity(hit, groupBy), at + 1]));
  return final.map((hit) => {
    const key = identity(hit, groupBy);
    const was = before.get(key) ?? null;
    return { hit, key, was, now: hit.rank, up: was === null ? 0 : was - hit.rank };
  });
}

/**
 * Show the order of the first stage.
 * @param {Object[]} hits Its hits.
 * @param {string} groupBy What a row stands for.
 * @param {number} atLeast Rows to show, more where the reader asked for all.
 * @param {number|null} read How many passages the cross-encoder read; null where that is not known yet.
 */
export function showFirst(hits, groupBy, atLeast, read) {
  const shown = hits.slice(0, Math.max(ROWS, atLeast));
  const best = Object.fromEntries(ARMS.map(([arm]) => [arm, Math.max(...hits.map((hit) => hit.arms[arm]?.score ?? 0))]));
  const rows = shown.map((hit, at) => row(hit, at + 1, identity(hit, groupBy), best));
  const end = read === null ? -1 : shown.findIndex((hit) => hit.first_stage_rank > read);
  if (read && end > 0) rows.splice(end, 0, element("li", { class: "read-to" }, "read to here"));
  byId("first").replaceChildren(...rows);
  byId("first-count").textContent = hits.length ? several(hits.length, groupBy) : "nothing";
  const more = byId("more");
  more.hidden = shown.length >= hits.length;
  more.textContent = `Show all ${hits.length}`;
}

/** Show the final order. */
export function showFinal(moved) {
  byId("final").replaceChildren(...moved.map(card));
  byId("final-count").textContent = moved.length ? several(moved.length, "hit") : "nothing";
}

function row(hit, place, key, best) {
  const text = element("p", { class: "snippet" }, hit.text);
  return element(
    "li",
    { class: "row", "data-key": key },
    element("span", { class: "rank" }, place),
    element("div", { class: "body" }, opener(hit), text),
    element("div", { class: "arms" }, ...ARMS.map(([arm, name]) => armBar(hit.arms[arm], arm, name, best[arm]))),
  );
}

function armBar(found, arm, name, best) {
  const bar = element("span", { class: `meter ${arm}`, "aria-hidden": "true" });
  bar.style.setProperty("--share", String(found && best > 0 ? Math.max(0, found.score / best) : 0));
  const told = found ? score(found.score, arm === "bm25" ? 1 : 2) : "–";
  const place = found ? ordinal(found.rank) : "not found";
  return element("span", { class: "arm", title: `${name}: ${place}` }, unseen(`${name} `), bar, told, unseen(`, ${place}`));
}

function card(move) {
  const { hit, key } = move;
  return element(
    "li",
    { class: "card", "data-key": key },
    element("div", { class: "place" }, element("span", { class: "rank" }, hit.rank), badge(move)),
    element(
      "div",
      { class: "body" },
      opener(hit),
      hit.headings.length ? element("p", { class: "headings" }, hit.headings.join(" › ")) : null,
      passage(hit),
      scores(move),
      origin(hit),
    ),
  );
}

/** The name of a hit, which opens its whole passage. */
function opener(hit) {
  const name = hit.title || hit.text.slice(0, FIRST_WORDS).trim() || hit.document_id;
  return element("button", { type: "button", class: "title", "aria-expanded": "false", tabindex: "-1" }, name);
}

function badge({ was, up, now }) {
  if (was === null) return element("span", { class: "badge up" }, unseen("new here"), hidden("new"));
  if (up === 0) return element("span", { class: "badge same" }, unseen("as before"), hidden("="));
  const said = `${up > 0 ? "up" : "down"} ${Math.abs(up)}, before ${ordinal(was)}, now ${ordinal(now)}`;
  return element("span", { class: `badge ${up > 0 ? "up" : "down"}` }, unseen(said), hidden(`${up > 0 ? "▲" : "▼"} ${Math.abs(up)}`));
}

const hidden = (text) => element("span", { "aria-hidden": "true" }, text);

/** The text, with the window that the cross-encoder read; closed it begins shortly before that. */
function passage({ text, read }) {
  if (read === null) return element("p", { class: "passage" }, text);
  const [start, end] = codeUnits(text, read);
  const near = start > BEFORE_WINDOW ? text.indexOf(" ", start - BEFORE_WINDOW) + 1 : 0;
  const whole = start === 0 && end >= text.length;
  return element(
    "p",
    { class: `passage${whole ? " whole" : ""}` },
    near ? element("span", { class: "far" }, text.slice(0, near)) : null,
    near ? element("span", { class: "dots", "aria-hidden": "true" }, "… ") : null,
    text.slice(near, start),
    element("mark", { title: "what the cross-encoder read" }, text.slice(start, end)),
    text.slice(end),
  );
}

/** Offsets count characters; strings here count UTF-16 units, two for some characters. */
function codeUnits(text, [start, end]) {
  const characters = Array.from(text);
  if (characters.length === text.length) return [start, end];
  const length = (upto) => characters.slice(0, upto).join("").length;
  return [length(start), length(end)];
}

function scores({ hit, was }) {
  const entries = [
    ["score", score(hit.score), ""],
    ["first stage", score(hit.first_stage_score), was === null ? "" : ordinal(was)],
    hit.rerank_score === null ? ["cross-encoder", "not read", ""] : ["cross-encoder", score(hit.rerank_score, 2), ""],
    hit.probability == null ? null : ["probability", percent(hit.probability), ""],
    ...ARMS.map(([arm, name]) => {
      const found = hit.arms[arm];
      return found ? [name, score(found.score, arm === "bm25" ? 1 : 2), ordinal(found.rank)] : [name, "not found", ""];
    }),
  ];
  const parts = entries.filter(Boolean).map(([name, value, place]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value, place && element("span", { class: "quiet" }, ` ${place}`))),
  );
  return element("dl", { class: "scores" }, ...parts);
}

function origin(hit) {
  const known = Object.entries(hit.metadata).filter(([, value]) => ["string", "number", "boolean"].includes(typeof value));
  const place = hit.source || hit.document_id;
  return element(
    "p",
    { class: "origin" },
    element("span", { class: "source" }, place),
    ...known.slice(0, 6).map(([name, value]) => element("span", { class: "tag" }, `${name}: ${value}`)),
  );
}
