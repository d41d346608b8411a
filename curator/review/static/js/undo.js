// Changes and their undoing. A change answers with the POST that takes it back; this page remembers those.
import { post } from "./api.js";
import { signal } from "./html.js";

/** @typedef {{path: string, body: unknown}} Post */
/** @typedef {{said: string, undo: Post, after: (well: boolean) => void}} Done */

/** @type {{value: Done[]}} */
export const done = signal([]);
/** @type {{value: {text: string, bad: boolean, undoable: boolean} | null}} */
export const notice = signal(null);

let timer = 0;

/** @param {string} text @param {{bad?: boolean, undoable?: boolean}} [how] */
export function tell(text, { bad = false, undoable = false } = {}) {
  clearTimeout(timer);
  notice.value = { text, bad, undoable };
  timer = window.setTimeout(() => (notice.value = null), bad ? 12000 : 6000);
}

/**
 * Post a change and remember how it is undone.
 * @param {string} path @param {unknown} body @param {string} said in the past tense
 * @param {(well: boolean) => void} after called whether it was taken or refused
 * @returns {Promise<any>} null where it was refused: the person has been told
 */
export async function change(path, body, said, after) {
  try {
    const answer = await post(path, body);
    if (answer.undo) done.value = [...done.value, { said, undo: answer.undo, after }].slice(-100);
    tell(said ? said[0].toUpperCase() + said.slice(1) : answer.said, { undoable: Boolean(answer.undo) });
    after(true);
    return answer;
  } catch (error) {
    tell(/** @type {Error} */ (error).message, { bad: true });
    after(false);
    return null;
  }
}

export async function undo() {
  const last = done.value.at(-1);
  if (!last) return;
  done.value = done.value.slice(0, -1);
  try {
    await post(last.undo.path, last.undo.body);
    tell(`Undone: ${last.said}`);
  } catch (error) {
    tell(`Not undone: ${/** @type {Error} */ (error).message}`, { bad: true });
  }
  last.after(true);
}
