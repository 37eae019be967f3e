// Files into the index: chosen or dropped, with the progress of the upload and of the job.

import { events, upload } from "./api.js";
import { byId, element } from "./element.js";
import { count, several, size } from "./numbers.js";

const STAGES = {
  repairing: "finishing an earlier run",
  sampling: "sampling",
  reading: "reading",
  removing: "removing old passages",
  committing: "writing",
  reweighting: "weighing words anew",
  indexing: "building the index",
};
const SHOWN_REJECTIONS = 5;

/**
 * Bring the panel to life.
 * @param {Object} limits Bounds of the service: upload_bytes and files.
 * @param {{onDone: () => void, onRefused: (refusal: Error) => void}} then What to do when a job has ended.
 * @returns {{allow: (may: boolean) => void}} Whether the key may write.
 */
export function ingestPanel(limits, { onDone, onRefused }) {
  let allowed = false;
  const input = byId("files");
  byId("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    send([...input.files]);
    input.value = "";
  });
  dropZone((files) => allowed && send(files), () => allowed);

  async function send(files) {
    if (!files.length) return;
    const job = shownJob(files);
    const total = files.reduce((sum, file) => sum + file.size, 0);
    if (files.length > limits.files) return job.fail(`At most ${count(limits.files)} files at a time.`);
    if (total > limits.upload_bytes) return job.fail(`${size(total)} are more than the ${size(limits.upload_bytes)} that may be sent.`);
    try {
      const accepted = await upload(files, job.sent);
      job.say("waiting");
      await follow(accepted, job);
      onDone();
    } catch (refusal) {
      job.fail(refusal.message);
      onRefused(refusal);
    }
  }

  return {
    allow: (may) => {
      allowed = may;
      byId("adding").hidden = !may;
    },
  };
}

async function follow(accepted, job) {
  for await (const { name, data } of events(accepted.id)) {
    if (name === "done") return job.end(data.report);
    if (name === "failed") return job.fail(`${data.error.detail}.`);
    if (name === "closing") return job.fail("The service is ending; it goes on with this at its next start.");
    if (data.progress) job.progress(data.progress);
  }
  return job.fail("The service stopped telling how far it is; look again in a moment.");
}

/** A line of the list, and what can be said in it. */
function shownJob(files) {
  const name = files.length === 1 ? files[0].name : several(files.length, "file");
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Progress of ${name}` });
  const state = element("span", { class: "state" }, "sending");
  const details = element("ul", { class: "rejected" });
  const line = element("li", { class: "job" }, element("b", {}, name), bar, state, details);
  byId("jobs").prepend(line);
  const say = (text) => {
    if (state.textContent !== text) state.textContent = text;
  };
  const over = (kind, text) => {
    bar.remove();
    line.classList.add(kind);
    say(text);
  };
  return {
    say,
    sent: (share) => {
      bar.value = share;
      say(share < 1 ? `sending, ${Math.round(share * 100)} %` : "sent, waiting");
    },
    progress: ({ stage, documents, passages }) => {
      bar.removeAttribute("value");
      say(`${STAGES[stage] ?? stage}: ${several(documents, "document")}, ${several(passages, "passage")}`);
    },
    fail: (text) => over("failed", text),
    end: (report) => {
      const rejected = report.rejected.slice(0, SHOWN_REJECTIONS);
      details.replaceChildren(...rejected.map(({ source, reason }) => element("li", {}, `${source}: ${reason}`)));
      over(report.rejected_count ? "partly" : "done", told(report));
    },
  };
}

function told({ added, changed, unchanged, rejected_count: rejected, passages, seconds }) {
  const parts = [[added, "added"], [changed, "changed"], [unchanged, "known already"], [rejected, "rejected"]];
  const documents = parts.filter(([number]) => number).map(([number, what]) => `${count(number)} ${what}`);
  return `${documents.join(", ") || "nothing in it"}; ${several(passages, "passage")} in ${seconds.toFixed(1)} s`;
}

/** Files that are dropped anywhere on the page; a drop without files is not ours. */
function dropZone(onFiles, active) {
  const veil = byId("drop");
  let depth = 0;
  const holdsFiles = (event) => active() && [...(event.dataTransfer?.types ?? [])].includes("Files");
  const show = (change) => {
    depth = Math.max(0, depth + change);
    veil.hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => holdsFiles(event) && show(1));
  document.addEventListener("dragleave", (event) => holdsFiles(event) && show(-1));
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    show(-depth);
    if (!holdsFiles(event)) return;
    event.preventDefault();
    onFiles([...event.dataTransfer.files]);
  });
}
