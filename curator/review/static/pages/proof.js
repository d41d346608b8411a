// Proof: what verifications showed on the holdout.
import { html, useEffect } from "../js/html.js";
import { useLoaded } from "../js/load.js";
import { Failed, Nothing, Picture } from "../js/parts.js";
import { number } from "../js/words.js";

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

/** @param {any} props */
export function Proof({ stamp }) {
  const { value, error, again } = useLoaded("/proof");
  useEffect(() => {
    document.title = "Proof · curator review";
  }, []);
  if (error) return html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  if (!value.tables.length) {
    return html`<${Nothing} title="Nothing was verified yet"
      ><code>curator verify --selection query --seeds 0,1,2</code> retrains, and reads the holdout.<//
    >`;
  }
  const arms = [...new Set(value.gallery.map((/** @type {any} */ c) => `${c.verification}: ${c.arm}`))];
  return html`<div class="page">
    <h1>Proof</h1>
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
