// The view library in one place: Preact with htm templates, no build step.
import { h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { render };
export { useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback } from "../vendor/hooks.js";
export { signal, computed, effect } from "../vendor/signals.js";
export const html = htm.bind(h);
