// Requests to this server, and arrays in their answers.

export class Refused extends Error {}

async function answer(response) {
  if (response.ok) return response.json();
  const text = await response.text();
  let message = text;
  try { message = JSON.parse(text).error ?? text; } catch { /* plain text it is */ }
  throw new Refused(message || `The server answered ${response.status}.`);
}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(`/api/${path}`, options);
  } catch {
    throw new Refused("The server does not answer; it may have been ended. Start `mogul explore` again.");
  }
  return answer(response);
}

export const get = (path) => asked(path, {});
export const post = (path, body) =>
  asked(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
export const send = (path, blob) => asked(path, { method: "POST", body: blob });

// An array as {shape, values}: values is a Uint8Array or a Float32Array.
export function unpack({ shape, type, data }) {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return { shape, values: type === "u1" ? bytes : new Float32Array(bytes.buffer) };
}

export function pack(bytes, shape) {
  let text = "";
  for (const b of bytes) text += String.fromCharCode(b);
  return { shape, type: "u1", data: btoa(text) };
}

// Calls that overtake each other: while one runs, only the newest of those that follow is kept.
export function newest(call) {
  let running = false, waiting = null;
  return async function ask(...given) {
    if (running) { waiting = given; return; }
    running = true;
    try { await call(...given); } finally {
      running = false;
      if (waiting) { const next = waiting; waiting = null; ask(...next); }
    }
  };
}
