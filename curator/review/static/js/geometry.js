// Boxes and views: plain arithmetic, tested with `node --test`.

/** @typedef {[number, number, number, number]} Box x1, y1, x2, y2 in image pixels */
/** @typedef {{scale: number, x: number, y: number}} View screen = scale * image + (x, y) */

export const MOST_ZOOM = 40;
export const SMALLEST = 2;

/**
 * The view that shows a whole image in the middle of a frame.
 * @param {number} width @param {number} height of the image
 * @param {number} w @param {number} h of the frame
 * @returns {View}
 */
export function fit(width, height, w, h) {
  const scale = Math.max(Math.min(w / width, h / height), 1e-3);
  return { scale, x: (w - width * scale) / 2, y: (h - height * scale) / 2 };
}

/**
 * The view that shows a box with what is around it.
 * @param {Box} box @param {number} w @param {number} h of the frame @param {number} [share] of the frame that the box takes
 * @returns {View}
 */
export function fitBox(box, w, h, share = 0.4) {
  const width = Math.max(box[2] - box[0], 1);
  const height = Math.max(box[3] - box[1], 1);
  const scale = Math.min((w * share) / width, (h * share) / height, MOST_ZOOM);
  return { scale, x: w / 2 - ((box[0] + box[2]) / 2) * scale, y: h / 2 - ((box[1] + box[3]) / 2) * scale };
}

/**
 * Zoom about a point of the screen: what lies there stays there.
 * @param {View} view @param {number} factor @param {number} px @param {number} py @param {number} least scale
 * @returns {View}
 */
export function zoomAt(view, factor, px, py, least) {
  const scale = Math.min(Math.max(view.scale * factor, least), MOST_ZOOM);
  const grown = scale / view.scale;
  return { scale, x: px - (px - view.x) * grown, y: py - (py - view.y) * grown };
}

/** @param {View} view @param {number} px @param {number} py @returns {[number, number]} image pixels */
export function toImage(view, px, py) {
  return [(px - view.x) / view.scale, (py - view.y) / view.scale];
}

/** @param {View} view @param {number} ix @param {number} iy @returns {[number, number]} screen */
export function toScreen(view, ix, iy) {
  return [ix * view.scale + view.x, iy * view.scale + view.y];
}

/** @param {Box} box @returns {Box} with its corners in order */
export function ordered([x1, y1, x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}

/**
 * A box moved, and kept inside the image.
 * @param {Box} box @param {number} dx @param {number} dy @param {number} width @param {number} height
 * @returns {Box}
 */
export function moved([x1, y1, x2, y2], dx, dy, width, height) {
  const mx = Math.min(Math.max(dx, -x1), width - x2);
  const my = Math.min(Math.max(dy, -y1), height - y2);
  return [x1 + mx, y1 + my, x2 + mx, y2 + my];
}

/**
 * A box whose named sides are dragged; it keeps a smallest size and stays inside the image.
 * @param {Box} box @param {string} handle some of "n", "s", "w", "e" @param {number} dx @param {number} dy
 * @param {number} width @param {number} height
 * @returns {Box}
 */
export function resized([x1, y1, x2, y2], handle, dx, dy, width, height) {
  if (handle.includes("w")) x1 = Math.min(Math.max(x1 + dx, 0), x2 - SMALLEST);
  if (handle.includes("e")) x2 = Math.max(Math.min(x2 + dx, width), x1 + SMALLEST);
  if (handle.includes("n")) y1 = Math.min(Math.max(y1 + dy, 0), y2 - SMALLEST);
  if (handle.includes("s")) y2 = Math.max(Math.min(y2 + dy, height), y1 + SMALLEST);
  return [x1, y1, x2, y2];
}

/**
 * A box drawn between two points, inside the image; null where it is too small to be meant.
 * @param {[number, number]} from @param {[number, number]} to @param {number} width @param {number} height
 * @returns {Box | null}
 */
export function drawn(from, to, width, height) {
  const [x1, y1, x2, y2] = ordered([from[0], from[1], to[0], to[1]]);
  /** @type {Box} */
  const box = [Math.max(x1, 0), Math.max(y1, 0), Math.min(x2, width), Math.min(y2, height)];
  return box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST ? box : null;
}

/** @param {Box} box @param {number} x @param {number} y */
export function contains([x1, y1, x2, y2], x, y) {
  return x >= x1 && x <= x2 && y >= y1 && y <= y2;
}

/**
 * The smallest box at a point: what lies inside a larger one can be picked.
 * @param {Box[]} boxes @param {number} x @param {number} y
 * @returns {number} its index, -1 where none is
 */
export function pick(boxes, x, y) {
  let best = -1;
  let area = Infinity;
  boxes.forEach((box, i) => {
    const own = (box[2] - box[0]) * (box[3] - box[1]);
    if (contains(box, x, y) && own < area) [best, area] = [i, own];
  });
  return best;
}
