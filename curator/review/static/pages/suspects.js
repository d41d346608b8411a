// Suspect labels: is the label wrong, or the detector? Confirm, clear, or mend.
import { html, useEffect, useState } from "../js/html.js";
import { cropAddress } from "../js/api.js";
import { Grid } from "../js/grid.js";
import { useKeys, useLoaded } from "../js/load.js";
import { Choice, Failed, Keys, Nothing, Picture } from "../js/parts.js";
import { A, goQuery, query } from "../js/router.js";
import { having, only } from "../js/address.js";
import { change } from "../js/undo.js";
import { count, number, plural } from "../js/words.js";
import { Viewer } from "../js/viewer.js";

const SHOWN = [
  ["", "all"],
  ["open", "not judged"],
  ["confirmed", "wrong"],
  ["cleared", "right"],
];

/** @param {any} props */
export function Suspects({ stamp }) {
  const filter = only(query.value, ["show", "kind"]);
  const { value, error, again } = useLoaded("/suspects");
  const [at, setAt] = useState(0);
  useEffect(() => {
    document.title = "Suspect labels · curator review";
  }, []);
  const show = filter.show?.[0];
  const kind = filter.kind?.[0];
  const found = (value?.suspects ?? []).filter(
    (/** @type {any} */ s) => (!show || s.verdict === show) && (!kind || s.kind === kind),
  );
  const own = found.find((/** @type {any} */ s) => s.id === at) ?? found[0];
  /** @param {string} word */
  const say = (word) =>
    change(
      "/suspects/say",
      { said: { [own.id]: own.verdict === word ? "open" : word } },
      `suspect ${own.id}: ${own.verdict === word ? "left open" : word}`,
      again,
    );
  const mend = () => change("/suspects/mend", { suspect: own.id }, `mended: ${own.mend}`, again);
  useKeys(
    (event) => {
      if (!own) return;
      if (event.key === "w") say("confirmed");
      else if (event.key === "r") say("cleared");
      else if (event.key === "m" && own.mend) mend();
    },
  );
  if (error) return html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  if (!value.suspects.length) {
    return html`<${Nothing} title=${value.listed ? "No suspect labels" : "Labels were not looked at yet"}
      >${value.listed
        ? "None of the labels of this diagnosis reaches the probability that was asked for."
        : html`<code>curator suspects</code> lists labels that more likely are wrong than the detector.`}<//
    >`;
  }
  const kinds = [...new Set(value.suspects.map((/** @type {any} */ s) => s.kind))].sort();
  return html`<div class="split">
    <aside class="filters" aria-label="Filters">
      <fieldset>
        <legend>Shown</legend>
        ${SHOWN.map(
          ([word, text]) => html`<${Choice}
            on=${(show ?? "") === word}
            count=${count(value.suspects.filter((/** @type {any} */ s) => !word || s.verdict === word).length)}
            onClick=${() => goQuery(having(filter, "show", word ? [word] : []))}
            >${text}<//
          >`,
        )}
      </fieldset>
      <fieldset>
        <legend>Mistake</legend>
        ${kinds.map(
          (/** @type {any} */ name) => html`<${Choice}
            on=${kind === name}
            count=${count(value.suspects.filter((/** @type {any} */ s) => s.kind === name).length)}
            onClick=${() => goQuery(having(filter, "kind", kind === name ? [] : [name]))}
            >${name}<//
          >`,
        )}
      </fieldset>
      <p class="quiet small">
        Failures of suspects ask for nothing and are painted by nobody. What you say here counts for every later
        query.
      </p>
    </aside>
    <section class="results" aria-label="Suspects">
      <div class="bar"><h1>${plural(found.length, "suspect label")}</h1></div>
      ${found.length
        ? html`<${Grid}
            key=${`${show} ${kind}`}
            name=${`suspects ${show} ${kind}`}
            label="Suspect labels"
            total=${found.length}
            items=${found}
            caption=${44}
            move=${(/** @type {any} */ one) => setAt(one.id)}
            tile=${(/** @type {any} */ one) => html`
              <div class="pair">
                <${Picture} class="crop" src=${cropAddress(one.image, one.box, "suspect", stamp)} alt=${`${one.kind}: ${one.category}`} />
                ${(one.verdict !== "open" || one.gone) &&
                html`<span class=${`stamp ${one.verdict === "confirmed" ? "rejected" : "accepted"}`}
                  >${one.gone ? "mended" : one.verdict === "confirmed" ? "wrong" : "right"}</span
                >`}
              </div>
              <p class="caption"><b>${one.category}</b><span class="figure">${number(one.probability)}</span></p>
              <p class="caption quiet">${one.kind}</p>
            `}
          />`
        : html`<${Nothing} title="Nothing here">No suspect label is like that.<//>`}
      <${Keys} of=${[["←↑↓→", "move"], ["w", "wrong"], ["r", "right"], ["m", "mend"], ["Ctrl Z", "undo"]]} />
    </section>
    ${own &&
    html`<aside class="detail" aria-label="The label">
      <${Viewer}
        key=${own.image}
        src=${`/api/images/${own.image}/picture?v=${stamp}`}
        alt=${own.name}
        width=${own.width}
        height=${own.height}
        about=${own.box}
        marks=${[{ box: own.box, look: "suspect", dashed: own.kind === "missing label", text: own.category, title: own.why }]}
      />
      <div class="words">
        <p><b>${own.kind}</b>, probability ${number(own.probability)} · <span class="quiet">${own.name}</span></p>
        <p class="reason">${own.why}</p>
        <div class="judge" role="group" aria-label="Judge">
          <button class="no" aria-pressed=${own.verdict === "confirmed" ? "true" : "false"} onClick=${() => say("confirmed")}>The label is wrong</button>
          <button class="yes" aria-pressed=${own.verdict === "cleared" ? "true" : "false"} onClick=${() => say("cleared")}>It is right</button>
        </div>
        <div class="judge">
          ${own.mend && html`<button class="primary" onClick=${mend}>Mend: ${own.mend}</button>`}
          <${A} class="button" href=${`/boxes/${own.image}`}>Edit its boxes<//>
        </div>
        ${own.gone && html`<p class="quiet">Its labels were edited since. <code>curator diagnose</code> judges them anew.</p>`}
        ${own.failures.length > 0 &&
        html`<p class="quiet small">
          Failures that it brings about:
          ${own.failures.map((/** @type {number} */ id) => html` <${A} href=${`/failures/${id}`}>${id}<//>`)}
        </p>`}
      </div>
    </aside>`}
  </div>`;
}
