// Samples: before and after, what the gate found, and what a person says.
import { html, useEffect, useState } from "../js/html.js";
import { Grid } from "../js/grid.js";
import { useKeys, useLoaded } from "../js/load.js";
import { Choice, Failed, Keys, Nothing, Picture } from "../js/parts.js";
import { A, goQuery, query } from "../js/router.js";
import { having, only } from "../js/address.js";
import { change } from "../js/undo.js";
import { count, number, plural, size } from "../js/words.js";
import { Viewer } from "../js/viewer.js";
import { free, JobForm } from "../js/forms.js";
import { useEnded } from "../js/jobs.js";

/** @type {[string, string, (own: any) => boolean][]} */
const SHOWN = [
  ["", "all", () => true],
  ["accepted", "accepted", (own) => own.accepted],
  ["rejected", "rejected", (own) => !own.accepted],
  ["judged", "judged by a person", (own) => own.said !== "open"],
];

/** Make samples. @param {any} props */
function Paint({ primary = false }) {
  return html`<${JobForm}
    kind="synthesize"
    title="Synthesise…"
    submit="Make samples"
    primary=${primary}
    note="Real pixels, composed and blended; the gate judges each sample."
    fields=${(/** @type {any} */ choices) => [
      { name: "failures", label: "Failures", value: "", of: choices.failures, hint: "all" },
      { name: "budget", label: "Samples", value: 10, kind: "number", most: 10000 },
      { name: "selection", label: "Scenes beside the training set", value: "none", kind: "choice", of: ["none", ...choices.selections] },
      { name: "name", label: "Name", value: free("synthesis", choices.samples) },
    ]}
    asked=${(/** @type {any} */ values) => ({ ...values, selection: values.selection === "none" ? null : values.selection })}
  />`;
}

