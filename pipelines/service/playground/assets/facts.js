// What is known of the index.

import { byId, element } from "./element.js";
import { count, several } from "./numbers.js";

/** Show what the service says of its index. */
export function showFacts(index) {
  const passages = several(index.passages, "passage");
  byId("summary").textContent =
    index.documents === null ? passages : `${several(index.documents, "document")}, ${passages}`;
  const rows = [
    ["Documents", index.documents === null ? "not told to a tenant" : count(index.documents)],
    ["Passages", count(index.passages)],
    ["Static model", index.encoder],
    ["Dimensions", `${index.dimensions}${index.adapted ? ", adapted to these documents" : ""}`],
    ["Cross-encoder", index.reranker ?? "off"],
    ["BM25", index.language],
    ["Store", { edge: "embedded Qdrant", server: "Qdrant server" }[index.store] ?? index.store],
    ["Quantization", index.quantization],
    ["Changed", when(index.updated)],
  ];
  byId("facts").replaceChildren(
    ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function when(moment) {
  const date = new Date(moment);
  return Number.isNaN(date.getTime()) ? moment : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
