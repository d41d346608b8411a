// Boxes: edit the labels of an image. Changes are made here, and saved as a new version by one request.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../js/html.js";
import { drawn, fit, moved, pick, resized, toImage, toScreen, zoomAt } from "../js/geometry.js";
import { useKeys, useLoaded } from "../js/load.js";
import { Failed, Keys, Nothing } from "../js/parts.js";
import { leaving } from "../js/router.js";
import { change } from "../js/undo.js";
import { moment, plural, size } from "../js/words.js";

const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

/** @typedef {{class: string, box: [number, number, number, number], of: number | null, crowd?: boolean}} Own */
/** @typedef {{boxes: Own[], at: number}} State */

/** @param {Own["box"]} box @param {string} handle @returns {[number, number]} */
function handleAt([x1, y1, x2, y2], handle) {
  return [
    handle.includes("w") ? x1 : handle.includes("e") ? x2 : (x1 + x2) / 2,
    handle.includes("n") ? y1 : handle.includes("s") ? y2 : (y1 + y2) / 2,
  ];
}

/** @param {any} props */
export function Boxes({ image, stamp }) {
  const [turn, setTurn] = useState(0);
  const { value, error, again } = useLoaded(Number.isInteger(image) && image > 0 ? `/labels/${image}` : null);
  if (!(Number.isInteger(image) && image > 0)) {
    return html`<${Nothing} title="Which image?">Open an image's boxes from a failure or a suspect label.<//>`;
  }
  if (error) return html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  const anew = () => {
    setTurn(turn + 1);
    again();
  };
  return html`<${Editor} key=${`${image} ${value.version} ${turn}`} value=${value} again=${anew} stamp=${stamp} />`;
}

