// An image with zoom and pan; boxes, a heat map and names lie over it in image pixels.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { fit, fitBox, toScreen, zoomAt } from "./geometry.js";
import { useKeys } from "./load.js";

/**
 * @typedef {{box: number[], look: string, text?: string, title?: string, dashed?: boolean, id?: unknown}} Mark
 * @param {{
 *   src: string, alt: string, width: number, height: number, marks: Mark[],
 *   heat?: string | null, opacity?: number, about?: number[] | null,
 * }} props `about`: the box that a double click and the key z go to
 */
export function Viewer({ src, alt, width, height, marks, heat = null, opacity = 0, about = null }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const [size, setSize] = useState({ w: 800, h: 600 });
  const [view, setView] = useState(fit(width, height, 800, 600));
  const [gone, setGone] = useState(false);
  const drag = useRef(/** @type {{x: number, y: number} | null} */ (null));
  const least = fit(width, height, size.w, size.h).scale * 0.5;

  useLayoutEffect(() => {
    const own = /** @type {HTMLElement} */ (frame.current);
    const measure = () => {
      const next = { w: own.clientWidth, h: own.clientHeight };
      setSize(next);
      setView(fit(width, height, next.w, next.h));
    };
    const watch = new ResizeObserver(measure);
    watch.observe(own);
    measure();
    setGone(false);
    return () => watch.disconnect();
  }, [src]);

  useEffect(() => {
    const own = /** @type {HTMLElement} */ (frame.current);
    /** @param {WheelEvent} event */
    const wheel = (event) => {
      event.preventDefault();
      const at = own.getBoundingClientRect();
      const factor = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016));
      setView((now) => zoomAt(now, factor, event.clientX - at.left, event.clientY - at.top, least));
    };
    own.addEventListener("wheel", wheel, { passive: false });
    return () => own.removeEventListener("wheel", wheel);
  }, [least]);

  /** @param {number} factor */
  const zoom = (factor) => setView((now) => zoomAt(now, factor, size.w / 2, size.h / 2, least));
  const whole = () => setView(fit(width, height, size.w, size.h));
  const near = () => about && setView(fitBox(/** @type {any} */ (about), size.w, size.h));

  useKeys((event) => {
    if (event.key === "+" || event.key === "=") zoom(1.3);
    else if (event.key === "-") zoom(1 / 1.3);
    else if (event.key === "0") whole();
    else if (event.key === "z") near();
  });

  const place = {
    width: `${width}px`,
    height: `${height}px`,
    transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})`,
  };
  return html`<div class="viewer">
    <div
      class=${`frame ${view.scale > 8 ? "pixels" : ""}`}
      ref=${frame}
      onPointerDown=${(/** @type {any} */ event) => {
        if (event.button) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        drag.current = { x: event.clientX, y: event.clientY };
      }}
      onPointerMove=${(/** @type {any} */ event) => {
        const from = drag.current;
        if (!from) return;
        drag.current = { x: event.clientX, y: event.clientY };
        setView((now) => ({ ...now, x: now.x + event.clientX - from.x, y: now.y + event.clientY - from.y }));
      }}
      onPointerUp=${() => (drag.current = null)}
      onPointerCancel=${() => (drag.current = null)}
      onDblClick=${near}
    >
      ${gone
        ? html`<p class="gone">The image can no longer be read.</p>`
        : html`<div class="plane" style=${place}>
            <img src=${src} alt=${alt} draggable=${false} onError=${() => setGone(true)} />
            ${heat &&
            html`<img class="heat" src=${heat} alt="" draggable=${false} style=${{ opacity: String(opacity) }} />`}
          </div>`}
      <svg class="marks" aria-hidden="true">
        ${marks.map((mark) => {
          const [x, y] = toScreen(view, mark.box[0], mark.box[1]);
          const [x2, y2] = toScreen(view, mark.box[2], mark.box[3]);
          return html`<g class=${`mark mark-${mark.look} ${mark.dashed ? "dashed" : ""}`}>
            <rect class="under" x=${x} y=${y} width=${x2 - x} height=${y2 - y} />
            <rect x=${x} y=${y} width=${x2 - x} height=${y2 - y}>
              ${mark.title && html`<title>${mark.title}</title>`}
            </rect>
          </g>`;
        })}
      </svg>
      ${marks
        .filter((mark) => mark.text)
        .map((mark) => {
          const [x, y] = toScreen(view, mark.box[0], mark.box[1]);
          return html`<span
            class=${`tag tag-${mark.look}`}
            style=${{ transform: `translate(${Math.round(x - 1)}px, ${Math.round(y)}px) translateY(-100%)` }}
            >${mark.text}</span
          >`;
        })}
    </div>
    <div class="zoom" role="group" aria-label="Zoom">
      <button onClick=${() => zoom(1.3)} aria-label="Zoom in" title="Zoom in (+)">+</button>
      <button onClick=${() => zoom(1 / 1.3)} aria-label="Zoom out" title="Zoom out (-)">−</button>
      <button onClick=${whole} aria-label="Whole image" title="Whole image (0)">⤢</button>
      ${about &&
      html`<button onClick=${near} aria-label="Zoom to the box" title="Zoom to the box (z)">◎</button>`}
      <span class="scale">${Math.round(view.scale * 100)}%</span>
    </div>
  </div>`;
}
