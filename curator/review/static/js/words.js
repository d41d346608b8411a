// How numbers and nouns are written.

/** @type {Record<string, string>} */
export const KINDS = { FN: "missed", FP: "false alarm", TP: "found" };

/** @param {number} value */
export function count(value) {
  return value.toLocaleString("en-US");
}

/** @param {number | null | undefined} value @param {number} [digits] */
export function number(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/** @param {number[]} box */
export function size(box) {
  return `${Math.round(box[2] - box[0])} × ${Math.round(box[3] - box[1])} px`;
}

/** The same where there is little room. @param {number[]} box */
export function sides(box) {
  return `${Math.round(box[2] - box[0])}×${Math.round(box[3] - box[1])}`;
}

/** @param {number | null} seconds */
export function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** @param {string} iso */
export function moment(iso) {
  return iso.slice(0, 16).replace("T", " ");
}

/** @param {number} n @param {string} one @param {string} [many] */
export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}
