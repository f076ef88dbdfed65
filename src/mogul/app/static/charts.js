// Small charts as SVG, in the page's colours.

import { svg } from "./dom.js";
import { tick } from "./numbers.js";

const W = 640, H = 260, LEFT = 66, RIGHT = 20, TOP = 18, BOTTOM = 40;
export const MARGINS = LEFT + RIGHT;

export function ticks(low, high, about = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(+v.toPrecision(12));
  return found;
}

// Ticks along a range, with the text of each.
export function labelled(low, high, about) {
  const found = ticks(low, high, about), step = found.length > 1 ? found[1] - found[0] : high - low;
  return found.map((v) => [v, tick(v, step)]);
}

// Axes over ranges x and y, with scales to draw along.
export function frame(x, y, { xName = "", yName = "", alt = "", width = W, height = H, whole = false } = {}) {
  const sx = (v) => LEFT + ((v - x[0]) / (x[1] - x[0] || 1)) * (width - LEFT - RIGHT);
  const sy = (v) => height - BOTTOM - ((v - y[0]) / (y[1] - y[0] || 1)) * (height - TOP - BOTTOM);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": alt });
  for (const [v, text] of labelled(...y)) {
    root.append(svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: sy(v), y2: sy(v) }));
    root.append(svg("text", { x: LEFT - 6, y: sy(v) + 4, "text-anchor": "end" }, text));
  }
  for (const [v, text] of labelled(...x, width / 90).filter(([v]) => !whole || Number.isInteger(v))) root.append(svg("text", { x: sx(v), y: height - BOTTOM + 17, "text-anchor": "middle" }, text));
  root.append(svg("text", { x: (LEFT + width - RIGHT) / 2, y: height - 3, "text-anchor": "middle" }, xName));
  if (yName) root.append(svg("text", { x: LEFT, y: TOP - 1 }, yName));
  return { root, sx, sy, inner: { left: LEFT, right: width - RIGHT, top: TOP, bottom: height - BOTTOM } };
}

// Lines of {x, y}, in the order of the colours --c0, --c1, …
export function lines(series, options = {}) {
  const all = (key) => series.flatMap((s) => s[key]).filter(Number.isFinite);
  const range = (v) => [Math.min(...v), Math.max(...v)];
  const { root, sx, sy } = frame(range(all("x")), range(all("y")), options);
  series.forEach((s, i) => {
    const points = s.x.map((v, j) => [v, s.y[j]]).filter(([, v]) => Number.isFinite(v));
    const path = points.map(([a, b], j) => `${j ? "L" : "M"}${sx(a).toFixed(1)},${sy(b).toFixed(1)}`).join("");
    const colour = `var(--c${i % 8})`;
    root.append(svg("path", { class: "line", d: path, style: `stroke:${colour}` }));
    if (points.length === 1) root.append(svg("circle", { cx: sx(points[0][0]), cy: sy(points[0][1]), r: 3, style: `fill:${colour}` }));
  });
  return root;
}

// Bars between edges, with a mark at a value; `mark` of the result moves it.
export function histogram(edges, counts, options = {}) {
  const top = Math.max(...counts, 1);
  const { root, sx, sy, inner } = frame([edges[0], edges[edges.length - 1]], [0, top], { ...options, height: 200 });
  counts.forEach((n, i) => {
    const x = sx(edges[i]), y = sy(n);
    root.append(svg("rect", { x, y, width: Math.max(0.5, sx(edges[i + 1]) - x - 1), height: inner.bottom - y, style: "fill:var(--c0);opacity:.7" }));
  });
  const mark = svg("line", { y1: inner.top, y2: inner.bottom, style: "stroke:var(--c1);stroke-width:2" });
  root.append(mark);
  root.mark = (v) => {
    const x = sx(Math.max(edges[0], Math.min(edges[edges.length - 1], v)));
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
  };
  return root;
}
