// Where the page is, as signals; links move without loading the page anew.
import { html, signal } from "./html.js";
import { parseQuery, formatQuery } from "./address.js";

export const path = signal(location.pathname);
export const query = signal(parseQuery(location.search));

if (new URLSearchParams(location.search).has("token")) {
  // The cookie holds the token from here on; addresses that are copied must not.
  history.replaceState(null, "", location.pathname + formatQuery(query.value));
}

/** Asks before edits are left that were not saved; null where there are none. @type {{ask: (() => boolean) | null}} */
export const leaving = { ask: null };

function read() {
  path.value = location.pathname;
  query.value = parseQuery(location.search);
}

let here = location.href;
addEventListener("popstate", () => {
  if (leaving.ask && !leaving.ask()) {
    history.pushState(null, "", here);
    return;
  }
  here = location.href;
  read();
});

/** @param {string} to @param {{replace?: boolean}} [how] */
export function go(to, how = {}) {
  if (leaving.ask && !leaving.ask()) return;
  history[how.replace ? "replaceState" : "pushState"](null, "", to);
  here = location.href;
  read();
}

/** @param {import("./address.js").Query} next @param {{replace?: boolean}} [how] */
export function goQuery(next, how = {}) {
  go(location.pathname + formatQuery(next), how);
}

/** A link within the page. @param {any} props */
export function A({ href, children, ...more }) {
  /** @param {MouseEvent} event */
  const follow = (event) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(href);
  };
  return html`<a href=${href} onClick=${follow} ...${more}>${children}</a>`;
}
