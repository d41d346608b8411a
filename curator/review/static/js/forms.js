// Forms that start jobs: a button that opens a few fields.
import { html, useEffect, useState } from "./html.js";
import { get } from "./api.js";
import { jobs, start } from "./jobs.js";

/**
 * @typedef {{name: string, label: string, value: any, kind?: "number" | "text" | "choice" | "choices",
 *   of?: string[], hint?: string, most?: number}} FieldOf
 */

/** The first of NAME, NAME-2, NAME-3, ... that is free. @param {string} name @param {string[]} taken */
export function free(name, taken) {
  let own = name;
  for (let number = 2; taken.includes(own); number += 1) own = `${name}-${number}`;
  return own;
}

/** @param {any} props */
function Field({ field, value, set, list }) {
  const change = (/** @type {any} */ event) =>
    set(field.kind === "number" ? Number(event.currentTarget.value) : event.currentTarget.value);
  if (field.kind === "choice") {
    return html`<label class="field"
      >${field.label}
      <select value=${value} onChange=${change}>
        ${field.of.map((/** @type {string} */ name) => html`<option value=${name}>${name}</option>`)}
      </select></label
    >`;
  }
  if (field.kind === "choices") {
    return html`<fieldset class="checks">
      <legend>${field.label}</legend>
      ${field.of.map(
        (/** @type {string} */ name) => html`<label
          ><input
            type="checkbox"
            checked=${value.includes(name)}
            onChange=${() => set(value.includes(name) ? value.filter((/** @type {string} */ n) => n !== name) : [...value, name])}
          />
          ${name}</label
        >`,
      )}
      ${!field.of.length && html`<span class="quiet small">none yet</span>`}
    </fieldset>`;
  }
  return html`<label class="field"
    >${field.label}
    <input
      type=${field.kind === "number" ? "number" : "text"}
      min=${field.kind === "number" ? 1 : undefined}
      max=${field.most}
      required=${field.kind === "number" || field.name === "name"}
      value=${value}
      list=${list}
      placeholder=${field.hint}
      onInput=${change}
    />
    ${field.of && html`<datalist id=${list}>${field.of.map((/** @type {string} */ name) => html`<option value=${name}></option>`)}</datalist>`}
  </label>`;
}

/**
 * @param {{kind: string, title: string, submit: string, note?: any, primary?: boolean,
 *   fields: (choices: any) => FieldOf[], asked: (values: any, choices: any) => any}} props
 */
export function JobForm({ kind, title, submit, note, fields, asked, primary }) {
  const [choices, setChoices] = useState(/** @type {any} */ (null));
  const [values, setValues] = useState(/** @type {any} */ ({}));
  const [open, setOpen] = useState(false);
  useEffect(() => {
    if (!open) return;
    get("/jobs/choices").then(
      (found) => {
        setValues(Object.fromEntries(fields(found).map((field) => [field.name, field.value])));
        setChoices(found);
      },
      () => setOpen(false),
    );
  }, [open]);
  const busy = jobs.value[0]?.state === "running";
  const close = () => {
    setOpen(false);
    setChoices(null);
  };
  if (!open) {
    return html`<button
      class=${primary ? "primary" : ""}
      disabled=${busy}
      title=${busy ? "A job is running" : submit}
      onClick=${() => setOpen(true)}
    >
      ${title}
    </button>`;
  }
  if (!choices) return html`<span class="busy" role="status">Loading…</span>`;
  return html`<form
    class="ask"
    aria-label=${title}
    onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Escape" && close()}
    onSubmit=${async (/** @type {Event} */ event) => {
      event.preventDefault();
      if (await start(kind, asked(values, choices))) close();
    }}
  >
    <h2>${submit}</h2>
    ${fields(choices).map(
      (field) => html`<${Field}
        field=${field}
        list=${`${kind}-${field.name}`}
        value=${values[field.name]}
        set=${(/** @type {any} */ value) => setValues({ ...values, [field.name]: value })}
      />`,
    )}
    ${note && html`<p class="quiet small">${note}</p>`}
    <div class="judge">
      <button class="primary" type="submit">Start</button>
      <button type="button" onClick=${close}>Close</button>
    </div>
  </form>`;
}
