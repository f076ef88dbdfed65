// A map of points with a crosshair on a canvas: mouse, touch and arrow keys move it.

import { el } from "./dom.js";

const STEP = 0.015, LEAP = 0.08; // of the map's width, by an arrow key, alone and with Shift
const SHARE = 0.92; // of the map, that what is drawn fills
const DRAGGED = 6; // pixels that the mouse must go for a click to become a drag
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// As many colours as there are groups: those of the page while they last, then a wheel of hues.
function colours(n) {
  if (n <= 8) return Array.from({ length: n }, (_, i) => css(`--c${i}`));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return Array.from({ length: n }, (_, i) =>
    `hsl(${Math.round((360 * i) / n)} ${dark ? 70 : 65}% ${dark ? (i % 2 ? 78 : 62) : i % 2 ? 55 : 38}%)`);
}

// All but the outermost of the points, and as much of the outlines beside them as leaves the points
// half of the map.
function range(values, outlines) {
  const sorted = Float32Array.from(values).sort(), last = sorted.length - 1;
  const low = sorted[Math.floor(0.002 * last)], high = sorted[Math.ceil(0.998 * last)], most = (high - low) / 2;
  const least = outlines.reduce((a, b) => Math.min(a, b), low), greatest = outlines.reduce((a, b) => Math.max(a, b), high);
  const from = Math.max(least, low - most), to = Math.min(greatest, high + most);
  return [from, to, to - from];
}

