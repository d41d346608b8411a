// The frame of the page: tabs, what is shown for which address, notices and undo.
import { html, render } from "./html.js";
import { path, A } from "./router.js";
import { done, notice, undo } from "./undo.js";
import { useKeys, useLoaded } from "./load.js";
import { Jobs } from "./jobs.js";
import { Overview } from "../pages/overview.js";
import { Failures } from "../pages/failures.js";
import { Failure } from "../pages/failure.js";
import { Map } from "../pages/map.js";
import { Queries } from "../pages/queries.js";
import { Samples } from "../pages/samples.js";
import { Suspects } from "../pages/suspects.js";
import { Boxes } from "../pages/boxes.js";
import { Proof } from "../pages/proof.js";

const TABS = [
  ["/", "Overview"],
  ["/failures", "Failures"],
  ["/map", "Map"],
  ["/queries", "Queries"],
  ["/samples", "Samples"],
  ["/suspects", "Suspect labels"],
  ["/proof", "Proof"],
];

/** @param {any} props */
function Page({ at, stamp }) {
  const [, page, more] = at.split("/");
  if (page === "failures" && more) return html`<${Failure} key=${more} number=${Number(more)} stamp=${stamp} />`;
  if (page === "failures") return html`<${Failures} stamp=${stamp} />`;
  if (page === "map") return html`<${Map} stamp=${stamp} />`;
  if (page === "queries") return html`<${Queries} stamp=${stamp} />`;
  if (page === "samples") return html`<${Samples} stamp=${stamp} />`;
  if (page === "suspects") return html`<${Suspects} stamp=${stamp} />`;
  if (page === "boxes") return html`<${Boxes} key=${more} image=${Number(more)} stamp=${stamp} />`;
  if (page === "proof") return html`<${Proof} stamp=${stamp} />`;
  return html`<${Overview} />`;
}

function Notice() {
  const own = notice.value;
  return html`<div class="notices" role="status" aria-live="polite">
    ${own &&
    html`<div class=${`notice ${own.bad ? "bad" : ""}`}>
      <span>${own.text}</span>
      ${own.undoable && done.value.length > 0 && html`<button onClick=${undo}>Undo</button>`}
      <button class="quiet" aria-label="Close" onClick=${() => (notice.value = null)}>×</button>
    </div>`}
  </div>`;
}

function App() {
  const about = useLoaded("/about");
  useKeys(
    (event) => {
      if (event.key !== "z" || event.shiftKey || event.defaultPrevented) return;
      event.preventDefault();
      undo();
    },
    { held: true },
  );
  const at = path.value;
  const last = done.value.at(-1);
  return html`<header class="top">
      <a class="skip" href="#main">Skip to the page</a>
      <${A} href="/" class="mark-of"
        ><img src="/static/icon.svg" alt="" width="22" height="22" /> curator <b>review</b><//
      >
      <nav aria-label="Pages">
        ${TABS.map(([href, text]) => {
          const here = href === "/" ? at === "/" : at.startsWith(href);
          return html`<${A} href=${href} class="tab" aria-current=${here ? "page" : undefined}>${text}<//>`;
        })}
      </nav>
      <span class="grow"></span>
      ${about.value &&
      html`<span class="where" title=${about.value.workspace}
        >${about.value.name} · ${about.value.author}</span
      >`}
      <button
        class="small"
        disabled=${!last}
        onClick=${undo}
        title=${last ? `Undo: ${last.said} (Ctrl+Z)` : "Nothing to undo"}
      >
        Undo
      </button>
    </header>
    <main id="main" tabindex="0">
      ${about.error
        ? html`<div class="failed" role="alert"><p>${about.error}</p></div>`
        : about.value && html`<${Page} at=${at} stamp=${about.value.stamp} />`}
    </main>
    <${Jobs} />
    <${Notice} />`;
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.textContent = "";
render(html`<${App} />`, root);
