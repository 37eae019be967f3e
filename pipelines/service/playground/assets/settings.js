// The form of settings: how to search, kept in the address of the page behind the #, which no server sees.

import { byId, element } from "./element.js";
import { count, milliseconds } from "./numbers.js";

const BUDGETS = [10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, null];
const SHOWN = 10;
const ARMS = [["hybrid", "Both"], ["dense", "Static"], ["bm25", "BM25"]];
const GROUPS = [["document", "Documents"], ["passage", "Passages"]];
const VECTORS = [["false", "As indexed"], ["true", "Exact"]];

/**
 * Build the form.
 * @param {Object} index What the service says of its index.
 * @param {(now: boolean) => void} onChange Called when a setting has changed.
 * @returns {{values: () => Object, restore: (given: Object) => void}} The settings as the body of a search has them.
 */
export function settingsForm(index, onChange) {
  const { defaults, limits } = index;
  const form = byId("settings");
  const chosen = startingValues(defaults, limits);
  const start = { ...chosen };
  const controls = [
    choice("First stage", "first_stage", ARMS),
    slider("Candidates", "candidates", steps(limits.candidates, defaults.candidates), count),
    toggle("Rerank", "rerank"),
    slider("Depth", "depth", steps(limits.depth, defaults.depth, 0), (value) => (value === 0 ? "none" : count(value))),
    slider("Budget", "budget_ms", budgets(defaults.budget_ms), (value) => (value === null ? "no limit" : milliseconds(value))),
    slider("Hits", "top_k", steps(limits.top_k, Math.min(SHOWN, limits.top_k)), count),
    choice("Show", "group_by", GROUPS),
    choice("Vectors", "exact", VECTORS, index.quantization === "none" ? "not quantized" : index.quantization),
  ];
  const reset = element("button", { type: "button", class: "plain" }, "Back to the defaults");
  form.replaceChildren(...controls.map((control) => control.node), reset);

  function change(name, value) {
    if (chosen[name] === value) return;
    chosen[name] = value;
    show();
    onChange(false);
  }
  function show() {
    for (const control of controls) control.show(chosen[control.name]);
    form.classList.toggle("without-rerank", !chosen.rerank);
    reset.hidden = Object.keys(start).every((name) => start[name] === chosen[name]);
  }
  function slider(title, name, values, shown) {
    const input = element("input", { type: "range", id: `set-${name}`, min: 0, max: values.length - 1, step: 1 });
    const output = element("output", { for: `set-${name}` });
    input.addEventListener("input", () => change(name, values[Number(input.value)]));
    const label = element("label", { for: `set-${name}` }, title);
    const node = element("div", { class: "setting", "data-setting": name }, label, output, input);
    const show = (value) => {
      input.value = String(Math.max(0, values.indexOf(value)));
      output.textContent = shown(value);
      input.setAttribute("aria-valuetext", shown(value));
    };
    return { name, node, show, takes: (value) => values.includes(value) };
  }
  function choice(title, name, options, note = "") {
    const inputs = options.map(([value]) => element("input", { type: "radio", name: `set-${name}`, value }));
    const labels = options.map(([, text], at) => element("label", {}, inputs[at], element("span", {}, text)));
    const node = element("fieldset", { class: "setting choice", "data-setting": name }, element("legend", {}, title));
    node.append(element("div", { class: "segments" }, ...labels));
    if (note) node.append(element("p", { class: "quiet small" }, note));
    for (const input of inputs) input.addEventListener("change", () => change(name, typed(name, input.value)));
    const show = (value) => inputs.forEach((input) => (input.checked = typed(name, input.value) === value));
    return { name, node, show, takes: (value) => inputs.some((input) => typed(name, input.value) === value) };
  }
  function toggle(title, name) {
    const input = element("input", { type: "checkbox", role: "switch", id: `set-${name}` });
    input.addEventListener("change", () => change(name, input.checked));
    const label = element("label", { for: `set-${name}` }, title);
    const node = element("div", { class: "setting toggle", "data-setting": name }, label, input);
    return { name, node, show: (value) => (input.checked = value), takes: (value) => typeof value === "boolean" };
  }
  function restore(given) {
    for (const control of controls) {
      if (control.name in given && control.takes(given[control.name])) chosen[control.name] = given[control.name];
    }
    show();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  reset.addEventListener("click", () => {
    Object.assign(chosen, start);
    show();
    onChange(true);
  });
  show();
  return { values: () => ({ ...chosen }), changed: () => difference(chosen, start), restore };
}

function startingValues(defaults, limits) {
  return {
    first_stage: defaults.first_stage,
    candidates: Math.min(defaults.candidates, limits.candidates),
    rerank: defaults.rerank,
    depth: Math.min(defaults.depth, limits.depth),
    budget_ms: defaults.budget_ms,
    top_k: Math.min(SHOWN, limits.top_k),
    group_by: defaults.group_by,
    exact: false,
  };
}

const difference = (chosen, start) =>
  Object.fromEntries(Object.entries(chosen).filter(([name, value]) => value !== start[name]));

const typed = (name, value) => (name === "exact" ? value === "true" : value);

/** Round numbers from the least to the most, the default among them. */
function steps(most, usual, least = 1) {
  const round = [0, 1, 2, 3, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000];
  const within = [...round, usual, most].filter((value) => value >= least && value <= most);
  return [...new Set(within)].sort((one, other) => one - other);
}

function budgets(usual) {
  const known = BUDGETS.includes(usual) ? BUDGETS : [...BUDGETS, usual];
  return [...known].sort((one, other) => (one ?? Infinity) - (other ?? Infinity));
}
