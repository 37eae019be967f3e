// The page: opens the model and the passages that lie beside it, and searches while one types.

import { Model } from "./model.js";
import { Passages } from "./passages.js";

const SHOWN = 8;
const SNIPPET = 320;
const folder = new URLSearchParams(location.search).get("model") ?? "model";
document.querySelector("#form").addEventListener("submit", (event) => event.preventDefault());
const query = document.querySelector("#query");
const status = document.querySelector("#status");
const results = document.querySelector("#results");
const timing = document.querySelector("#timing");

function snippet(text, words) {
  const lower = text.toLowerCase();
  const places = words.map((word) => lower.indexOf(word)).filter((place) => place >= 0);
  let start = text.length > SNIPPET && places.length ? Math.max(0, Math.min(...places) - 60) : 0;
  if (start) start = text.indexOf(" ", start) + 1 || start;
  const shown = text.slice(start, start + SNIPPET);
  const element = document.createElement("p");
  const pattern = words.map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|");
  const parts = pattern ? shown.split(new RegExp(`(?<![\\p{L}\\p{N}])(${pattern})`, "giu")) : [shown];
  if (start) element.append("… ");
  parts.forEach((part, at) => {
    if (at % 2) element.append(Object.assign(document.createElement("mark"), { textContent: part }));
    else element.append(part);
  });
  if (start + SNIPPET < text.length) element.append(" …");
  return element;
}

function item({ passage, score }, words) {
  const row = document.createElement("li");
  const head = document.createElement("h2");
  head.append(passage.title || passage.id);
  const number = Object.assign(document.createElement("span"), { className: "score", textContent: score.toFixed(3) });
  number.title = "cosine of query and passage";
  head.append(number);
  row.append(head);
  if (passage.headings.length) {
    row.append(Object.assign(document.createElement("div"), { className: "path", textContent: passage.headings.join(" › ") }));
  }
  row.append(snippet(passage.text, words));
  return row;
}

function search(model, passages) {
  const text = query.value.trim();
  const started = performance.now();
  const vector = model.encode(text);
  const encoded = performance.now();
  const found = passages.search(vector, SHOWN);
  const ended = performance.now();
  const words = [...new Set(text.toLowerCase().match(/[\p{L}\p{N}]{4,}/gu) ?? [])];
  results.replaceChildren(...found.map((one) => item(one, words)));
  timing.textContent = text
    ? `encoded in ${(encoded - started).toFixed(2)} ms, compared ${passages.passages.length.toLocaleString("en")} passages in ${(ended - encoded).toFixed(1)} ms`
    : "";
  status.textContent = !text || found.length ? "" : "No word of this is known to the model.";
}

async function start() {
  const started = performance.now();
  const [model, passages] = await Promise.all([Model.open(folder), Passages.open(folder)]);
  if (model.dim !== passages.dim) throw new Error(`the model has ${model.dim} dimensions, the passages ${passages.dim}`);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  document.querySelector("#facts").textContent =
    `${passages.passages.length.toLocaleString("en")} passages, ${model.dim} dimensions, loaded in ${seconds} s. Nothing you type leaves this page.`;
  query.disabled = false;
  query.placeholder = "Ask for something";
  query.addEventListener("input", () => search(model, passages));
  query.focus();
  search(model, passages);
  globalThis.retrieval = { model, passages };
}

start().catch((error) => {
  status.textContent = `The model in ${folder}/ could not be opened (${error.message}). README.md says how to make it.`;
  status.className = "failed";
});
