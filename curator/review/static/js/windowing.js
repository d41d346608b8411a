// Which part of a long grid is drawn, and which pages hold it: plain arithmetic, tested with `node --test`.

/**
 * @param {number} width of the grid @param {number} tile least width of a tile @param {number} gap
 * @returns {number} columns, at least one
 */
export function columnsOf(width, tile, gap) {
  return Math.max(1, Math.floor((width + gap) / (tile + gap)));
}

/**
 * Rows that are drawn: those in sight and some beyond.
 * @param {number} top scrolled so far @param {number} height in sight @param {number} row height of a row
 * @param {number} total tiles @param {number} columns @param {number} [beyond] rows on either side
 * @returns {{first: number, last: number, rows: number}} tiles first to last - 1
 */
export function windowOf(top, height, row, total, columns, beyond = 2) {
  const rows = Math.ceil(total / columns);
  const from = Math.min(Math.max(Math.floor(top / row) - beyond, 0), Math.max(rows - 1, 0));
  const to = Math.min(Math.ceil((top + height) / row) + beyond, rows);
  return { first: from * columns, last: Math.min(Math.max(to, from) * columns, total), rows };
}

/**
 * @param {number} first @param {number} last exclusive @param {number} step tiles a page
 * @returns {number[]} numbers of the pages that hold the tiles
 */
export function pagesOf(first, last, step) {
  const found = [];
  for (let page = Math.floor(first / step); page * step < last; page++) found.push(page);
  return found;
}

/**
 * Where the cursor goes.
 * @param {string} key of the keyboard @param {number} at @param {number} total @param {number} columns
 * @param {number} rows in sight
 * @returns {number | null} null where the key moves nothing
 */
export function moveCursor(key, at, total, columns, rows) {
  /** @type {Record<string, number>} */
  const steps = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -columns,
    ArrowDown: columns,
    PageUp: -columns * rows,
    PageDown: columns * rows,
    Home: -total,
    End: total,
  };
  if (!(key in steps) || total === 0) return null;
  const next = at + steps[key];
  if (key === "ArrowUp" && next < 0) return at;
  if (key === "ArrowDown" && next > total - 1) {
    return Math.floor(at / columns) < Math.floor((total - 1) / columns) ? total - 1 : at;
  }
  return Math.min(Math.max(next, 0), total - 1);
}
