// When to ask what: the first stage as soon as typing pauses, reading when it has paused longer, and never an old answer.

import { ask } from "./api.js";

const PAUSE_MS = 120;
const LONGER_MS = 230;

/** Asks twice for each search: the order of the first stage, which is there at once, and then the final order. */
export class Search {
  /**
   * @param {number} most Hits that one request may ask for.
   * @param {Object} then Called for the latest search only: onFirst(first), onFinal(first, final, waited),
   *     onRefused(refusal), onWaiting(whether).
   */
  constructor(most, then) {
    this.most = most;
    this.then = then;
    this.turn = 0;
    this.controller = null;
  }

  /** Forget the search under way. */
  stop() {
    this.turn += 1;
    this.controller?.abort();
    this.controller = null;
    this.then.onWaiting(false);
  }

  /**
   * Begin another search; the one before is forgotten, whenever its answers come.
   * @param {Object} body As the service takes it.
   * @param {boolean} now Whether to begin without waiting for more.
   */
  async start(body, now) {
    this.stop();
    const turn = this.turn;
    this.controller = new AbortController();
    const { signal } = this.controller;
    const latest = () => turn === this.turn;
    const post = (sent) => ask("POST", "v1/search", { body: sent, signal });
    try {
      await pause(now ? 0 : PAUSE_MS);
      if (!latest()) return;
      this.then.onWaiting(true);
      const first = await post(firstStage(body, this.most));
      if (!latest()) return;
      this.then.onFirst(first);
      await pause(now ? 0 : LONGER_MS);
      if (!latest()) return;
      const began = performance.now();
      const final = await post(body);
      if (!latest()) return;
      this.then.onWaiting(false);
      this.then.onFinal(first, final, performance.now() - began);
    } catch (refusal) {
      if (!latest() || refusal.name === "AbortError") return;
      this.then.onWaiting(false);
      this.then.onRefused(refusal);
    }
  }
}

/** The same search without reading, and with as many hits as may be asked for. */
function firstStage(body, most) {
  const { depth, budget_ms, ...rest } = body;
  return { ...rest, rerank: false, top_k: most };
}

const pause = (ms) => (ms ? new Promise((resolve) => setTimeout(resolve, ms)) : Promise.resolve());

/** What was typed and chosen, as the body of a search. */
export function bodyOf(query, settings, where) {
  const { exact, budget_ms, ...rest } = settings;
  const body = { query, ...rest };
  if (budget_ms !== null) body.budget_ms = budget_ms;
  if (exact) body.exact = true;
  if (where !== null) body.where = where;
  return body;
}

/** The search as a command for a terminal. */
export function asCommand(body, place, withKey) {
  const quoted = JSON.stringify(body, null, 1).replaceAll(/\n\s*/g, " ").replaceAll("'", "'\\''");
  const key = withKey ? '  -H "Authorization: Bearer $RETRIEVAL_KEY" \\\n' : "";
  return `curl -s ${place}v1/search \\\n${key}  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}
