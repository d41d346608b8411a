// A value that comes from the server: loading, there, or refused.
import { useEffect, useState } from "./html.js";
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
      (value) => set({ path, value, error: "" }),
      (error) => stop.signal.aborted || set({ path, value: null, error: error.message }),
    );
    return () => stop.abort();
  }, [path, turn]);
  return { value: state.value, error: state.error, again: () => setTurn((own) => own + 1) };
}

/** @param {(event: KeyboardEvent) => void} act @param {unknown[]} on */
export function useKeys(act, on) {
  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const listen = (event) => {
      const at = /** @type {HTMLElement} */ (event.target);
      if (at.closest("input:not([type=range]), select, textarea") || event.metaKey || event.altKey) return;
      if (event.ctrlKey) return;
      act(event);
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, on);
}
