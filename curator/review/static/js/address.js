// The address of the page: path and query, as plain values; no browser is needed to test it.

/** @typedef {Record<string, string[]>} Query */

/**
 * @param {string} search "?a=1&a=2"
 * @returns {Query}
 */
export function parseQuery(search) {
  /** @type {Query} */
  const found = {};
  for (const [name, value] of new URLSearchParams(search)) {
    if (name === "token" || value === "") continue;
    (found[name] ??= []).push(value);
  }
  return found;
}

/**
 * @param {Query} query empty values are left out; names and values come in a fixed order
 * @returns {string} "" or "?..."
 */
export function formatQuery(query) {
  const params = new URLSearchParams();
  for (const name of Object.keys(query).sort()) {
    for (const value of query[name]) if (value !== "") params.append(name, value);
  }
  const text = params.toString();
  return text ? `?${text}` : "";
}

/**
 * @param {Query} query @param {string} name @param {string} value
 * @returns {Query} with the value added, or taken away where it was there
 */
export function toggled(query, name, value) {
  const now = query[name] ?? [];
  const next = now.includes(value) ? now.filter((own) => own !== value) : [...now, value];
  return { ...query, [name]: next };
}

/**
 * @param {Query} query @param {string} name @param {string[]} values
 * @returns {Query}
 */
export function having(query, name, values) {
  return { ...query, [name]: values };
}

/**
 * @param {Query} query @param {string[]} names
 * @returns {Query} those names alone
 */
export function only(query, names) {
  return Object.fromEntries(Object.entries(query).filter(([name]) => names.includes(name)));
}
