// One failure: the image with its labels, what the detector sees, why, and what was done about it.
import { html, useEffect, useState } from "../js/html.js";
import { cropAddress } from "../js/api.js";
import { useKeys, useLoaded } from "../js/load.js";
import { Failed, Keys, Kind, Picture } from "../js/parts.js";
import { A, go, query } from "../js/router.js";
import { formatQuery, only } from "../js/address.js";
import { number as figure, size } from "../js/words.js";
import { Viewer } from "../js/viewer.js";
import { FILTER } from "./failures.js";
import { Ask } from "./queries.js";
import { JobForm } from "../js/forms.js";
import { useEnded } from "../js/jobs.js";

/** What is shown stays as it was set while one goes from failure to failure. */
const shown = { truth: true, detections: true, regions: true, opacity: 0.6, least: /** @type {number | null} */ (null), run: /** @type {number | null} */ (null) };

/** @param {any} props */
function Layer({ on, set, look, name, children }) {
  return html`<label class="layer"
    ><input type="checkbox" checked=${on} onChange=${() => set(!on)} /><span class=${`line line-${look}`}></span
    >${name}<span class="grow"></span>${children}</label
  >`;
}

/** @param {any} value @param {any} own */
function marksOf(value, own) {
  const marks = [];
  if (own.detections) {
    for (const d of value.detections) {
      if (d.score < own.least || same(d.box, value.box)) continue;
      marks.push({
        box: d.box,
        look: "detection",
        dashed: d.score < value.threshold,
        text: `${d.class} ${figure(d.score)}`,
        title: `detected ${d.class}, score ${figure(d.score, 3)}`,
      });
    }
  }
  if (own.truth) {
    for (const t of value.truth) {
      if (value.kind === "FN" && same(t.box, value.box)) continue;
      marks.push({ box: t.box, look: "truth", dashed: t.crowd, title: `labelled ${t.class}` });
    }
  }
  if (own.regions && own.explanation) {
    for (const r of own.explanation.regions) {
      if (r.kind !== "object") marks.push({ box: r.box, look: r.kind, title: r.kind });
    }
  }
  const said = value.kind === "FN" ? "missed" : value.kind === "FP" ? "false" : "found";
  marks.push({
    box: value.box,
    look: value.kind,
    text: `${said}: ${value.class}${value.kind === "FN" ? "" : ` ${figure(value.score)}`}`,
    title: `${said}: ${value.class}`,
  });
  return marks;
}

/** @param {number[]} a @param {number[]} b */
function same(a, b) {
  return a.every((v, i) => Math.abs(v - b[i]) < 0.05);
}

/** @param {any} props */
function Facts({ rows }) {
  return html`<dl class="facts">
    ${rows.map((/** @type {[string, any]} */ [name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}
  </dl>`;
}

/** What became of its like on the holdout. @param {any} props */
function Fixed({ value }) {
  const asked = new URLSearchParams({ class: value.class, cause: value.cause ?? "" });
  const found = useLoaded(value.kind === "FN" ? `/proof/groups?${asked}` : null).value?.groups ?? [];
  if (!found.length) return null;
  return html`<section>
    <h2>Fixed on the holdout</h2>
    ${found.map(
      (/** @type {any} */ group) => html`<h3>
          ${group.kind} ${group.name}: ${group.missed} missed objects (${group.verification})
        </h3>
        <${Facts}
          rows=${group.arms.map((/** @type {any} */ own) => [
            own.arm,
            own.mean === null
              ? "–"
              : `${figure(own.mean)}${own.low === null ? "" : ` [${figure(own.low)}, ${figure(own.high)}]`}`,
          ])}
        />`,
    )}
  </section>`;
}

