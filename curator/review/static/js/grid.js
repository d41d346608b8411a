// A grid of any length: only the tiles in sight are drawn, pages are fetched as they come into sight.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { columnsOf, moveCursor, pagesOf, windowOf } from "./windowing.js";

const TILE = 156;
const GAP = 12;
const CAPTION = 46;

/** Where each list was left, by its address. @type {Map<string, {top: number, at: number}>} */
const left = new Map();

/**
 * @param {{
 *   name: string, total: number, step?: number,
 *   fetchPage?: (page: number) => Promise<any[]>, items?: any[],
 *   tile: (item: any, how: {focused: boolean}) => any,
 *   open?: (item: any) => void, move?: (item: any) => void, label: string, caption?: number, start?: number,
 * }} props pages are fetched, or all `items` are there. `open`: on Enter and click; `move`: where the cursor goes
 */
export function Grid({ name, total, step = 60, fetchPage, items, tile, open, move, label, caption = CAPTION, start }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const pages = useRef(/** @type {Map<number, any[] | null>} */ (new Map()));
  const [, redraw] = useState(0);
  const [view, setView] = useState({ top: 0, width: 800, height: 600 });
  const [at, show] = useState(start ?? left.get(name)?.at ?? 0);
  const cursor = useRef(at); // keys may come faster than the grid is drawn
  /** @param {number} next */
  const setAt = (next) => {
    cursor.current = next;
    left.set(name, { top: frame.current?.scrollTop ?? 0, at: next });
    show(next);
  };

  useLayoutEffect(() => {
    const own = /** @type {HTMLElement} */ (frame.current);
    const measure = () =>
      setView({ top: own.scrollTop, width: own.clientWidth - 2 * GAP, height: own.clientHeight });
    const watch = new ResizeObserver(measure);
    watch.observe(own);
    own.scrollTop = left.get(name)?.top ?? 0;
    measure();
    if (document.activeElement === document.body) own.focus({ preventScroll: true });
    return () => watch.disconnect();
  }, []);

  const columns = columnsOf(view.width, TILE, GAP);
  const side = (view.width - GAP * (columns - 1)) / columns;
  const row = side + caption + GAP;
  const { first, last, rows } = windowOf(view.top, view.height, row, total, columns);

  useEffect(() => {
    for (const page of pagesOf(first, last, step)) {
      if (!fetchPage || pages.current.has(page)) continue;
      pages.current.set(page, null);
      fetchPage(page).then(
        (items) => {
          pages.current.set(page, items);
          redraw((n) => n + 1);
        },
        () => pages.current.delete(page),
      );
    }
  });

  /** @param {number} i */
  const item = (i) => (items ? items[i] : pages.current.get(Math.floor(i / step))?.[i % step]);
  const there = item(at);
  useEffect(() => {
    if (move && there) move(there);
  }, [there?.id]);

  /** @param {KeyboardEvent} event */
  const press = (event) => {
    const here = item(cursor.current);
    if (event.key === "Enter" && here && open) return open(here);
    const inSight = Math.max(1, Math.floor(view.height / row));
    const next = moveCursor(event.key, cursor.current, total, columns, inSight);
    if (next === null) return undefined;
    event.preventDefault();
    setAt(next);
    const own = /** @type {HTMLElement} */ (frame.current);
    const top = Math.floor(next / columns) * row;
    if (top < own.scrollTop) own.scrollTop = top;
    else if (top + row > own.scrollTop + own.clientHeight) own.scrollTop = top + row + GAP - own.clientHeight;
    return undefined;
  };

  const tiles = [];
  for (let i = first; i < last; i++) {
    const own = item(i);
    const place = {
      width: `${side}px`,
      height: `${row - GAP}px`,
      transform: `translate(${(i % columns) * (side + GAP)}px, ${Math.floor(i / columns) * row}px)`,
    };
    tiles.push(html`<div
      key=${i}
      id=${`tile-${i}`}
      class=${`tile ${i === at ? "at" : ""}`}
      role="option"
      aria-selected=${i === at ? "true" : "false"}
      aria-posinset=${i + 1}
      aria-setsize=${total}
      style=${place}
      onClick=${() => {
        setAt(i);
        if (own && open) open(own);
      }}
    >
      ${own ? tile(own, { focused: i === at }) : html`<div class="blank"></div>`}
    </div>`);
  }
  return html`<div
    class="grid"
    ref=${frame}
    tabindex="0"
    role="listbox"
    aria-label=${label}
    aria-activedescendant=${total ? `tile-${at}` : undefined}
    onScroll=${(/** @type {any} */ event) => {
      const top = event.currentTarget.scrollTop;
      left.set(name, { top, at: cursor.current });
      setView((/** @type {any} */ now) => ({ ...now, top }));
    }}
    onKeyDown=${press}
  >
    <div class="rows" style=${{ height: `${Math.max(rows * row, 0)}px` }}>${tiles}</div>
  </div>`;
}
