// Proof: what verifications showed on the holdout.
import { html, useEffect } from "../js/html.js";
import { useLoaded } from "../js/load.js";
import { Failed, Nothing, Picture } from "../js/parts.js";
import { number } from "../js/words.js";
import { free, JobForm } from "../js/forms.js";
import { useEnded } from "../js/jobs.js";

const KINDS = ["fixed", "broken", "still missed"];

/** @param {any} props */
function Crops({ title, crops, stamp }) {
  return html`<h3>${title}</h3>
    <div class="gallery">
      ${crops.map((/** @type {any} */ crop) => {
        const score = (/** @type {number} */ v) => (v >= 0 ? number(v) : "none");
        return html`<figure>
          <${Picture} src=${`/api/gallery/${crop.blob}?v=${stamp}`} alt=${`${crop.kind}: ${crop.class}`} />
          <figcaption>
            <b>${crop.class}</b><br />score ${score(crop.before)} → ${score(crop.after)}<br />
            <span class="quiet">in ${crop.seeds} of ${crop.trials} trainings</span>
          </figcaption>
        </figure>`;
      })}
    </div>`;
}

/** Train every arm, and read the holdout. @param {any} props */
function Verify({ primary = false }) {
  return html`<${JobForm}
    kind="verify"
    title="Verify…"
    submit="Train every arm and read the holdout"
    primary=${primary}
    note="Every arm trains once for every seed: this may take hours. Cancelled and started again with the same settings, it goes on with the next training."
    fields=${(/** @type {any} */ choices) => [
      { name: "arms", label: "Arms", value: ["nothing", "random", "query"].filter((own) => choices.arms.includes(own)), kind: "choices", of: choices.arms },
      { name: "selection", label: "Selection of the query arm", value: choices.selections[0] ?? "query", kind: "choice", of: choices.selections.length ? choices.selections : ["query"] },
      { name: "samples", label: "Samples of the synthesis arm", value: choices.samples[0] ?? "synthesis", kind: "choice", of: choices.samples.length ? choices.samples : ["synthesis"] },
      { name: "budget", label: "Images an arm", value: 40, kind: "number", most: 100000 },
      { name: "steps", label: "Steps of a training", value: 200, kind: "number", most: 100000 },
      { name: "seeds", label: "Seeds", value: 3, kind: "number", most: 20 },
      { name: "name", label: "Name", value: free("verify", choices.verifications) },
    ]}
    asked=${(/** @type {any} */ values) => ({ ...values, seeds: [...Array(values.seeds).keys()] })}
  />`;
}

/** @param {any} props */
export function Proof({ stamp }) {
  const { value, error, again } = useLoaded("/proof");
  useEffect(() => {
    document.title = "Proof · curator review";
  }, []);
  useEnded(again);
  if (error) return html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  if (!value.tables.length) {
    return html`<${Nothing} title="Nothing was verified yet"
      ><p><code>curator verify --selection query --seeds 0,1,2</code> retrains, and reads the holdout.</p>
      <${Verify} primary=${true} /><//
    >`;
  }
  const arms = [...new Set(value.gallery.map((/** @type {any} */ c) => `${c.verification}: ${c.arm}`))];
  return html`<div class="page">
    <div class="bar">
      <h1>Proof</h1>
      <span class="grow"></span>
      <${Verify} />
    </div>
    ${value.tables.map(
      (/** @type {any} */ table) => html`<section>
        <h2>${table.title}</h2>
        <div class="scroll"><table>
          <thead>
            <tr>
              ${table.columns.map((/** @type {string} */ c, /** @type {number} */ i) => html`<th scope="col" class=${i ? "n" : ""}>${c}</th>`)}
            </tr>
          </thead>
          <tbody>
            ${table.rows.map(
              (/** @type {string[]} */ row) => html`<tr>
                ${row.map((cell, i) => (i ? html`<td class="n">${cell}</td>` : html`<th scope="row">${cell}</th>`))}
              </tr>`,
            )}
          </tbody>
        </table></div>
        ${table.note && html`<p class="quiet small foot">${table.note}</p>`}
      </section>`,
    )}
    ${arms.map(
      (name) => html`<section>
        <h2>Objects of the holdout, ${name}</h2>
        ${KINDS.map((kind) => {
          const crops = value.gallery.filter((/** @type {any} */ c) => `${c.verification}: ${c.arm}` === name && c.kind === kind);
          return crops.length > 0 && html`<${Crops} title=${kind} crops=${crops} stamp=${stamp} />`;
        })}
      </section>`,
    )}
  </div>`;
}
