// Keys: / and Escape lead to the search box, arrows from hit to hit and from one column to the other.

import { byId } from "./element.js";

const LISTS = ["first", "final"];

/**
 * Bring the keys to life.
 * @param {{clear: () => void, now: () => void}} search What Escape and Enter do in the search box.
 */
export function keyboard({ clear, now }) {
  const query = byId("query");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("key-dialog").open) return;
    if (event.key === "/" && !isWriting(event.target)) {
      event.preventDefault();
      query.focus();
      query.select();
      return;
    }
    const list = LISTS.find((name) => byId(name).contains(event.target));
    if (event.target === query) inQuery(event);
    else if (list !== undefined) inList(event, list);
  });
  for (const list of LISTS) byId(list).addEventListener("click", open);

  function inQuery(event) {
    if (event.key === "Enter") now();
    else if (event.key === "Escape") clear();
    else if (event.key === "ArrowDown") goTo(hits(shownList())[0]);
    else return;
    event.preventDefault();
  }
  function inList(event, list) {
    const all = hits(list);
    const at = all.indexOf(event.target);
    const steps = {
      ArrowDown: () => goTo(all[at + 1]),
      ArrowUp: () => (at === 0 ? query.focus() : goTo(all[at - 1])),
      Home: () => goTo(all[0]),
      End: () => goTo(all.at(-1)),
      ArrowLeft: () => goTo(twin(event.target, "first")),
      ArrowRight: () => goTo(twin(event.target, "final")),
      Escape: () => query.focus(),
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    steps[event.key]();
  }
}

/** Let Tab reach one hit of each list, the first one. */
export function makeReachable() {
  for (const list of LISTS) hits(list).forEach((hit, at) => (hit.tabIndex = at === 0 ? 0 : -1));
}

const isWriting = (target) => target.matches("input:not([type=radio], [type=checkbox], [type=range]), textarea");
const hits = (list) => [...byId(list).querySelectorAll("button.title")];
const shownList = () => {
  const wanted = byId("compare").dataset.shows;
  return hits(wanted).some((hit) => hit.offsetParent !== null) ? wanted : LISTS.find((name) => name !== wanted);
};

function goTo(hit) {
  if (hit === undefined || hit === null || hit.offsetParent === null) return;
  for (const other of hits(hit.closest("ol").id)) other.tabIndex = -1;
  hit.tabIndex = 0;
  hit.focus();
}

/** The same hit in a list, or else the first one there. */
function twin(hit, list) {
  const { key } = hit.closest("[data-key]").dataset;
  const same = [...byId(list).querySelectorAll("[data-key]")].find((item) => item.dataset.key === key);
  return same?.querySelector("button.title") ?? hits(list)[0];
}

function open(event) {
  const button = event.target.closest("button.title");
  if (button === null) return;
  const opened = button.closest("li").classList.toggle("open");
  button.setAttribute("aria-expanded", String(opened));
}
