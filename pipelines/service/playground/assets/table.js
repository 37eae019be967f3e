// What moved, as a table: the same as the lines for those who do not see them.

import { byId, element } from "./element.js";
import { percent, score } from "./numbers.js";

/** Show the moves as a table. */
export function showTable(moved) {
  const calibrated = moved.some(({ hit }) => hit.probability != null);
  const columns = [
    ["Now", ({ now }) => now],
    ["Before", ({ was }) => was ?? "–"],
    ["Moved", ({ was, up }) => (was === null ? "new" : up === 0 ? "0" : `${up > 0 ? "up" : "down"} ${Math.abs(up)}`)],
    ["Document", ({ hit }) => hit.title || hit.document_id],
    ["Score", ({ hit }) => score(hit.score)],
    ["First stage", ({ hit }) => score(hit.first_stage_score)],
    ["Cross-encoder", ({ hit }) => (hit.rerank_score === null ? "not read" : score(hit.rerank_score, 2))],
    ...(calibrated ? [["Probability", ({ hit }) => (hit.probability == null ? "–" : percent(hit.probability))]] : []),
    ["Static (rank)", ({ hit }) => arm(hit.arms.dense, 2)],
    ["BM25 (rank)", ({ hit }) => arm(hit.arms.bm25, 1)],
  ];
  byId("table-head").replaceChildren(
    element("tr", {}, ...columns.map(([name]) => element("th", { scope: "col" }, name))),
  );
  byId("table-body").replaceChildren(
    ...moved.map((move) =>
      element("tr", {}, ...columns.map(([name, of]) => cell(name, of(move)))),
    ),
  );
}

const cell = (name, value) =>
  name === "Document" ? element("th", { scope: "row" }, value) : element("td", {}, value);

const arm = (found, decimals) => (found ? `${score(found.score, decimals)} (${found.rank})` : "–");