/** @param {any} props */
export function Failure({ number, stamp }) {
  const filter = only(query.value, FILTER);
  const address = formatQuery(filter);
  const { value, error, again } = useLoaded(`/failures/${number}${address}`);
  const [, redraw] = useState(0);
  useEnded(again);
  /** @param {Partial<typeof shown>} next */
  const set = (next) => {
    Object.assign(shown, next);
    redraw((n) => n + 1);
  };
  useEffect(() => {
    document.title = `Failure ${number} · curator review`;
  }, [number]);
  const to = (/** @type {number | null} */ id) => id !== null && go(`/failures/${id}${address}`, { replace: true });
  useKeys(
    (event) => {
      if (event.key === "Escape") go(`/failures${address}`);
      else if (!value) return;
      else if (event.key === "n" || event.key === "j") to(value.after);
      else if (event.key === "p" || event.key === "k") to(value.before);
      else if (event.key === "h") set({ opacity: shown.opacity ? 0 : 0.6 });
      else if (event.key === "t") set({ truth: !shown.truth });
      else if (event.key === "d") set({ detections: !shown.detections });
      else if (event.key === "r") set({ regions: !shown.regions });
    },
  );
  if (error) return html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  const explanation =
    value.explanations.find((/** @type {any} */ own) => own.run === shown.run) ?? value.explanations[0] ?? null;
  const least = Math.max(shown.least ?? Math.min(value.threshold, 0.3), value.floor);
  const seen = value.detections.filter((/** @type {any} */ d) => d.score >= least).length;
  const heat =
    explanation && explanation.evidence && shown.opacity > 0
      ? `/api/failures/${number}/heat?run=${explanation.run}&v=${stamp}`
      : null;
  return html`<div class="one">
    <section class="stage-of" aria-label="Image">
      <div class="bar">
        <${A} class="button" href=${`/failures${address}`}>‹ All failures<//>
        <h1><${Kind} kind=${value.kind} /> ${value.class}</h1>
        <span class="quiet">${value.cause ?? ""}</span>
        <span class="grow"></span>
        <span class="quiet name" title=${value.image_name}>${value.image_name}</span>
        <${A} class="button" href=${`/boxes/${value.image}`}>Edit boxes<//>
        <button disabled=${value.before === null} onClick=${() => to(value.before)} title="Previous (p)">‹ Previous</button>
        <button disabled=${value.after === null} onClick=${() => to(value.after)} title="Next (n)">Next ›</button>
      </div>
      <${Viewer}
        src=${`/api/images/${value.image}/picture?v=${stamp}`}
        alt=${`${value.image_name}: ${value.kind === "FN" ? "missed" : "false alarm"} ${value.class}`}
        width=${value.width}
        height=${value.height}
        about=${value.box}
        marks=${marksOf(value, { ...shown, least, explanation })}
        heat=${heat}
        opacity=${shown.opacity}
      />
      <${Keys}
        of=${[
          ["n p", "next, previous"],
          ["z 0 + -", "zoom"],
          ["h", "heat map"],
          ["t", "labels"],
          ["d", "detections"],
          ["r", "regions"],
          ["Esc", "back"],
        ]}
      />
    </section>
    <aside class="side" aria-label="What is known of it">
      <section>
        <h2>Shown</h2>
        <${Layer} on=${shown.truth} set=${(/** @type {boolean} */ v) => set({ truth: v })} look="truth" name="labels">
          <span class="figure">${value.truth.length}</span><//
        >
        <${Layer} on=${shown.detections} set=${(/** @type {boolean} */ v) => set({ detections: v })} look="detection" name="detections">
          <span class="figure">${seen} of ${value.detections.length}</span><//
        >
        <label class="slider"
          ><span>score at least <b>${figure(least)}</b></span
          ><input
            type="range"
            min=${value.floor}
            max="1"
            step="0.01"
            value=${least}
            disabled=${!shown.detections}
            onInput=${(/** @type {any} */ event) => set({ least: Number(event.currentTarget.value) })}
        /></label>
        <p class="quiet small">
          dashed: below the threshold of ${figure(value.threshold)}; stored down to ${figure(value.floor, 3)}
        </p>
      </section>
      <section>
        <h2>Why</h2>
        ${explanation
          ? html`
              ${value.explanations.length > 1 &&
              html`<label class="field"
                >Method
                <select
                  value=${String(explanation.run)}
                  onChange=${(/** @type {any} */ event) => set({ run: Number(event.currentTarget.value) })}
                >
                  ${value.explanations.map(
                    (/** @type {any} */ own) =>
                      html`<option value=${String(own.run)}>
                        ${own.method} (run ${own.run}${own.current ? ", current" : ""})
                      </option>`,
                  )}
                </select></label
              >`}
              <label class="slider"
                ><span>heat map <b>${Math.round(shown.opacity * 100)}%</b></span
                ><input
                  type="range"
                  aria-label="Opacity of the heat map"
                  min="0"
                  max="1"
                  step="0.05"
                  value=${shown.opacity}
                  disabled=${!explanation.evidence}
                  onInput=${(/** @type {any} */ event) => set({ opacity: Number(event.currentTarget.value) })}
              /></label>
              <p class="legend quiet small">
                <span class="heat-red"></span> raises the score <span class="heat-blue"></span> lowers it
              </p>
              <${Layer} on=${shown.regions} set=${(/** @type {boolean} */ v) => set({ regions: v })} look="support" name="regions">
                <span class="figure">${explanation.regions.filter((/** @type {any} */ r) => r.kind !== "object").length}</span><//
              >
              ${!explanation.evidence && html`<p class="warn">${explanation.said}</p>`}
              <${Facts}
                rows=${[
                  ["method", `${explanation.method}, ${explanation.passes} passes`],
                  ["F(1), the image as it is", figure(explanation.full, 3)],
                  ["F(0), all removed", figure(explanation.empty, 3)],
                  ["gap, left unexplained", explanation.gap === null ? "not claimed" : figure(explanation.gap, 3)],
                  ["unit", explanation.unit],
                ]}
              />
            `
          : html`<p class="quiet">Not explained: <code>curator explain</code> draws the map.</p>`}
        <${JobForm}
          kind="explain"
          title="Explain otherwise…"
          submit="Explain by another method"
          note="Only to look: later stages keep the explanations that they use."
          fields=${(/** @type {any} */ choices) => [
            { name: "method", label: "Method", value: "e2x_kernel", kind: "choice", of: choices.explanations },
          ]}
          asked=${(/** @type {any} */ values) => ({ ...values, failure: number })}
        />
      </section>
      <section>
        <h2>Numbers</h2>
        <${Facts}
          rows=${[
            ["cause", value.cause ?? "none: it was found"],
            ["size", size(value.box)],
            [value.kind === "FN" ? "best candidate's score" : "score", figure(value.score, 3)],
            [value.kind === "FN" ? "IoU of the nearest detection" : "IoU with the nearest label", figure(value.iou, 2)],
            ["explained", value.rule],
          ]}
        />
      </section>
      <${Fixed} value=${value} />
      <section>
        <h2>Asked for</h2>
        ${value.hits.length
          ? html`<div class="crops">
              ${value.hits.map(
                (/** @type {any} */ hit) => html`<${A}
                  href=${`/queries?name=${encodeURIComponent(hit.selection)}&hit=${hit.image}`}
                  title=${`${hit.selection}, no. ${hit.rank}: ${hit.reason}`}
                  ><${Picture} src=${cropAddress(hit.image, hit.box, "hit", stamp, 128)} alt=${`hit no. ${hit.rank}`} /><//
                >`,
              )}
            </div>`
          : html`<p class="quiet">No chosen pool image answers it.</p>`}
        <${Ask} failures=${`id=${number}`} />
        ${value.samples.length > 0 &&
        html`<h3>Samples made of it</h3>
          <div class="crops">
            ${value.samples.map(
              (/** @type {any} */ sample) => html`<${A}
                href=${`/samples?batch=${encodeURIComponent(sample.name)}&at=${sample.id}`}
                title=${`${sample.recipe}, ${sample.accepted ? "accepted" : "rejected"}`}
                class=${sample.accepted ? "" : "rejected"}
                ><${Picture} src=${`/api/samples/${sample.id}/crop?side=128&v=${stamp}`} alt=${sample.recipe} /><//
              >`,
            )}
          </div>`}
      </section>
    </aside>
  </div>`;
}