// `points` and `outlines` are unpacked arrays (n, 2) and (m, 48, 2). `moved(at)` is told of
// places, `joined(a, b)` of two points between which the mouse was dragged, `keyed(groups, inks)` of
// the colours that groups have, `fitted(points, outlines)` of how many of each lie beyond the edge.
export function pointMap({ points, outlines, label, moved, joined, keyed, fitted }) {
  const canvas = el("canvas", { class: "map", tabindex: 0, role: "application", "aria-label": label, "aria-describedby": "how" });
  const still = document.createElement("canvas"), n = points.shape[0];
  const x = points.values.filter((_, i) => i % 2 === 0), y = points.values.filter((_, i) => i % 2);
  const corner = (k, axis) => outlines.values[2 * k + axis], corners = outlines.shape[0] * outlines.shape[1];
  const side = (axis) => Array.from({ length: corners }, (_, k) => corner(k, axis));
  const [x0, x1, dx] = range(x, side(0)), [y0, y1, dy] = range(y, side(1));
  const state = { at: null, pinned: null, down: null, ends: [], near: null, groups: null };
  let scale = 1, ratio = 1;

  const middle = [(x0 + x1) / 2, (y0 + y1) / 2];
  const there = ([a, b]) => [canvas.width / 2 + (a - middle[0]) * scale, canvas.height / 2 - (b - middle[1]) * scale];
  const back = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      middle[0] + ((event.clientX - box.left) * ratio - canvas.width / 2) / scale,
      middle[1] - ((event.clientY - box.top) * ratio - canvas.height / 2) / scale,
    ];
  };
  const point = (i) => [x[i], y[i]];

  function nearest([a, b]) {
    let best = 0, least = Infinity;
    for (let i = 0; i < n; i++) {
      const away = (x[i] - a) ** 2 + (y[i] - b) ** 2;
      if (away < least) { least = away; best = i; }
    }
    return best;
  }

  function fit() {
    if (!canvas.clientWidth) return;
    ratio = Math.min(devicePixelRatio || 1, 2);
    canvas.width = still.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = still.height = Math.round(canvas.clientHeight * ratio);
    scale = SHARE * Math.min(canvas.width / (dx || dy || 1), canvas.height / (dy || dx || 1));
    paint();
    fitted(...beyond());
  }

  // How many points, and how many outlines with any part of them, lie outside of the map.
  function beyond() {
    const out = (place) => {
      const [a, b] = there(place);
      return a < 0 || b < 0 || a > canvas.width || b > canvas.height;
    };
    const [m, each] = outlines.shape, parts = Array.from({ length: each }, (_, j) => j);
    const cut = (k) => parts.some((j) => out([corner(k * each + j, 0), corner(k * each + j, 1)]));
    const numbers = (size) => Array.from({ length: size }, (_, i) => i);
    return [numbers(n).filter((i) => out(point(i))).length, numbers(m).filter(cut).length];
  }

  // What does not move: the points, and the prior's components over them.
  function paint() {
    const pen = still.getContext("2d"), groups = state.groups;
    const inks = groups ? colours(groups.names.length) : [css("--c0")];
    if (groups) keyed(groups, inks);
    pen.clearRect(0, 0, still.width, still.height);
    pen.globalAlpha = 0.75;
    for (let i = 0; i < n; i++) {
      const [a, b] = there(point(i));
      pen.fillStyle = inks[groups ? groups.group[i] : 0];
      pen.beginPath();
      pen.arc(a, b, 2.1 * ratio, 0, 7);
      pen.fill();
    }
    const [m, each] = outlines.shape;
    pen.strokeStyle = pen.fillStyle = css("--ink");
    pen.lineWidth = 1.2 * ratio;
    for (let k = 0; k < m; k++) {
      let sum = [0, 0];
      pen.globalAlpha = m > 30 ? 0.4 : 0.65;
      pen.beginPath();
      for (let j = 0; j < each; j++) {
        const at = [corner(k * each + j, 0), corner(k * each + j, 1)];
        pen.lineTo(...there(at));
        if (j < each - 1) sum = [sum[0] + at[0], sum[1] + at[1]]; // the last is the first again
      }
      pen.stroke();
      const [a, b] = there([sum[0] / (each - 1), sum[1] / (each - 1)]), arm = 3.5 * ratio;
      pen.globalAlpha = 0.9;
      pen.fillRect(a - arm, b - 0.75 * ratio, 2 * arm, 1.5 * ratio);
      pen.fillRect(a - 0.75 * ratio, b - arm, 1.5 * ratio, 2 * arm);
    }
    draw();
  }

  function ring(pen, place, size) {
    pen.beginPath();
    pen.arc(...place, size * ratio, 0, 7);
    pen.stroke();
  }

  function draw() {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(still, 0, 0);
    const ends = state.down?.far ? [point(nearest(state.down.at)), state.at] : state.ends.map((i) => point(i));
    pen.strokeStyle = css("--accent");
    pen.lineWidth = 2.5 * ratio;
    if (ends.length === 2) {
      pen.beginPath();
      pen.moveTo(...there(ends[0]));
      pen.lineTo(...there(ends[1]));
      pen.stroke();
    }
    for (const end of ends) ring(pen, there(end), 5);
    if (!state.at) return;
    const [a, b] = there(state.at);
    pen.strokeStyle = css("--ink");
    pen.lineWidth = ratio;
    pen.globalAlpha = 0.6;
    pen.strokeRect(a, -9, 0, canvas.height + 18);
    pen.strokeRect(-9, b, canvas.width + 18, 0);
    pen.globalAlpha = 1;
    if (state.near != null) { pen.lineWidth = 2 * ratio; ring(pen, there(point(state.near)), 4); }
  }

  function go(at, pin) {
    state.at = at;
    if (pin) state.pinned = at;
    draw();
    moved(at);
  }

  canvas.addEventListener("pointerdown", (event) => {
    const at = back(event);
    if (event.pointerType === "mouse") state.down = { at, x: event.clientX, y: event.clientY, far: false };
    canvas.setPointerCapture(event.pointerId);
    go(at, true);
  });
  canvas.addEventListener("pointermove", (event) => {
    const { down } = state;
    if (down) down.far ||= Math.hypot(event.clientX - down.x, event.clientY - down.y) > DRAGGED;
    go(back(event), event.pointerType !== "mouse");
  });
  canvas.addEventListener("pointerup", (event) => {
    const { down } = state;
    state.down = null;
    if (down?.far) joined(nearest(down.at), nearest(back(event)));
    draw();
  });
  canvas.addEventListener("pointercancel", () => { state.down = null; draw(); });
  canvas.addEventListener("pointerleave", () => { if (state.pinned && !state.down) go(state.pinned, false); });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const step = ((event.shiftKey ? LEAP : STEP) * canvas.width) / scale, from = state.at ?? middle;
    go([from[0] + step * way[0], from[1] + step * way[1]], true);
  });

  const watcher = new ResizeObserver(fit), theme = matchMedia("(prefers-color-scheme: dark)");
  watcher.observe(canvas);
  theme.addEventListener("change", paint);
  return {
    canvas, point, nearest, go,
    get at() { return state.at; },
    group(groups) { state.groups = groups; paint(); },
    mark(near) { state.near = near; draw(); },
    join(ends) { state.ends = ends; draw(); },
    range: { x, y },
    leave() { watcher.disconnect(); theme.removeEventListener("change", paint); },
  };
}
