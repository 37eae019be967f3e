// The service: requests with the key, refusals as sentences, uploads with progress, events of a job.

const KEY = "retrieval-key";
let held = null; // where sessionStorage is forbidden

/** The key of this tab, null when there is none. */
export function key() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return held;
  }
}

/** Keep a key for this tab, or forget it with null. */
export function keepKey(value) {
  held = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // Forbidden: it lives as long as the page.
  }
}

/** Why the service did not do what it was asked. */
export class Refusal extends Error {
  /**
   * @param {number} status HTTP status, 0 when the service cannot be reached.
   * @param {string} sentence For a person.
   * @param {{field: string, message: string}[]} fields What is wrong with which field.
   * @param {number|null} wait Seconds after which it may work.
   */
  constructor(status, sentence, fields = [], wait = null) {
    super(sentence);
    this.status = status;
    this.fields = fields;
    this.wait = wait;
  }
}

/** Ask for JSON; throws a Refusal, or an AbortError when the signal says so. */
export async function ask(method, path, { body, signal } = {}) {
  const headers = authorization();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await reached(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

/**
 * Send files to be ingested.
 * @param {File[]} files The files.
 * @param {(share: number) => void} onProgress Called with the share that was sent, 0 to 1.
 * @returns {Promise<Object>} The job.
 */
export function upload(files, onProgress) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much was sent
    request.open("POST", "v1/ingest");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("load", () => {
      const problem = parsed(request.responseText);
      if (request.status < 300) resolve(problem);
      else reject(refused(request.status, problem, request.getResponseHeader("Retry-After")));
    });
    request.send(form);
  });
}

/** The events of a job, as {name, data}, until the service ends the stream. */
export async function* events(job) {
  const answer = await reached(`v1/ingest/${encodeURIComponent(job)}/events`, { headers: authorization() });
  if (!answer.ok) throw await refusal(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => {
      throw new Refusal(0, "The connection to the service was lost; what was sent goes on.");
    });
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = eventOf(block);
      if (event !== null) yield event;
    }
  }
}

function eventOf(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  return fields.data === undefined ? null : { name: fields.event, data: JSON.parse(fields.data) };
}

function authorization() {
  const known = key();
  return known === null ? {} : { Authorization: `Bearer ${known}` };
}

async function reached(path, options) {
  try {
    return await fetch(path, { ...options, credentials: "omit" });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
}

const unreachable = () => new Refusal(0, "The service cannot be reached. Is it still running?");

async function refusal(answer) {
  return refused(answer.status, parsed(await answer.text()), answer.headers.get("Retry-After"));
}

function refused(status, problem, retryAfter) {
  const wait = retryAfter === null ? null : Number(retryAfter) || 1;
  const fields = (problem.errors ?? []).map(({ loc, message }) => ({
    field: loc.filter((part) => part !== "body").join("."),
    message,
  }));
  return new Refusal(status, sentence(status, problem.detail ?? "", fields, wait), fields, wait);
}

function sentence(status, detail, fields, wait) {
  const later = wait === null ? "" : ` Try again in ${wait} s.`;
  const wrong = fields.map(({ field, message }) => `${field}: ${message}`).join("; ");
  if (status === 401) return key() === null ? "This service asks for a key." : "The service does not know this key.";
  if (status === 403) return `Not allowed: ${detail}.`;
  if (status === 413) return `Too large: ${detail}.`;
  if (status === 429) return `The service is busy: ${detail}.${later}`;
  if (status === 503 || status === 504) return `The service cannot do this now: ${detail}.${later}`;
  if (status === 507) return `The disk of the service is full: ${detail}.`;
  return `The service refused (${status}): ${wrong || detail || "it does not say why"}.`;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
