// Requests to the service that this page came from, under whatever prefix.
export const root = new URL("../../../", import.meta.url);

const KEY = "rayclassify.key";
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** A request that has no answer. status: 0 where the service could not be reached. */
export class Refused extends Error {
  constructor(status, message, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** JSON of an answer, with its headers and how long it took here, in ms. Raises Refused. */
export async function ask(path, { body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const began = performance.now();
  let response, text;
  try {
    response = await fetch(new URL(path, root), {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "");
  }
  const tookMs = performance.now() - began;
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    // A proxy's own page, say; the status tells enough.
  }
  if (response.ok && value !== null) return { value, headers: response.headers, tookMs };
  const retryAfter = Number(response.headers.get("Retry-After"));
  const message = value?.error?.message ?? value?.error ?? "";
  throw new Refused(response.status, String(message), retryAfter || null);
}

export const wait = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });
