// The map: failures, found objects and boxes of the pool in two dimensions; circle some and do something with them.
import { html, useEffect, useRef, useState } from "../js/html.js";
import { cropAddress, get } from "../js/api.js";
import { useLoaded } from "../js/load.js";
import { Choice, Failed, Keys, Kind, Nothing, Picture } from "../js/parts.js";
import { A } from "../js/router.js";
import { change } from "../js/undo.js";
import { inside, nearest } from "../js/lasso.js";
import { count, plural } from "../js/words.js";
import { Ask } from "./queries.js";

const LOOKS = [
  { kind: "pool", text: "pool", colour: "--quiet", size: 1.6 },
  { kind: "TP", text: "found", colour: "--tp", size: 2.4 },
  { kind: "FP", text: "false alarms", colour: "--fp", size: 3.2 },
  { kind: "FN", text: "missed", colour: "--fn", size: 3.2 },
];
const MARGIN = 14;

/** @param {HTMLCanvasElement} canvas @param {any} value @param {string[]} shown @param {[number, number][]} loop @param {Set<number>} chosen */
function draw(canvas, value, shown, loop, chosen) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const to = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  to.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const place = scaled(canvas, value.side);
  for (const look of LOOKS) {
    if (!shown.includes(look.kind)) continue;
    const number = value.kinds.indexOf(look.kind);
    to.fillStyle = style.getPropertyValue(look.colour);
    to.globalAlpha = look.kind === "pool" ? 0.45 : 0.85;
    for (let i = 0; i < value.x.length; i += 1) {
      if (value.kind[i] !== number) continue;
      const [x, y] = place(value.x[i], value.y[i]);
      const size = chosen.has(i) ? look.size + 1.6 : look.size;
      to.fillRect(x - size, y - size, 2 * size, 2 * size);
    }
  }
  to.globalAlpha = 1;
  if (loop.length > 1) {
    to.strokeStyle = style.getPropertyValue("--accent");
    to.lineWidth = 2;
    to.beginPath();
    loop.forEach(([x, y], i) => (i ? to.lineTo(x, y) : to.moveTo(x, y)));
    to.closePath();
    to.stroke();
  }
}

/** @param {HTMLCanvasElement} canvas @param {number} side */
function scaled(canvas, side) {
  const [width, height] = [canvas.clientWidth - 2 * MARGIN, canvas.clientHeight - 2 * MARGIN];
  return (/** @type {number} */ x, /** @type {number} */ y) =>
    /** @type {[number, number]} */ ([MARGIN + (x / side) * width, MARGIN + (1 - y / side) * height]);
}

/** @param {any} props */
function Chosen({ value, chosen, clear }) {
  const [name, setName] = useState("circled");
  const kinds = (/** @type {string} */ kind) =>
    chosen.filter((/** @type {number} */ i) => value.kinds[value.kind[i]] === kind).map((/** @type {number} */ i) => value.number[i]);
  const failures = [...kinds("FN"), ...kinds("FP")];
  const images = [...new Set(kinds("pool"))];
  if (!chosen.length) {
    return html`<p class="quiet">Draw a line round some points. Failures among them can be asked for; pool images can be kept as a selection.</p>`;
  }
  return html`<section aria-label="What is circled">
    <h2>Circled</h2>
    <p>
      ${plural(kinds("FN").length, "missed object")}, ${plural(kinds("FP").length, "false alarm")},
      ${" "}${plural(images.length, "pool image")}
    </p>
    ${failures.length > 0 && failures.length <= 500 && html`<${Ask} key=${failures.join("+")} failures=${`id=${failures.join("+")}`} />`}
    ${images.length > 0 &&
    html`<form
      class="keep"
      onSubmit=${async (/** @type {Event} */ event) => {
        event.preventDefault();
        await change("/map/select", { name, images }, "", () => {});
      }}
    >
      <label class="field"
        >Keep the pool images as
        <input type="text" required maxlength="80" value=${name} onInput=${(/** @type {any} */ event) => setName(event.currentTarget.value)}
      /></label>
      <button type="submit">Keep ${count(images.length)}</button>
    </form>`}
    <button onClick=${clear}>Clear</button>
  </section>`;
}

