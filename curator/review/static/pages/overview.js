// Overview: the loop with its state, what to do next, failures by cause and class, the last runs.
import { html, useEffect } from "../js/html.js";
import { useLoaded } from "../js/load.js";
import { JobForm } from "../js/forms.js";
import { useEnded } from "../js/jobs.js";
import { Command, Failed } from "../js/parts.js";
import { A } from "../js/router.js";
import { formatQuery } from "../js/address.js";
import { count, duration, KINDS, moment } from "../js/words.js";

const STATES = { done: "up to date", stale: "out of date", missing: "not yet", running: "running" };

/** @param {any} props */
function Stage({ stage }) {
  return html`<li class=${`stage ${stage.state}`}>
    <h3>${stage.title}</h3>
    <p class="said">${stage.said}</p>
    <p class="state" title=${stage.why}>
      <span class="dot" aria-hidden="true"></span>${/** @type {any} */ (STATES)[stage.state]}
    </p>
    ${stage.why && html`<p class="why">${stage.why}</p>`}
  </li>`;
}

/** @param {any} props */
function Causes({ counts }) {
  const failures = counts.filter((/** @type {any} */ own) => own.kind !== "TP");
  const classes = [...new Set(counts.map((/** @type {any} */ own) => own.class))].sort();
  /** @type {Map<string, {kind: string, cause: string, of: Map<string, number>, all: number}>} */
  const rows = new Map();
  for (const own of failures) {
    const name = `${own.kind} ${own.cause}`;
    const row = rows.get(name) ?? { kind: own.kind, cause: own.cause, of: new Map(), all: 0 };
    row.of.set(own.class, own.number);
    row.all += own.number;
    rows.set(name, row);
  }
  const sorted = [...rows.values()].sort((a, b) => b.all - a.all);
  const largest = Math.max(1, ...failures.map((/** @type {any} */ own) => own.number));
  const many = classes.length > 12;
  /** @param {any} row @param {string | null} name */
  const to = (row, name) =>
    `/failures${formatQuery({ kind: [row.kind], cause: row.cause ? [row.cause] : [], class: name ? [name] : [] })}`;
  if (!sorted.length) return html`<p class="quiet">No failures: nothing was diagnosed, or nothing was missed.</p>`;
  return html`<div class="scroll"><table class="causes">
    <thead>
      <tr>
        <th scope="col">cause</th>
        ${!many && classes.map((name) => html`<th scope="col" class="n">${name}</th>`)}
        <th scope="col" class="n">all</th>
      </tr>
    </thead>
    <tbody>
      ${sorted.map(
        (row) => html`<tr>
          <th scope="row">
            <span class=${`kind kind-${row.kind}`}>${KINDS[row.kind]}</span> ${row.cause}
          </th>
          ${!many &&
          classes.map((/** @type {any} */ name) => {
            const number = row.of.get(name) ?? 0;
            const strength = Math.ceil((4 * number) / largest);
            return html`<td class="n">
              ${number > 0 &&
              html`<${A} class=${`cell s${strength} of-${row.kind}`} href=${to(row, name)}>${count(number)}<//>`}
            </td>`;
          })}
          <td class="n"><${A} class="cell" href=${to(row, null)}>${count(row.all)}<//></td>
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

function Export() {
  return html`<${JobForm}
    kind="export"
    title="Export…"
    submit="Write the augmented training set"
    note="Into a new folder beside the workspace."
    fields=${(/** @type {any} */ choices) => [
      { name: "format", label: "Format", value: "coco", kind: "choice", of: choices.formats },
      { name: "selections", label: "Selections", value: choices.selections.slice(0, 1), kind: "choices", of: choices.selections },
      { name: "samples", label: "Samples", value: [], kind: "choices", of: choices.samples },
      { name: "folder", label: "Folder", value: "augmented" },
    ]}
    asked=${(/** @type {any} */ values) => values}
  />`;
}

function Train() {
  return html`<${JobForm}
    kind="train"
    title="Train…"
    submit="Train the diagnosed detector further"
    note="On the training set and what is added here; the weights lie beside the workspace."
    fields=${(/** @type {any} */ choices) => [
      { name: "selections", label: "Selections", value: choices.selections.slice(0, 1), kind: "choices", of: choices.selections },
      { name: "samples", label: "Samples", value: [], kind: "choices", of: choices.samples },
      { name: "steps", label: "Steps", value: 200, kind: "number", most: 100000 },
      { name: "file", label: "File", value: "mended.safetensors" },
    ]}
    asked=${(/** @type {any} */ values) => values}
  />`;
}

export function Overview() {
  const { value, error, again } = useLoaded("/overview");
  const counts = useLoaded("/failures/counts");
  useEnded(() => {
    again();
    counts.again();
  });
  useEffect(() => {
    document.title = "Overview · curator review";
  }, []);
  if (error) return html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  const n = value.counts;
  const tiles = [
    [n.images_mine, "mined images", ""],
    [n.failures_FN, "missed objects", "FN"],
    [n.failures_FP, "false alarms", "FP"],
    [n.successes, "found objects", "TP"],
    [n.images_pool, "pool images", ""],
    [n.images_train, "training images", ""],
    [n.images_holdout, "held out", ""],
  ];
  return html`<div class="page">
    <h1>What the detector misses, and what mends it</h1>
    <p class="quiet">
      ${value.detector ? html`<code>${value.detector}</code>` : "no detector yet"}
      ${value.explained_by && html` · explained by ${value.explained_by}`}
    </p>
    <section aria-label="Numbers" class="tiles">
      ${tiles.map(([number, text, kind]) => {
        const inner = html`<b class=${kind ? `of-${kind}` : ""}>${count(/** @type {number} */ (number))}</b>
          <span>${text}</span>`;
        return kind
          ? html`<${A} class="stat" href=${`/failures?kind=${kind}`}>${inner}<//>`
          : html`<div class="stat">${inner}</div>`;
      })}
    </section>
    <section>
      <h2>Next</h2>
      <ol class="next">
        ${value.next.map(
          (/** @type {any} */ own) => html`<li>
            <span>${own.why}</span>
            ${own.page && html`<${A} class="button" href=${own.page}>Go there<//>`}
            ${own.command && html`<${Command} text=${own.command} />`}
          </li>`,
        )}
      </ol>
    </section>
    <section class="starts" aria-label="Write and train">
      <${Export} />
      <${Train} />
    </section>
    <section>
      <h2>The loop</h2>
      <ol class="loop">
        ${value.stages.map((/** @type {any} */ stage) => html`<${Stage} stage=${stage} />`)}
      </ol>
    </section>
    <section>
      <h2>Failures by cause</h2>
      ${counts.value && html`<${Causes} counts=${counts.value.counts} />`}
    </section>
    <section>
      <h2>Last runs</h2>
      <div class="scroll"><table class="runs">
        <thead>
          <tr>
            <th scope="col" class="n">run</th>
            <th scope="col">stage</th>
            <th scope="col">status</th>
            <th scope="col">started (UTC)</th>
            <th scope="col" class="n">took</th>
            <th scope="col">items</th>
            <th scope="col">configuration</th>
          </tr>
        </thead>
        <tbody>
          ${value.runs.map((/** @type {any} */ run) => {
            const said = Object.entries(run.config)
              .filter(([name]) => !["seed", "device", "batch_size"].includes(name))
              .map(([name, own]) => `${name}=${typeof own === "string" ? own : JSON.stringify(own)}`)
              .join("  ");
            return html`<tr>
              <td class="n">${run.id}</td>
              <td>${run.stage}</td>
              <td><span class=${`status ${run.status}`}>${run.status}</span></td>
              <td>${moment(run.started)}</td>
              <td class="n">${duration(run.seconds)}</td>
              <td>
                ${Object.entries(run.counts)
                  .map(([name, own]) => `${own} ${name}`)
                  .join(", ")}
              </td>
              <td class="config" title=${said}>${said}</td>
            </tr>`;
          })}
        </tbody>
      </table></div>
    </section>
  </div>`;
}
