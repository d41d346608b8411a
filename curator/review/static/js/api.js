// Requests to the server. Every change is one POST of JSON.

export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path below /api
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, signal) {
  return answer(await fetch(`/api${path}`, { signal, credentials: "same-origin" }));
}

/**
 * @param {string} path below /api
 * @param {unknown} body
 * @returns {Promise<any>}
 */
export async function post(path, body) {
  return answer(
    await fetch(`/api${path}`, {
      method: "POST",
      credentials: "same-origin",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    }),
  );
}

/** @param {Response} response */
async function answer(response) {
  if (response.ok) return response.json(); // rejects where it is cut off: half an answer is none
  const said = await response.json().catch(() => ({}));
  throw new ApiError(response.status, said.error || `the server answered ${response.status}`);
}

/**
 * The address of a crop round a box.
 * @param {number} image @param {number[]} box @param {string} kind @param {string} stamp @param {number} [side]
 */
export function cropAddress(image, box, kind, stamp, side = 192) {
  return `/api/images/${image}/crop?box=${box.map((v) => v.toFixed(1)).join(",")}&kind=${kind}&side=${side}&v=${stamp}`;
}