/** @param {any} props */
function Editor({ value, again, stamp }) {
  const { width, height } = value;
  const [past, setPast] = useState(/** @type {State[]} */ ([]));
  const [future, setFuture] = useState(/** @type {State[]} */ ([]));
  const [now, setNow] = useState(/** @type {State} */ ({ boxes: value.boxes, at: -1 }));
  const [name, setName] = useState(value.boxes[0]?.class ?? value.classes[0] ?? "");
  const [drawing, setDrawing] = useState(false);
  const [view, setView] = useState(fit(width, height, 800, 600));
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const drag = useRef(/** @type {any} */ (null));
  const [ghost, setGhost] = useState(/** @type {Own["box"] | null} */ (null));
  const [refused, setRefused] = useState(false);
  const changed = past.length > 0;
  const own = now.boxes[now.at];

  useEffect(() => {
    document.title = `Boxes of ${value.name} · curator review`;
  }, []);
  useEffect(() => {
    /** @param {BeforeUnloadEvent} event */
    const ask = (event) => changed && event.preventDefault();
    addEventListener("beforeunload", ask);
    leaving.ask = changed ? () => confirm("Leave this page? The edited boxes were not saved.") : null;
    return () => {
      removeEventListener("beforeunload", ask);
      leaving.ask = null;
    };
  }, [changed]);
  useLayoutEffect(() => {
    const at = /** @type {HTMLElement} */ (frame.current);
    const measure = () => setView(fit(width, height, at.clientWidth, at.clientHeight));
    const watch = new ResizeObserver(measure);
    watch.observe(at);
    /** @param {WheelEvent} event */
    const wheel = (event) => {
      event.preventDefault();
      const place = at.getBoundingClientRect();
      const least = fit(width, height, at.clientWidth, at.clientHeight).scale * 0.5;
      setView((v) => zoomAt(v, Math.exp(-event.deltaY * 0.0016), event.clientX - place.left, event.clientY - place.top, least));
    };
    at.addEventListener("wheel", wheel, { passive: false });
    return () => {
      watch.disconnect();
      at.removeEventListener("wheel", wheel);
    };
  }, []);

  /** @param {State} next @param {State} [from] */
  const put = (next, from = now) => {
    setPast([...past, from]);
    setFuture([]);
    setNow(next);
  };
  /** @param {number} i @param {Partial<Own>} how */
  const altered = (i, how) => ({ ...now, boxes: now.boxes.map((b, k) => (k === i ? { ...b, ...how } : b)) });
  const back = () => {
    if (!past.length) return;
    setFuture([now, ...future]);
    setNow(past[past.length - 1]);
    setPast(past.slice(0, -1));
  };
  const forth = () => {
    if (!future.length) return;
    setPast([...past, now]);
    setNow(future[0]);
    setFuture(future.slice(1));
  };
  const remove = () => own && put({ boxes: now.boxes.filter((_, k) => k !== now.at), at: -1 });
  /** @param {string} next */
  const rename = (next) => {
    setName(next);
    if (own && own.class !== next) put(altered(now.at, { class: next }));
  };
  const save = () =>
    change(
      `/labels/${value.image}`,
      { base: value.version, boxes: now.boxes.map((b) => ({ class: b.class, box: b.box, of: b.of })) },
      `labels of ${value.name} saved`,
      (well) => (well ? again() : setRefused(true)), // what was edited stays where it was refused
    );

  /** @param {any} event @returns {[number, number]} */
  const point = (event) => {
    const place = /** @type {HTMLElement} */ (frame.current).getBoundingClientRect();
    return toImage(view, event.clientX - place.left, event.clientY - place.top);
  };
  /** @param {any} event */
  const down = (event) => {
    if (event.button) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    const from = point(event);
    const handle = event.target.dataset?.handle;
    if (drawing) drag.current = { what: "draw", from };
    else if (handle && own) drag.current = { what: "resize", handle, from, before: now };
    else {
      const hit = pick(now.boxes.map((b) => b.box), from[0], from[1]);
      if (hit >= 0) {
        setNow({ ...now, at: hit });
        setName(now.boxes[hit].class);
        drag.current = { what: "move", from, before: { ...now, at: hit } };
      } else {
        setNow({ ...now, at: -1 });
        drag.current = { what: "pan", x: event.clientX, y: event.clientY };
      }
    }
  };
  /** @param {any} event */
  const move = (event) => {
    const own = drag.current;
    if (!own) return;
    if (own.what === "pan") {
      const [dx, dy] = [event.clientX - own.x, event.clientY - own.y];
      [own.x, own.y] = [event.clientX, event.clientY];
      setView((v) => ({ ...v, x: v.x + dx, y: v.y + dy }));
      return;
    }
    const to = point(event);
    if (own.what === "draw") {
      setGhost(drawn(own.from, to, width, height));
      return;
    }
    const [dx, dy] = [to[0] - own.from[0], to[1] - own.from[1]];
    own.moved = own.moved || Math.hypot(dx, dy) * view.scale > 2;
    if (!own.moved) return;
    const { boxes, at } = own.before;
    const box = own.what === "move" ? moved(boxes[at].box, dx, dy, width, height) : resized(boxes[at].box, own.handle, dx, dy, width, height);
    setNow({ at, boxes: boxes.map((/** @type {Own} */ b, /** @type {number} */ k) => (k === at ? { ...b, box } : b)) });
  };
  const up = () => {
    const own = drag.current;
    drag.current = null;
    if (own?.what === "draw") {
      if (ghost) put({ boxes: [...now.boxes, { class: name, box: ghost, of: null }], at: now.boxes.length });
      setGhost(null);
      setDrawing(false);
    } else if (own?.moved) {
      setPast([...past, own.before]);
      setFuture([]);
    }
  };

  useKeys(
    (event) => {
      if (event.key.toLowerCase() !== "z" || (event.shiftKey ? !future.length : !past.length)) return;
      event.preventDefault(); // the page's own undo is for what was saved
      event.stopPropagation();
      if (event.shiftKey) forth();
      else back();
    },
    { held: true, capture: true },
  );
  useKeys(
    (event) => {
      /** @type {Record<string, [number, number]>} */
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const far = event.shiftKey ? 10 : 1;
      if (event.key >= "1" && event.key <= "9") {
        const chosen = value.classes[Number(event.key) - 1];
        if (chosen) rename(chosen);
      } else if (event.key === "n") setDrawing(!drawing);
      else if (event.key === "x" || event.key === "Delete") remove();
      else if (event.key === "s" && changed) save();
      else if (event.key === "Escape") {
        setDrawing(false);
        setNow({ ...now, at: -1 });
      } else if (event.key === "j" || event.key === "k") {
        const n = now.boxes.length;
        if (n) setNow({ ...now, at: (now.at + (event.key === "j" ? 1 : n - 1) + (now.at < 0 && event.key === "k" ? 1 : 0)) % n });
      } else if (event.key in steps && own) {
        event.preventDefault();
        const [dx, dy] = steps[event.key];
        put(altered(now.at, { box: moved(own.box, dx * far, dy * far, width, height) }));
      }
    },
  );

  const shape = (/** @type {Own["box"]} */ box) => {
    const [x, y] = toScreen(view, box[0], box[1]);
    const [x2, y2] = toScreen(view, box[2], box[3]);
    return { x, y, width: x2 - x, height: y2 - y };
  };
  return html`<div class="one">
    <section class="stage-of" aria-label="Image">
      <div class="bar">
        <button onClick=${() => history.back()}>‹ Back</button>
        <h1>Boxes of ${value.name}</h1>
        <span class="grow"></span>
        <button disabled=${!past.length} onClick=${back} title="Ctrl+Z">Undo edit</button>
        <button disabled=${!future.length} onClick=${forth} title="Ctrl+Shift+Z">Redo</button>
        <button aria-pressed=${drawing ? "true" : "false"} onClick=${() => setDrawing(!drawing)} title="n">Draw a box</button>
        <button class="primary" disabled=${!changed} onClick=${save} title="s">Save</button>
      </div>
      ${refused &&
      html`<p class="note" role="alert">
        It was not saved; your edits are still here.
        <button class="small" onClick=${again}>Drop them and load the newest labels</button>
      </p>`}
      <div class="viewer">
        <div
          class=${`frame edit ${drawing ? "drawing" : ""}`}
          ref=${frame}
          onPointerDown=${down}
          onPointerMove=${move}
          onPointerUp=${up}
          onPointerCancel=${up}
        >
          <div
            class="plane"
            style=${{ width: `${width}px`, height: `${height}px`, transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})` }}
          >
            <img src=${`/api/images/${value.image}/picture?v=${stamp}`} alt=${value.name} draggable=${false} />
          </div>
          <svg class="marks" role="img" aria-label=${plural(now.boxes.length, "box", "boxes")}>
            ${now.boxes.map(
              (b, i) => html`<g class=${`mark mark-truth ${i === now.at ? "chosen" : ""} ${b.crowd ? "dashed" : ""}`}>
                <rect class="under" ...${shape(b.box)} /><rect ...${shape(b.box)} />
              </g>`,
            )}
            ${ghost && html`<g class="mark mark-hit dashed"><rect ...${shape(ghost)} /></g>`}
            ${own &&
            !drawing &&
            HANDLES.map((handle) => {
              const [x, y] = toScreen(view, ...handleAt(own.box, handle));
              return html`<rect class=${`handle ${handle}`} data-handle=${handle} x=${x - 5} y=${y - 5} width="10" height="10" rx="2" />`;
            })}
          </svg>
          ${now.boxes.map((b, i) => {
            const at = shape(b.box);
            return html`<span
              class=${`tag ${i === now.at ? "tag-hit" : "tag-truth"}`}
              style=${{ transform: `translate(${Math.round(at.x - 1)}px, ${Math.round(at.y)}px) translateY(-100%)` }}
              >${b.class}</span
            >`;
          })}
        </div>
      </div>
      <${Keys}
        of=${[["1–9", "class"], ["n", "draw"], ["x", "delete"], ["←↑↓→", "move"], ["j k", "choose"], ["s", "save"], ["Ctrl Z", "undo"]]}
      />
    </section>
    <aside class="side" aria-label="Labels">
      <section>
        <h2>Class ${own ? "of the chosen box" : "of the next box"}</h2>
        <div class="classes">
          ${value.classes.map(
            (/** @type {string} */ c, /** @type {number} */ i) => html`<button
              class="choice"
              aria-pressed=${c === (own ? own.class : name) ? "true" : "false"}
              onClick=${() => rename(c)}
            >
              ${c}${i < 9 && html`<span class="number"><kbd>${i + 1}</kbd></span>`}
            </button>`,
          )}
        </div>
      </section>
      <section>
        <h2>${plural(now.boxes.length, "box", "boxes")}</h2>
        ${now.boxes.map(
          (b, i) => html`<button class="choice" aria-pressed=${i === now.at ? "true" : "false"} onClick=${() => setNow({ ...now, at: i })}>
            ${b.class}<span class="number">${size(b.box)}</span>
          </button>`,
        )}
        ${!now.boxes.length && html`<p class="quiet">No objects in this image.</p>`}
        <button class="small" disabled=${!own} onClick=${remove}>Delete the chosen box</button>
      </section>
      <section>
        <h2>Versions</h2>
        ${value.versions.map(
          (/** @type {any} */ v) => html`<div class="version">
            <span
              ><b>${v.version}</b> · ${plural(v.objects, "box", "boxes")}<br /><span class="quiet small"
                >${v.author || v.stage}, ${moment(v.made)}</span
              ></span
            >
            ${v.version !== value.version &&
            html`<button
              class="small"
              onClick=${() =>
                change(`/labels/${value.image}/back`, { base: value.version, version: v.version }, `went back to version ${v.version}`, again)}
            >
              Go back to it
            </button>`}
          </div>`,
        )}
        ${!value.versions.length && html`<p class="quiet">Not labelled yet.</p>`}
        <p class="quiet small">Edited labels count from the next <code>curator diagnose</code> on.</p>
      </section>
    </aside>
  </div>`;
}
