// Small parts that several pages use.
import { html, useState } from "./html.js";
import { KINDS } from "./words.js";

/** @param {any} props */
export function Kind({ kind }) {
  return html`<span class="kind kind-${kind}">${KINDS[kind] ?? kind}</span>`;
}

/** @param {any} props */
export function Failed({ text, again }) {
  return html`<div class="failed" role="alert">
    <p>${text}</p>
    ${again && html`<button onClick=${again}>Try again</button>`}
  </div>`;
}

/** @param {any} props */
export function Nothing({ title, children }) {
  return html`<div class="nothing"><h2>${title}</h2><div>${children}</div></div>`;
}

/** A command that can be copied. @param {any} props */
export function Command({ text }) {
  const [copied, set] = useState(false);
  const copy = () =>
    navigator.clipboard.writeText(text).then(
      () => {
        set(true);
        setTimeout(() => set(false), 1500);
      },
      () => {},
    );
  return html`<span class="command">
    <code>${text}</code>
    <button class="small" onClick=${copy} aria-label="Copy the command">${copied ? "Copied" : "Copy"}</button>
  </span>`;
}

/** A picture that may be gone. @param {any} props */
export function Picture({ src, alt, ...more }) {
  const [gone, set] = useState("");
  if (gone === src) return html`<span class="gone" title=${alt}>cannot be read</span>`;
  return html`<img
    src=${src}
    alt=${alt}
    decoding="async"
    draggable=${false}
    onError=${() => set(src)}
    ...${more}
  />`;
}

/** A button that is on or off. @param {any} props */
export function Choice({ on, count, children, ...more }) {
  return html`<button class="choice" aria-pressed=${on ? "true" : "false"} ...${more}>
    ${children}${count !== undefined && html`<span class="number">${count}</span>`}
  </button>`;
}

/** @param {any} props */
export function Keys({ of }) {
  return html`<p class="keys">
    ${of.map((/** @type {[string, string]} */ [key, what]) => html`<span><kbd>${key}</kbd> ${what}</span>`)}
  </p>`;
}
