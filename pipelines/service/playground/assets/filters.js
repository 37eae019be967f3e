// Filters: values and ranges of the metadata to choose from, and a filter in JSON beside them.

import { byId, element } from "./element.js";
import { count } from "./numbers.js";

const MOST_DIFFERENT = 200;
const MOST_FIELDS = 8;

/**
 * Bring the filters to life.
 * @param {() => void} onChange Called when the filter has changed and can be used.
 */
export function filterPanel(onChange) {
  const chosen = new Map(); // key -> Set of values
  const ranges = new Map(); // key -> {gte, lte}
  const area = byId("where");
  let written = null;
  let usable = true;

  area.addEventListener("input", () => {
    const before = JSON.stringify(written);
    read();
    if (usable && JSON.stringify(written) !== before) onChange();
  });

  function read() {
    const text = area.value.trim();
    const { value, problem } = text ? parsed(text) : { value: null, problem: null };
    usable = problem === null;
    if (usable) written = value;
    say(problem ?? (text ? "A filter." : ""), !usable);
  }
  function say(text, wrong) {
    byId("where-state").textContent = text;
    byId("where-state").classList.toggle("wrong", wrong);
    area.setAttribute("aria-invalid", String(wrong));
  }

  /** The filter as the body of a search has it, null for none. */
  function where() {
    const must = [];
    for (const [key, values] of chosen) {
      if (values.size) must.push({ should: [...values].map((value) => ({ key, match: { value } })) });
    }
    for (const [key, range] of ranges) if (Object.keys(range).length) must.push({ key, range: { ...range } });
    if (written !== null) must.push(written);
    if (!must.length) return null;
    return must.length === 1 && written !== null ? written : { must };
  }

  /** Show what the service says of a filter that it refuses; false when it is about something else. */
  function refused(fields) {
    const own = fields.filter(({ field }) => field === "where" || field.startsWith("where."));
    if (!own.length) return false;
    say(own.map(({ message }) => message).join("; "), true);
    return true;
  }

  /** Show the fields of the metadata to choose from. */
  function show({ fields, complete, sampled }) {
    const usual = fields.filter((field) => isRange(field) || isFacet(field)).slice(0, MOST_FIELDS);
    const parts = usual.map((field) => (isRange(field) ? rangeOf(field) : facetOf(field)));
    if (parts.length && !complete) {
      parts.push(element("p", { class: "quiet small" }, `Counted in ${count(sampled)} passages.`));
    }
    byId("facets").replaceChildren(...parts);
  }

  function facetOf({ key, values }) {
    const known = chosen.get(key) ?? new Set();
    chosen.set(key, known);
    const labels = values.map(({ value, passages }) => {
      const box = element("input", { type: "checkbox", checked: known.has(value) });
      box.addEventListener("change", () => {
        if (box.checked) known.add(value);
        else known.delete(value);
        onChange();
      });
      const text = element("span", { class: "value" }, value === "" ? "(empty)" : String(value));
      return element("label", { class: "facet" }, box, text, element("span", { class: "quiet" }, count(passages)));
    });
    return element("fieldset", { class: "facets", "data-field": key }, element("legend", {}, named(key)), ...labels);
  }

  function rangeOf({ key, least, most }) {
    const known = ranges.get(key) ?? {};
    ranges.set(key, known);
    const side = (bound, label, placeholder) => {
      const input = element("input", { type: "number", step: "any", placeholder, "aria-label": `${named(key)} ${label}` });
      if (known[bound] !== undefined) input.value = String(known[bound]);
      input.addEventListener("input", () => {
        if (input.value === "" || !Number.isFinite(input.valueAsNumber)) delete known[bound];
        else known[bound] = input.valueAsNumber;
        onChange();
      });
      return input;
    };
    const fields = element("div", { class: "range" }, side("gte", "from", least), " to ", side("lte", "to", most));
    return element("fieldset", { class: "facets", "data-field": key }, element("legend", {}, named(key)), fields);
  }

  return {
    where,
    refused,
    show,
    usable: () => usable,
    accepted: () => usable && written !== null && say("In use.", false),
    restore: (text) => {
      area.value = text;
      read();
    },
    text: () => (usable && written !== null ? area.value.trim() : ""),
  };
}

const named = (key) => key.replace(/^metadata\./, "").replaceAll('"', "");
const isRange = ({ least, most, different }) => least !== null && least < most && (different === 0 || different > 8);
const isFacet = ({ values, different }) => different > 1 && different <= MOST_DIFFERENT && values[0].passages > 1;

function parsed(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { value: null, problem: `Not JSON yet: ${error.message}` };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { value: null, problem: 'A filter is an object, such as {"must": [...]}.' };
  }
  const unknown = Object.keys(value).find((name) => !["must", "should", "must_not", "min_should"].includes(name));
  if (unknown !== undefined) {
    return { value: null, problem: `A filter has must, should, must_not or min_should, not ${JSON.stringify(unknown)}.` };
  }
  return { value, problem: null };
}
