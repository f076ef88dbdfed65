// Masks of pixels: 1 where observed, 0 where hidden.

const set = (observed, [height, width], hidden) => {
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) observed[y * width + x] = hidden(y, x, height, width) ? 0 : 1;
};

export const MASKS = {
  none: (o, s) => set(o, s, () => false),
  left: (o, s) => set(o, s, (y, x, h, w) => x < w / 2),
  right: (o, s) => set(o, s, (y, x, h, w) => x >= w / 2),
  top: (o, s) => set(o, s, (y, x, h) => y < h / 2),
  bottom: (o, s) => set(o, s, (y, x, h) => y >= h / 2),
  centre: (o, s) => set(o, s, (y, x, h, w) => y >= h / 4 && y < (3 * h) / 4 && x >= w / 4 && x < (3 * w) / 4),
  random: (o, s) => set(o, s, () => Math.random() < 0.5),
};

// Lets a canvas be painted on by pointer and by keyboard; `changed` is called when the mask has.
export function brush(canvas, observed, [height, width], changed) {
  const tool = { radius: Math.max(1, height / 18), reveal: false };
  let last = null, place = null;

  function dab(y, x) {
    const r = tool.radius, value = tool.reveal ? 1 : 0;
    for (let i = Math.max(0, Math.floor(y - r)); i <= Math.min(height - 1, Math.ceil(y + r)); i++) {
      for (let j = Math.max(0, Math.floor(x - r)); j <= Math.min(width - 1, Math.ceil(x + r)); j++) {
        if ((i + 0.5 - y) ** 2 + (j + 0.5 - x) ** 2 <= r * r) observed[i * width + j] = value;
      }
    }
  }

  function stroke(event) {
    const box = canvas.getBoundingClientRect();
    const to = [((event.clientY - box.top) / box.height) * height, ((event.clientX - box.left) / box.width) * width];
    const from = last ?? to, steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let s = 0; s <= steps; s++) dab(from[0] + ((to[0] - from[0]) * s) / steps, from[1] + ((to[1] - from[1]) * s) / steps);
    last = to;
    changed();
  }

  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); place = null; last = null; stroke(event); });
  canvas.addEventListener("pointermove", (event) => { if (last) stroke(event); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], " ": [0, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = place ?? [Math.floor(height / 2), Math.floor(width / 2)];
    place = [Math.max(0, Math.min(height - 1, at[0] + step[0])), Math.max(0, Math.min(width - 1, at[1] + step[1]))];
    if (event.key === " ") dab(place[0] + 0.5, place[1] + 0.5);
    changed();
  });
  canvas.addEventListener("blur", () => { if (place) { place = null; changed(); } });
  tool.cursor = () => place;
  return tool;
}
