// Queries: hits beside the failures that asked for them; accept, reject, refine.
import { html, useEffect, useState } from "../js/html.js";
import { cropAddress, get } from "../js/api.js";
import { Grid } from "../js/grid.js";
import { useKeys, useLoaded } from "../js/load.js";
import { Choice, Failed, Keys, Kind, Nothing, Picture } from "../js/parts.js";
import { A, goQuery, query } from "../js/router.js";
import { having, only } from "../js/address.js";
import { change, done, tell } from "../js/undo.js";
import { count, number, plural } from "../js/words.js";
import { Viewer } from "../js/viewer.js";
import { free, JobForm } from "../js/forms.js";
import { useEnded } from "../js/jobs.js";

const SHOWN = [
  ["", "all"],
  ["open", "not judged"],
  ["accepted", "accepted"],
  ["rejected", "rejected"],
];

/** @param {any} props */
function Side({ own, groups, shown, filter }) {
  const { value, all } = own;
  return html`<aside class="filters" aria-label="Selections">
    <fieldset>
      <legend>Selection</legend>
      ${all.map(
        (/** @type {any} */ one) => html`<${Choice}
          on=${one.name === value.name}
          count=${count(one.hits)}
          onClick=${() => goQuery({ name: [one.name] })}
          title=${one.stale ? "asked by another diagnosis or other explanations" : one.arm}
          >${one.stale && html`<span class="swatch of-FP" title="out of date"></span>`}${one.name}<//
        >`,
      )}
    </fieldset>
    <fieldset>
      <legend>Shown</legend>
      ${SHOWN.map(
        ([word, text]) => html`<${Choice}
          on=${(filter.show?.[0] ?? "") === word}
          count=${count(value.hits.filter((/** @type {any} */ h) => !word || h.verdict === word).length)}
          onClick=${() => goQuery(having(filter, "show", word ? [word] : []))}
          >${text}<//
        >`,
      )}
    </fieldset>
    <fieldset>
      <legend>Groups</legend>
      ${groups.map(
        (/** @type {string} */ name) => html`<${Choice}
          on=${filter.group?.[0] === name}
          count=${count(value.hits.filter((/** @type {any} */ h) => h.group === name).length)}
          onClick=${() => goQuery(having(filter, "group", filter.group?.[0] === name ? [] : [name]))}
          >${name}<//
        >`,
      )}
    </fieldset>
    <fieldset>
      <legend>What the pool holds</legend>
      ${value.groups.map(
        (/** @type {any} */ own) => html`<p class="coverage">
          <b>${own.name}</b><br />
          <span class="quiet"
            >${plural(own.failures, "failure")} asked, ${plural(own.hits, "image")} chosen${own.coverage
              ? html`; about ${Math.round(own.coverage.expected)} there
                  [${Math.round(own.coverage.low)}, ${Math.round(own.coverage.high)}]`
              : ""}</span
          >
        </p>`,
      )}
    </fieldset>
  </aside>`;
}

/** @param {any} props */
function Refine({ value, again }) {
  const [open, setOpen] = useState(false);
  const [budget, setBudget] = useState(value.budget);
  const [state, setState] = useState(/** @type {any} */ ({ state: "idle" }));
  const judged = value.hits.filter((/** @type {any} */ h) => h.verdict !== "open").length;
  useEffect(() => {
    if (state.state !== "running") return undefined;
    const timer = setInterval(async () => {
      try {
        const now = (await get("/queries")).refining;
        if (now.state === "running") return;
        setState({ state: "idle" });
        if (now.state === "failed") tell(now.said, { bad: true });
        else {
          if (now.undo) {
            done.value = [...done.value, { said: `refined ${now.name}`, undo: now.undo, after: again }];
          }
          tell(`Refined: ${now.said}`, { undoable: Boolean(now.undo) });
        }
        again();
      } catch (error) {
        setState({ state: "idle" });
        tell(/** @type {Error} */ (error).message, { bad: true });
      }
    }, 500);
    return () => clearInterval(timer);
  }, [state.state]);
  const start = async () => {
    const answer = await change(
      "/queries/refine",
      { selection: value.name, budget },
      "Refining: keeping what you accepted, asking anew for the rest",
      () => {},
    );
    if (answer) setState({ state: "running" });
    setOpen(false);
  };
  if (state.state === "running") return html`<span class="busy" role="status">Refining…</span>`;
  if (!open) {
    return html`<button
      class="primary"
      disabled=${!value.may_refine || !judged}
      title=${judged ? "Learn from what was accepted and rejected, and fill the budget anew" : "Accept or reject some hits first"}
      onClick=${() => setOpen(true)}
    >
      Refine…
    </button>`;
  }
  return html`<form
    class="inline"
    onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      start();
    }}
  >
    <label
      >Images wanted
      <input
        type="number"
        min="1"
        max="100000"
        required
        value=${budget}
        onInput=${(/** @type {any} */ event) => setBudget(Number(event.currentTarget.value))}
    /></label>
    <button class="primary" type="submit">Ask anew</button>
    <button type="button" onClick=${() => setOpen(false)}>Cancel</button>
  </form>`;
}

/** Ask the pool. @param {any} props */
export function Ask({ failures = "", primary = false }) {
  return html`<${JobForm}
    kind="query"
    title="Ask…"
    submit="Ask the pool"
    primary=${primary}
    note="Failures: KIND[:CAUSE][,class=NAME], joined by ';'. Empty: all of them. id=N asks for all of that failure's kind, class and cause."
    fields=${(/** @type {any} */ choices) => [
      { name: "failures", label: "Failures", value: failures, of: choices.failures, hint: "all" },
      { name: "budget", label: "Images", value: 40, kind: "number", most: 100000 },
      { name: "method", label: "Method", value: "predictor", kind: "choice", of: choices.methods },
      { name: "name", label: "Name", value: free("query", choices.selections) },
    ]}
    asked=${(/** @type {any} */ values) => values}
  />`;
}

/** @param {any} props */
function Detail({ hit, say, stamp }) {
  const failure = hit.failure;
  return html`<aside class="detail" aria-label="The hit">
    <${Viewer}
      src=${`/api/images/${hit.image}/picture?v=${stamp}`}
      alt=${`pool image ${hit.name}`}
      width=${hit.width}
      height=${hit.height}
      about=${hit.box}
      marks=${[{ box: hit.box, look: "hit", text: "answers", title: "the box that answers" }]}
    />
    <div class="words">
      <div class="judge" role="group" aria-label="Judge">
        <button
          class="yes"
          aria-pressed=${hit.verdict === "accepted" ? "true" : "false"}
          onClick=${() => say(hit, "accepted")}
        >
          ✓ Accept
        </button>
        <button
          class="no"
          aria-pressed=${hit.verdict === "rejected" ? "true" : "false"}
          onClick=${() => say(hit, "rejected")}
        >
          ✕ Reject
        </button>
        <button disabled=${hit.verdict === "open"} onClick=${() => say(hit, "open")}>Leave open</button>
      </div>
      <p><b>No. ${hit.rank}</b> · ${hit.group} · <span class="quiet">${hit.name}</span></p>
      <p class="reason">${hit.reason || `score ${number(hit.score)}`}</p>
      ${failure &&
      html`<div class="asked">
        <${A} href=${`/failures/${failure.id}`}
          ><${Picture}
            src=${cropAddress(failure.image, failure.box, failure.kind, stamp, 160)}
            alt="the failure that asked"
        /><//>
        <p>
          Asked by <${A} href=${`/failures/${failure.id}`}>failure ${failure.id}<//><br /><${Kind}
            kind=${failure.kind}
          />${" "}${failure.class}<br /><span class="quiet">${failure.cause}</span>
        </p>
      </div>`}
    </div>
  </aside>`;
}

