// Failures: a grid of crops, filtered by what stands in the address.
import { html, useEffect, useMemo } from "../js/html.js";
import { get, cropAddress } from "../js/api.js";
import { Grid } from "../js/grid.js";
import { useLoaded } from "../js/load.js";
import { Choice, Failed, Keys, Nothing, Picture } from "../js/parts.js";
import { go, goQuery, query } from "../js/router.js";
import { formatQuery, having, only, toggled } from "../js/address.js";
import { count, KINDS, number, sides } from "../js/words.js";

export const FILTER = ["kind", "cause", "class", "sort"];
const SORTS = [
  ["score", "highest score"],
  ["-score", "lowest score"],
  ["size", "largest"],
  ["-size", "smallest"],
  ["iou", "nearest label"],
  ["image", "image"],
];

/** @param {any} props */
function Filters({ counts, filter }) {
  const kinds = filter.kind ?? [];
  const causes = filter.cause ?? [];
  const classes = filter.class ?? [];
  /** @param {(own: any) => boolean} test */
  const sum = (test) => counts.filter(test).reduce((/** @type {number} */ n, /** @type {any} */ own) => n + own.number, 0);
  const ofKind = (/** @type {any} */ own) => (kinds.length ? kinds.includes(own.kind) : own.kind !== "TP");
  const ofCause = (/** @type {any} */ own) => !causes.length || causes.includes(own.cause);
  const ofClass = (/** @type {any} */ own) => !classes.length || classes.includes(own.class);
  const named = (/** @type {string} */ name, /** @type {(own: any) => boolean} */ test) =>
    [...new Set(counts.filter(test).map((/** @type {any} */ own) => own[name]).filter(Boolean))].sort();
  const part = (/** @type {string} */ title, /** @type {any} */ children) =>
    html`<fieldset><legend>${title}</legend>${children}</fieldset>`;
  const active = kinds.length + causes.length + classes.length;
  return html`<aside class="filters" aria-label="Filters">
    ${part(
      "Kind",
      ["FN", "FP", "TP"].map(
        (kind) => html`<${Choice}
          on=${kinds.includes(kind)}
          count=${count(sum((own) => own.kind === kind && ofClass(own)))}
          onClick=${() => goQuery({ ...toggled(filter, "kind", kind), cause: [] })}
          ><span class=${`swatch kind-${kind}`}></span>${KINDS[kind]}<//
        >`,
      ),
    )}
    ${part(
      "Cause",
      named("cause", ofKind).map(
        (cause) => html`<${Choice}
          on=${causes.includes(/** @type {string} */ (cause))}
          count=${count(sum((own) => ofKind(own) && own.cause === cause && ofClass(own)))}
          onClick=${() => goQuery(toggled(filter, "cause", /** @type {string} */ (cause)))}
          >${cause}<//
        >`,
      ),
    )}
    ${part(
      "Class",
      named("class", ofKind).map(
        (name) => html`<${Choice}
          on=${classes.includes(/** @type {string} */ (name))}
          count=${count(sum((own) => ofKind(own) && ofCause(own) && own.class === name))}
          onClick=${() => goQuery(toggled(filter, "class", /** @type {string} */ (name)))}
          >${name}<//
        >`,
      ),
    )}
    <button class="small" disabled=${!active} onClick=${() => goQuery(only(filter, ["sort"]))}>
      Clear filters
    </button>
  </aside>`;
}

/** @param {any} props */
export function Failures({ stamp }) {
  const filter = only(query.value, FILTER);
  const address = formatQuery(filter);
  const counts = useLoaded("/failures/counts");
  const places = useLoaded(`/failures/places${address}`);
  useEffect(() => {
    document.title = "Failures · curator review";
  }, []);
  // What was asked for is what the places belong to: a new filter is a new grid.
  const grid = useMemo(() => {
    if (!places.value) return null;
    const { total, step, places: found } = places.value;
    const join = address ? "&" : "?";
    return {
      total,
      step,
      name: address,
      /** @param {number} page */
      fetchPage: async (page) =>
        (await get(`/failures${address}${join}limit=${step}&at=${found[page].join(",")}`)).failures,
    };
  }, [places.value]);
  if (counts.error || places.error) {
    return html`<${Failed} text=${counts.error || places.error} again=${places.again} />`;
  }
  if (!counts.value || !grid) return html`<p class="boot">Loading…</p>`;
  return html`<div class="split">
    <${Filters} counts=${counts.value.counts} filter=${filter} />
    <section class="results" aria-label="Failures">
      <div class="bar">
        <h1>${count(grid.total)} ${filter.kind?.length === 1 && filter.kind[0] === "TP" ? "successes" : filter.kind?.includes("TP") ? "outcomes" : grid.total === 1 ? "failure" : "failures"}</h1>
        <span class="grow"></span>
        <label
          >Sort by
          <select
            value=${filter.sort?.[0] ?? "score"}
            onChange=${(/** @type {any} */ event) => goQuery(having(filter, "sort", [event.currentTarget.value]))}
          >
            ${SORTS.map(([value, text]) => html`<option value=${value}>${text}</option>`)}
          </select></label
        >
      </div>
      ${grid.total
        ? html`<${Grid}
            key=${grid.name}
            ...${grid}
            label="Failures"
            open=${(/** @type {any} */ item) => go(`/failures/${item.id}${address}`)}
            tile=${(/** @type {any} */ item) => html`
              <${Picture}
                class="crop"
                src=${cropAddress(item.image, item.box, item.kind, stamp)}
                alt=${`${KINDS[item.kind]}: ${item.class}`}
              />
              <p class="caption">
                <span class=${`swatch kind-${item.kind}`}></span><b>${item.class}</b>
                <span class="figure">${number(item.score)}</span>
              </p>
              <p class="caption quiet">${item.cause ?? "found"} · ${sides(item.box)}</p>
            `}
          />`
        : html`<${Nothing} title="No failure matches"
            >Take a filter away, or run <code>curator diagnose</code> if nothing was diagnosed yet.<//
          >`}
      <${Keys}
        of=${[
          ["←↑↓→", "move"],
          ["Enter", "open"],
          ["Home", "first"],
          ["End", "last"],
        ]}
      />
    </section>
  </div>`;
}