/** @param {any} props */
function Detail({ own, say, stamp, before, setBefore }) {
  const marks = before ? [] : own.labels.map((/** @type {any} */ l) => ({ box: l.box, look: "truth", text: l.class, title: l.class }));
  return html`<aside class="detail" aria-label="The sample">
    <${Viewer}
      key=${own.id}
      src=${`/api/samples/${own.id}/${before ? "before" : "picture"}?v=${stamp}`}
      alt=${before ? "the scene before" : "the sample"}
      width=${own.width}
      height=${own.height}
      about=${own.painted}
      marks=${[...marks, { box: own.painted, look: "hit", dashed: true, title: "what was painted" }]}
    />
    <div class="words">
      <div class="judge" role="group" aria-label="Before or after">
        <button aria-pressed=${before ? "true" : "false"} onClick=${() => setBefore(true)}>Before</button>
        <button aria-pressed=${before ? "false" : "true"} onClick=${() => setBefore(false)}>After</button>
        <span class="quiet small">space changes</span>
      </div>
      <div class="judge" role="group" aria-label="Judge">
        <button class="yes" aria-pressed=${own.said === "accepted" ? "true" : "false"} onClick=${() => say(own, "accepted")}>✓ Accept</button>
        <button class="no" aria-pressed=${own.said === "rejected" ? "true" : "false"} onClick=${() => say(own, "rejected")}>✕ Reject</button>
        <button disabled=${own.said === "open"} onClick=${() => say(own, "open")}>Leave it to the gate</button>
      </div>
      <p>
        <b>${own.accepted ? "Accepted" : "Rejected"}</b>${" "}
        ${own.said === "open" ? "by the gate" : html`: ${own.said_by} (the gate ${own.passed ? "accepted" : "rejected"} it)`}
      </p>
      <table class="verdicts">
        <thead>
          <tr><th scope="col">check</th><th scope="col" class="n">value</th><th scope="col" class="n">bound</th></tr>
        </thead>
        <tbody>
          ${own.verdicts.map(
            (/** @type {any} */ v) => html`<tr class=${v.accepted ? "" : "refused"} title=${v.reason}>
              <td>${v.accepted ? "" : "✕ "}${v.check}</td>
              <td class="n">${number(v.value, 3)}</td>
              <td class="n">${number(v.bound, 3)}</td>
            </tr>`,
          )}
        </tbody>
      </table>
      ${own.verdicts
        .filter((/** @type {any} */ v) => !v.accepted)
        .map((/** @type {any} */ v) => html`<p class="warn">${v.check}: ${v.reason}</p>`)}
      <p class="quiet small">
        ${own.recipe} for ${own.group} · painted ${size(own.painted)} · seed ${own.seed}
        ${own.failure !== null && html` · <${A} href=${`/failures/${own.failure}`}>failure ${own.failure}<//>`}
      </p>
      <p class="quiet small"><code>curator reproduce ${own.id}</code> paints it anew.</p>
    </div>
  </aside>`;
}

/** @param {any} props */
export function Samples({ stamp }) {
  const filter = only(query.value, ["batch", "show", "recipe", "at"]);
  const batch = filter.batch?.[0];
  const { value, error, again } = useLoaded(`/samples${batch ? `?batch=${encodeURIComponent(batch)}` : ""}`);
  const [at, setAt] = useState(0);
  const [before, setBefore] = useState(false);
  useEnded(again);
  useEffect(() => {
    document.title = "Samples · curator review";
  }, []);
  const show = SHOWN.find(([word]) => word === (filter.show?.[0] ?? "")) ?? SHOWN[0];
  const recipe = filter.recipe?.[0];
  const samples = (value?.samples ?? []).filter(
    (/** @type {any} */ s) => show[2](s) && (!recipe || s.recipe === recipe),
  );
  const own = samples.find((/** @type {any} */ s) => s.id === at) ?? samples[0];
  /** @param {any} one @param {string} word */
  const say = (one, word) =>
    change(
      "/samples/judge",
      { said: { [one.id]: one.said === word ? "open" : word } },
      `sample ${one.id} ${one.said === word ? "left to the gate" : word}`,
      again,
    );
  useKeys(
    (event) => {
      if (!own) return;
      if (event.key === "a") say(own, "accepted");
      else if (event.key === "x") say(own, "rejected");
      else if (event.key === " ") {
        event.preventDefault();
        setBefore((now) => !now);
      }
    },
  );
  if (error) return html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  if (!value.samples.length) {
    return html`<${Nothing} title="No samples yet"
      ><p>Paint what the pool lacks, here or with <code>curator synthesize</code>.</p>
      <${Paint} primary=${true} /><//
    >`;
  }
  const recipes = [...new Set(value.samples.map((/** @type {any} */ s) => s.recipe))].sort();
  const start = filter.at ? samples.findIndex((/** @type {any} */ s) => String(s.id) === filter.at[0]) : -1;
  return html`<div class="split">
    <aside class="filters" aria-label="Batches">
      <fieldset>
        <legend>Batch</legend>
        ${value.batches.map(
          (/** @type {string} */ name) => html`<${Choice} on=${name === value.batch} onClick=${() => goQuery({ batch: [name] })}>${name}<//>`,
        )}
      </fieldset>
      <fieldset>
        <legend>Shown</legend>
        ${SHOWN.map(
          ([word, text, test]) => html`<${Choice}
            on=${show[0] === word}
            count=${count(value.samples.filter(test).length)}
            onClick=${() => goQuery(having(filter, "show", word ? [word] : []))}
            >${text}<//
          >`,
        )}
      </fieldset>
      <fieldset>
        <legend>Recipe</legend>
        ${recipes.map(
          (/** @type {any} */ name) => html`<${Choice}
            on=${recipe === name}
            count=${count(value.samples.filter((/** @type {any} */ s) => s.recipe === name).length)}
            onClick=${() => goQuery(having(filter, "recipe", recipe === name ? [] : [name]))}
            >${name}<//
          >`,
        )}
      </fieldset>
    </aside>
    <section class="results" aria-label="Samples">
      <div class="bar">
        <h1>${plural(samples.length, "sample")}</h1>
        <span class="quiet"
          >${value.samples.filter((/** @type {any} */ s) => s.accepted).length} of ${value.samples.length} accepted</span
        >
        <span class="grow"></span>
        <${Paint} />
      </div>
      ${samples.length
        ? html`<${Grid}
            key=${`${value.batch} ${show[0]} ${recipe}`}
            name=${`samples ${value.batch} ${show[0]} ${recipe}`}
            label="Samples"
            total=${samples.length}
            items=${samples}
            start=${start >= 0 ? start : undefined}
            caption=${44}
            move=${(/** @type {any} */ one) => setAt(one.id)}
            tile=${(/** @type {any} */ one) => html`
              <div class=${`pair ${one.accepted ? "" : "rejected"}`}>
                <${Picture} class="crop" src=${`/api/samples/${one.id}/crop?v=${stamp}`} alt=${`sample ${one.id}`} />
                <${Picture} class="inset" src=${`/api/samples/${one.id}/crop?side=96&was=true&v=${stamp}`} alt="before" />
                <span class=${`stamp ${one.accepted ? "accepted" : "rejected"} ${one.said === "open" ? "soft" : ""}`}
                  >${one.accepted ? "✓" : "✕"}</span
                >
              </div>
              <p class="caption"><b>${one.recipe}</b><span class="figure">${one.id}</span></p>
              <p class="caption quiet">${one.group}</p>
            `}
          />`
        : html`<${Nothing} title="Nothing here">No sample of this batch is like that.<//>`}
      <${Keys} of=${[["←↑↓→", "move"], ["Space", "before, after"], ["a", "accept"], ["x", "reject"], ["Ctrl Z", "undo"]]} />
    </section>
    ${own && html`<${Detail} own=${own} say=${say} stamp=${stamp} before=${before} setBefore=${setBefore} />`}
  </div>`;
}