/** @param {any} props */
export function Queries({ stamp }) {
  const filter = only(query.value, ["name", "show", "group", "hit"]);
  const list = useLoaded("/queries");
  const all = list.value?.queries ?? [];
  const name = filter.name?.[0] ?? all.find((/** @type {any} */ q) => !["random", "oracle"].includes(q.arm))?.name ?? all[0]?.name;
  const one = useLoaded(name === undefined ? null : `/queries/one?name=${encodeURIComponent(name)}`);
  const [at, setAt] = useState(0);
  const again = () => {
    list.again();
    one.again();
  };
  useEnded(again);
  useEffect(() => {
    document.title = "Queries · curator review";
  }, []);
  const value = one.value;
  const show = filter.show?.[0];
  const group = filter.group?.[0];
  const hits = (value?.hits ?? [])
    .filter((/** @type {any} */ h) => (!show || h.verdict === show) && (!group || h.group === group))
    .map((/** @type {any} */ h) => ({ ...h, id: h.image }));
  const hit = hits.find((/** @type {any} */ h) => h.image === at) ?? hits[0];
  /** @param {any} own @param {string} word */
  const say = (own, word) =>
    change(
      "/feedback",
      { selection: value.name, said: { [own.image]: own.verdict === word ? "open" : word } },
      `hit no. ${own.rank} ${own.verdict === word ? "left open" : word}`,
      again,
    );
  useKeys(
    (event) => {
      if (!hit) return;
      if (event.key === "a" || event.key === "y") say(hit, "accepted");
      else if (event.key === "x") say(hit, "rejected");
    },
  );
  if (list.error || one.error) return html`<${Failed} text=${list.error || one.error} again=${again} />`;
  if (list.value && !all.length) {
    return html`<${Nothing} title="No query was asked yet"
      ><p>Ask the pool for what the failures need, here or with <code>curator query</code>.</p>
      <${Ask} primary=${true} /><//
    >`;
  }
  if (!value || value.name !== name) return html`<p class="boot">Loading…</p>`;
  const groups = [...new Set(value.hits.map((/** @type {any} */ h) => h.group))].sort();
  const judged = value.hits.filter((/** @type {any} */ h) => h.verdict !== "open").length;
  const start = filter.hit ? hits.findIndex((/** @type {any} */ h) => String(h.image) === filter.hit[0]) : -1;
  return html`<div class="split">
    <${Side} own=${{ value, all }} groups=${groups} filter=${filter} />
    <section class="results" aria-label="Hits">
      <div class="bar">
        <h1>${plural(hits.length, "hit")}</h1>
        <span class="quiet">${judged} of ${value.hits.length} judged${value.failures ? html` · asked for <code>${value.failures}</code>` : ""}</span>
        <span class="grow"></span>
        <${Ask} />
        <${Refine} key=${value.key} value=${value} again=${again} />
      </div>
      ${value.refined && html`<p class="note">${value.refined}</p>`}
      ${hits.length
        ? html`<${Grid}
            key=${`${name} ${show} ${group} ${value.key}`}
            name=${`hits ${name} ${show} ${group}`}
            label="Hits"
            total=${hits.length}
            items=${hits}
            start=${start >= 0 ? start : undefined}
            caption=${44}
            move=${(/** @type {any} */ own) => setAt(own.image)}
            tile=${(/** @type {any} */ own) => html`
              <div class=${`pair ${own.verdict}`}>
                <${Picture} class="crop" src=${cropAddress(own.image, own.box, "hit", stamp)} alt=${`hit no. ${own.rank}`} />
                ${own.failure &&
                html`<${Picture}
                  class="inset"
                  src=${cropAddress(own.failure.image, own.failure.box, own.failure.kind, stamp, 96)}
                  alt="the failure that asked"
                />`}
                ${own.verdict !== "open" && html`<span class=${`stamp ${own.verdict}`}>${own.verdict === "accepted" ? "✓" : "✕"}</span>`}
              </div>
              <p class="caption"><b>no. ${own.rank}</b><span class="figure">${number(own.score)}</span></p>
              <p class="caption quiet">${own.group}</p>
            `}
          />`
        : html`<${Nothing} title="Nothing here">No hit of this selection is like that.<//>`}
      <${Keys} of=${[["←↑↓→", "move"], ["a", "accept"], ["x", "reject"], ["Ctrl Z", "undo"], ["z 0 + -", "zoom"]]} />
    </section>
    ${hit && html`<${Detail} key=${hit.image} hit=${hit} say=${say} stamp=${stamp} />`}
  </div>`;
}
