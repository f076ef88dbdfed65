// Images of 8-bit pixels on canvases.

import { el } from "./dom.js";

// Draws image number `at` of bytes that hold images of a shape (h, w) or (h, w, 3).
export function draw(canvas, bytes, shape, at = 0) {
  const [h, w] = shape, colours = shape.length === 3 ? 3 : 1, size = h * w * colours;
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d"), image = context.createImageData(w, h);
  for (let i = 0, from = at * size; i < h * w; i++, from += colours) {
    image.data[4 * i] = bytes[from];
    image.data[4 * i + 1] = bytes[from + (colours === 3 ? 1 : 0)];
    image.data[4 * i + 2] = bytes[from + (colours === 3 ? 2 : 0)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export function picture(bytes, shape, at, alt) {
  const canvas = draw(el("canvas", { role: "img", "aria-label": alt }), bytes, shape, at);
  return canvas;
}

// A wall of images; `choose` makes them buttons. Arrow keys move along the wall.
export function wall({ values, shape }, label, choose = null) {
  const one = shape.slice(1);
  const tiles = Array.from({ length: shape[0] }, (_, i) => {
    const { text, alt } = label(i), canvas = picture(values, one, i, alt);
    if (!choose) return el("div", { class: "tile" }, canvas, ...(text ? [text] : []));
    return el("button", { type: "button", "aria-pressed": "false", onclick: () => choose(i, tiles[i]) }, canvas, text ?? "");
  });
  const made = el("div", { class: "wall" }, ...tiles);
  made.style.setProperty("--tile", one[0] > 40 ? "96px" : "64px");
  if (choose) made.addEventListener("keydown", (event) => moved(event, made));
  return made;
}

function moved(event, made) {
  const all = [...made.children], at = all.indexOf(document.activeElement);
  const columns = getComputedStyle(made).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (at < 0 || !step) return;
  event.preventDefault();
  all[Math.max(0, Math.min(all.length - 1, at + step))].focus();
}

// Values of the model, 0 … 1, as 8-bit pixels; `levels` are the grey values that data have.
export function toBytes(values, levels = 256) {
  return Uint8Array.from(values, (v) =>
    Math.round(Math.max(0, Math.min(levels - 1, Math.floor(v * levels))) * (255 / (levels - 1))));
}
