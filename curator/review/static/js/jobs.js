// Long work on the server: what runs, how far it is, and how it ended. One job at a time.
import { get, post } from "./api.js";
import { html, signal, useEffect, useState } from "./html.js";
import { A } from "./router.js";
import { tell } from "./undo.js";
import { duration } from "./words.js";

/** @type {{value: any[]}} the newest first */
export const jobs = signal([]);
/** Grows whenever a job has ended: what shows results asks anew. @type {{value: number}} */
export const ended = signal(0);

let timer = 0;

/** Ask how the jobs are, and go on asking while one runs. */
export async function look() {
  clearTimeout(timer);
  const before = jobs.value[0];
  try {
    jobs.value = (await get("/jobs")).jobs;
  } catch {
    timer = window.setTimeout(look, 3000); // the server may be busy, or gone
    return;
  }
  const now = jobs.value[0];
  if (before?.state === "running" && now?.number === before.number && now.state !== "running") {
    ended.value += 1;
    tell(now.state === "failed" ? `${now.about}: ${now.said}` : `${now.about}: ${now.said}`, {
      bad: now.state === "failed",
    });
  }
  if (now?.state === "running") timer = window.setTimeout(look, 700);
}

/**
 * Start a job.
 * @param {string} kind @param {unknown} asked
 * @returns {Promise<boolean>} false where it was refused: the person has been told
 */
export async function start(kind, asked) {
  try {
    const answer = await post(`/jobs/${kind}`, asked);
    jobs.value = [answer.job, ...jobs.value];
    timer = window.setTimeout(look, 400);
    return true;
  } catch (error) {
    tell(/** @type {Error} */ (error).message, { bad: true });
    return false;
  }
}

/** What shows results asks anew once a job has ended. @param {() => void} again */
export function useEnded(again) {
  const turn = ended.value;
  useEffect(() => {
    if (turn) again();
  }, [turn]);
}

/** The newest job, at the foot of every page. */
export function Jobs() {
  const [hidden, hide] = useState(0);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    look();
  }, []);
  const job = jobs.value[0];
  if (!job || (job.number === hidden && job.state !== "running")) return null;
  const running = job.state === "running";
  const far = job.progress;
  const cancel = async () => {
    try {
      tell((await post("/jobs/cancel", { number: job.number })).said);
    } catch (error) {
      tell(/** @type {Error} */ (error).message, { bad: true });
    }
    look();
  };
  return html`<section class=${`job ${job.state}`} aria-label="Job">
    <div class="row">
      <span class="state">${running ? "running" : job.state}</span>
      <b>${job.about}</b>
      <span class="quiet" role="status"
        >${running
          ? far
            ? `${far.what}: ${far.done} of ${far.total}`
            : "starting…"
          : job.said}</span
      >
      ${running && far && html`<progress max=${far.total} value=${far.done} aria-label="Progress"></progress>`}
      <span class="grow"></span>
      <span class="quiet small">${duration(job.seconds)}</span>
      <button class="small" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>Lines</button>
      ${running
        ? html`<button class="small" onClick=${cancel}>Cancel</button>`
        : html`${job.state !== "failed" && job.leads !== "/" && html`<${A} class="button small" href=${job.leads}>Show<//>`}
            <button class="small" onClick=${() => hide(job.number)}>Close</button>`}
    </div>
    ${open &&
    html`<div class="lines">
      <code>${job.command}</code>
      <pre tabindex="0" aria-label="What it says">${job.log.join("\n") || "nothing yet"}</pre>
    </div>`}
  </section>`;
}
