// A value that comes from the server: loading, there, or refused.
import { useEffect, useRef, useState } from "./html.js";
import { get } from "./api.js";

/**
 * @param {string | null} path below /api; null asks nothing
 * @returns {{value: any, error: string, again: () => void}} the last value stays until the next one is there
 */
export function useLoaded(path) {
  const [state, set] = useState({ path: "", value: /** @type {any} */ (null), error: "" });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return undefined;
    const stop = new AbortController();
    get(path, stop.signal).then(
      (value) => stop.signal.aborted || set({ path, value, error: "" }),
      (error) => stop.signal.aborted || set({ path, value: null, error: error.message }),
    );
    return () => stop.abort();
  }, [path, turn]);
  return { value: state.value, error: state.error, again: () => setTurn((/** @type {number} */ own) => own + 1) };
}

/**
 * Keys that are pressed anywhere on the page but in a field. What is called is always the newest `act`: keys
 * come faster than effects run.
 * @param {(event: KeyboardEvent) => void} act
 * @param {{held?: boolean, capture?: boolean}} [how] `held`: with Ctrl or Meta held, instead of without
 */
export function useKeys(act, { held = false, capture = false } = {}) {
  const newest = useRef(act);
  newest.current = act;
  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const listen = (event) => {
      const at = /** @type {HTMLElement} */ (event.target);
      if (at.closest("input:not([type=range]):not([type=checkbox]), select, textarea") || event.altKey) return;
      if ((event.ctrlKey || event.metaKey) === held) newest.current(event);
    };
    addEventListener("keydown", listen, capture);
    return () => removeEventListener("keydown", listen, capture);
  }, []);
}
