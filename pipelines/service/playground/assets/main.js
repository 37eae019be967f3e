// The page: what is typed and chosen becomes a search, and its answers the two columns.

import { fromAddress, toAddress } from "./address.js";
import { ask, key } from "./api.js";
import { byId, element } from "./element.js";
import { showFacts } from "./facts.js";
import { filterPanel } from "./filters.js";
import { ingestPanel } from "./ingest.js";
import { keyboard, makeReachable } from "./keyboard.js";
import { keyDialog } from "./key.js";
import { Lines } from "./lines.js";
import { count, milliseconds, several } from "./numbers.js";
import { moves, showFinal, showFirst } from "./results.js";
import { asCommand, bodyOf, Search } from "./search.js";
import { settingsForm } from "./settings.js";
import { showTable } from "./table.js";
import { themeButton } from "./theme-button.js";
import { reading, showTimings } from "./timings.js";

const query = byId("query");
const lines = new Lines();
const openKey = keyDialog(() => load());
const given = fromAddress();
let page = null; // settings, filters, ingest and search, once the index is known
let shown = { first: null, final: null, body: null, all: false };

/** Ask what is served, and build what depends on it. */
async function load() {
  try {
    const index = await ask("GET", "v1/index");
    const fields = await ask("GET", "v1/fields");
    page ??= build(index);
    page.index = index;
    page.filters.show(fields);
    page.ingest.allow(index.scopes.includes("write"));
    showFacts(index);
    run(true);
  } catch (refusal) {
    refuse(refusal);
  }
}

function build(index) {
  const filters = filterPanel(() => run(false));
  const settings = settingsForm(index, run);
  const ingest = ingestPanel(index.limits, { onDone: load, onRefused: (refusal) => refusal.status === 401 && openKey(refusal.message) });
  const search = new Search(index.limits.top_k, { onFirst, onFinal, onRefused: refuse, onWaiting });
  query.maxLength = index.limits.query_characters;
  query.value = query.value || given.query;
  settings.restore(given.settings);
  filters.restore(given.where);
  return { filters, settings, ingest, search, index };
}

/** Search for what is typed and chosen now. */
function run(now) {
  if (page === null || !page.filters.usable()) return;
  const text = query.value;
  toAddress(text, page.settings.changed(), page.filters.text());
  problem(null);
  if (!text.trim()) {
    page.search.stop();
    clearResults();
    return;
  }
  const body = bodyOf(text, page.settings.values(), page.filters.where());
  if (shown.body !== null && JSON.stringify(shown.body) !== JSON.stringify(body)) shown.all = false;
  shown.body = body;
  page.search.start(body, now);
}

function onFirst(first) {
  shown = { ...shown, first };
  byId("empty").hidden = true;
  byId("compare").hidden = false;
  document.querySelector(".switch").hidden = false;
  page.filters.accepted();
  showRows(null, []);
  lines.show([]);
  makeReachable();
}

function onFinal(first, final, waited) {
  shown = { ...shown, first, final };
  const moved = moves(first.hits, final.hits, shown.body.group_by);
  keepingFocus(() => {
    showRows(final, moved);
    showFinal(moved);
    makeReachable();
  });
  lines.show(moved);
  showTable(moved);
  showTimings(final, shown.body.budget_ms ?? null, waited);
  byId("final-name").textContent = final.stopped === "off" ? "As it came" : "Reranked";
  byId("warnings").replaceChildren(...final.warnings.map((warning) => element("li", { class: "note" }, sentence(warning))));
  byId("request").textContent = asCommand(shown.body, new URL(".", location.href).href, key() !== null);
  for (const id of ["as-table", "as-request"]) byId(id).hidden = false;
  byId("status").textContent = summary(final, moved);
}

function showRows(final, moved) {
  const places = moved.map(({ was }) => was ?? 0);
  const atLeast = shown.all ? shown.first.hits.length : Math.max(0, ...places);
  const read = final === null || final.stopped === "off" ? null : final.reranked;
  showFirst(shown.first.hits, shown.body.group_by, atLeast, read);
}

function summary(final, moved) {
  const changed = moved.filter(({ up }) => up !== 0).length;
  const time = milliseconds(final.timings.total);
  return `${several(moved.length, "hit")}, ${count(changed)} moved, in ${time}. ${reading(final)}`;
}

function onWaiting(waiting) {
  byId("results").setAttribute("aria-busy", String(waiting));
}

/** Show why there is no answer, with a way on. */
function refuse(refusal) {
  if (!("status" in refusal)) throw refusal;
  if (refusal.status === 401) return openKey(refusal.message);
  if (refusal.status === 422 && page?.filters.refused(refusal.fields)) return undefined;
  return problem(refusal.message);
}

function problem(text) {
  const place = byId("problem");
  place.hidden = text === null;
  if (text === null) return;
  const again = element("button", { type: "button", class: "plain" }, "Try again");
  again.addEventListener("click", () => (page === null ? load() : run(true)));
  place.replaceChildren(element("p", {}, text), again);
}

function clearResults() {
  shown = { first: null, final: null, body: null, all: false };
  for (const id of ["compare", "timings", "as-table", "as-request"]) byId(id).hidden = true;
  document.querySelector(".switch").hidden = true;
  byId("warnings").replaceChildren();
  byId("status").textContent = "";
  lines.show([]);
  const lead = page.index.passages ? "What are you looking for?" : "The index is empty.";
  const more = page.index.passages
    ? "On the left stands what the first stage finds, on the right what the cross-encoder makes of it. Lines show what moved."
    : "Drop files on this page, or send documents to POST /v1/ingest; then search here.";
  byId("empty").replaceChildren(element("p", { class: "lead" }, lead), element("p", {}, more));
  byId("empty").hidden = false;
}

/** Change the lists, and keep the focus on the hit that has it, where it is still there. */
function keepingFocus(change) {
  const item = document.activeElement?.closest?.("#first [data-key], #final [data-key]");
  const list = item?.parentElement.id;
  change();
  if (!item) return;
  const same = [...byId(list).querySelectorAll("[data-key]")].find((other) => other.dataset.key === item.dataset.key);
  (same?.querySelector("button.title") ?? query).focus();
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

/** Show which hit is which in the other column. */
function pointAt(target) {
  const wanted = target?.closest?.("[data-key]")?.dataset.key ?? null;
  for (const part of byId("compare").querySelectorAll("[data-key]")) {
    part.classList.toggle("pointed", part.dataset.key === wanted);
  }
}

query.addEventListener("input", () => run(false));
keyboard({
  now: () => run(true),
  clear: () => {
    query.value = "";
    run(true);
  },
});
for (const event of ["pointerover", "focusin"]) byId("compare").addEventListener(event, ({ target }) => pointAt(target));
for (const event of ["pointerleave", "focusout"]) byId("compare").addEventListener(event, () => pointAt(null));
byId("more").addEventListener("click", () => {
  shown.all = true;
  showRows(shown.final, shown.final === null ? [] : moves(shown.first.hits, shown.final.hits, shown.body.group_by));
  makeReachable();
  lines.soon();
});
for (const button of document.querySelectorAll(".switch button")) {
  button.addEventListener("click", () => {
    byId("compare").dataset.shows = button.dataset.shows;
    for (const one of document.querySelectorAll(".switch button")) one.setAttribute("aria-pressed", String(one === button));
  });
}
if (matchMedia("(max-width: 759px)").matches) byId("rail").open = false;
themeButton();
load();