/** @param {any} props */
function Under({ at, stamp }) {
  const { value } = useLoaded(at === null ? null : `/map/points/${at}`);
  if (at === null || !value) return html`<p class="quiet">Move over a point to see it.</p>`;
  const pool = value.kind === "pool";
  return html`<div class="asked">
    <${Picture} src=${cropAddress(value.image, value.box, pool ? "hit" : value.kind, stamp, 160)} alt="the point" />
    <p>
      ${pool
        ? html`pool image ${value.number}`
        : html`<${Kind} kind=${value.kind} /> ${value.kind === "TP" ? "" : html`<${A} href=${`/failures/${value.number}`}>failure ${value.number}<//>`}`}
    </p>
  </div>`;
}

/** @param {any} props */
export function Map({ stamp }) {
  const { value, error, again } = useLoaded("/map");
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [shown, setShown] = useState(LOOKS.map((look) => look.kind));
  const [loop, setLoop] = useState(/** @type {[number, number][]} */ ([]));
  const [chosen, setChosen] = useState(/** @type {number[]} */ ([]));
  const [under, setUnder] = useState(/** @type {number | null} */ (null));
  const drawing = useRef(false);
  useEffect(() => {
    document.title = "Map · curator review";
  }, []);
  useEffect(() => {
    const own = canvas.current;
    if (!own || !value) return undefined;
    const redraw = () => draw(own, value, shown, loop, new Set(chosen));
    redraw();
    addEventListener("resize", redraw);
    return () => removeEventListener("resize", redraw);
  }, [value, shown, loop, chosen]);
  if (error) return error.includes("curator index") ? html`<${Nothing} title="No vectors yet">${error}<//>` : html`<${Failed} text=${error} again=${again} />`;
  if (!value) return html`<p class="boot">Loading…</p>`;
  const places = () => {
    const own = /** @type {HTMLCanvasElement} */ (canvas.current);
    const place = scaled(own, value.side);
    return value.x.map((/** @type {number} */ x, /** @type {number} */ i) =>
      shown.includes(value.kinds[value.kind[i]]) ? place(x, value.y[i]) : null,
    );
  };
  const spot = (/** @type {PointerEvent} */ event) => /** @type {[number, number]} */ ([event.offsetX, event.offsetY]);
  const all = () => {
    const every = places();
    setLoop([]);
    setChosen(every.flatMap((/** @type {any} */ p, /** @type {number} */ i) => (p ? [i] : [])));
  };
  return html`<div class="split">
    <aside class="filters" aria-label="What is drawn">
      <fieldset>
        <legend>Drawn</legend>
        ${LOOKS.map(
          ({ kind, text, colour }) => html`<${Choice}
            on=${shown.includes(kind)}
            count=${count(value.kind.filter((/** @type {number} */ k) => value.kinds[k] === kind).length)}
            onClick=${() => setShown(shown.includes(kind) ? shown.filter((own) => own !== kind) : [...shown, kind])}
            ><span class="dot-of" style=${`background: var(${colour})`}></span>${text}<//
          >`,
        )}
      </fieldset>
      <button onClick=${all}>Circle all that is drawn</button>
      <p class="quiet small foot">
        Up to three boxes of ${count(value.shown)} of ${count(value.pool)} pool images. Two dimensions keep
        ${" "}${Math.round(value.kept * 100)}% of the variance: what lies apart differs, what lies together need not be alike.
      </p>
    </aside>
    <section class="results" aria-label="Map">
      <div class="bar"><h1>${plural(value.x.length, "point")}</h1></div>
      <canvas
        ref=${canvas}
        class="map"
        role="img"
        aria-label="Failures, found objects and boxes of the pool by what they look like"
        onPointerDown=${(/** @type {PointerEvent} */ event) => {
          drawing.current = true;
          /** @type {HTMLElement} */ (event.currentTarget).setPointerCapture(event.pointerId);
          setLoop([spot(event)]);
          setChosen([]);
        }}
        onPointerMove=${(/** @type {PointerEvent} */ event) => {
          if (drawing.current) setLoop((own) => [...own, spot(event)]);
          else setUnder(nearest(places(), spot(event), 12));
        }}
        onPointerUp=${() => {
          drawing.current = false;
          setChosen(loop.length > 2 ? inside(places(), loop) : []);
        }}
      ></canvas>
      <${Keys} of=${[["drag", "circle points"]]} />
    </section>
    <aside class="detail" aria-label="Chosen">
      <div class="words">
        <${Under} at=${under} stamp=${stamp} />
        <${Chosen}
          value=${value}
          chosen=${chosen}
          clear=${() => {
            setLoop([]);
            setChosen([]);
          }}
        />
      </div>
    </aside>
  </div>`;
}
