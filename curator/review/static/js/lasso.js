// Which points lie in a closed line, and which is nearest; a point that is not drawn is null.

/** @typedef {[number, number]} Spot */

/**
 * Numbers of the points inside a polygon (even-odd rule).
 * @param {(Spot | null)[]} points @param {Spot[]} loop
 */
export function inside(points, loop) {
  const found = [];
  for (let i = 0; i < points.length; i += 1) {
    const point = points[i];
    if (point && within(point, loop)) found.push(i);
  }
  return found;
}

/** @param {Spot} point @param {Spot[]} loop */
function within([x, y], loop) {
  let odd = false;
  for (let i = 0, j = loop.length - 1; i < loop.length; j = i, i += 1) {
    const [xi, yi] = loop[i];
    const [xj, yj] = loop[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

/**
 * The number of the nearest point within a radius, null where there is none.
 * @param {(Spot | null)[]} points @param {Spot} at @param {number} radius
 */
export function nearest(points, [x, y], radius) {
  let best = null;
  let least = radius * radius;
  for (let i = 0; i < points.length; i += 1) {
    const point = points[i];
    if (!point) continue;
    const far = (point[0] - x) ** 2 + (point[1] - y) ** 2;
    if (far <= least) {
      least = far;
      best = i;
    }
  }
  return best;
}
