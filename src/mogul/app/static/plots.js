// Densities as curves and maps: canvases for what is dense, SVG for axes, lines and marks.

import { MARGINS, frame } from "./charts.js";
import { el, svg } from "./dom.js";
import { readable } from "./numbers.js";

const HEIGHT = 300;
const FONT = "12px system-ui, sans-serif"; // as the style sheet says
export const LINE = 14;
let ruler = null;

// A place whose drawing is made anew when its width or the colours of the page change.
export function fitted(draw, most = 760) {
  const place = el("div", { class: "plot" }, el("div", { class: "wait", role: "status" }, "Computing …"));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let width = 0;
  function again() {
    const made = place.clientWidth ? draw(Math.min(most, place.clientWidth)) : null;
    if (made) place.replaceChildren(...[made].flat());
  }
  function turned() {
    if (place.isConnected) again();
    else dark.removeEventListener("change", turned);
  }
  new ResizeObserver(() => {
    if (place.clientWidth !== width) { width = place.clientWidth; again(); }
  }).observe(place);
  dark.addEventListener("change", turned);
  return { place, again };
}

// Red, green and blue of one of the page's colours.
export function colour(name) {
  const probe = el("span", { style: `color: var(--${name})`, hidden: true });
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}

// The width of a text in a plot, in pixels.
export function measured(text) {
  ruler ??= document.createElement("canvas").getContext("2d");
  ruler.font = FONT;
  return ruler.measureText(text).width;
}

// A text cut to a width.
export function cut(text, width) {
  let n = text.length;
  while (n > 1 && measured(n < text.length ? `${text.slice(0, n)}…` : text) > width) n--;
  return n < text.length ? `${text.slice(0, n).trimEnd()}…` : text;
}

// A text in lines of a width, so many at most; the last one is cut.
export function wrapped(text, width, most = 2) {
  const lines = [""];
  for (const word of text.split(/(?<=[\s_/-])/)) {
    const longer = lines[lines.length - 1] + word;
    if (lines.length === most || !lines[lines.length - 1] || measured(longer.trimEnd()) <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.map((line) => cut(line.trimEnd(), width));
}

// A name in lines, with the whole one to be read on pointing at it; x and y are its middle at the first.
export function named(text, { x, y, ...attributes }, lines) {
  return svg("text", { ...attributes, "text-anchor": "middle" }, svg("title", {}, text),
    ...lines.map((line, i) => svg("tspan", { x, y: y + LINE * i }, line)));
}

export function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
}

// A canvas behind the inner part of a frame.
export function layered({ root, inner }, width, height, canvas) {
  const share = (v, of) => `${(100 * v) / of}%`;
  canvas.style.cssText = `left:${share(inner.left, width)};top:${share(inner.top, height)};`
    + `width:${share(inner.right - inner.left, width)};height:${share(inner.bottom - inner.top, height)}`;
  return el("div", { class: "layers", style: `max-width:${width}px` }, canvas, root);
}

// Values [y, x] between 0 and 1 as a colour of the page, the roots of them as its strength.
export function shaded({ shape, values }, name = "c0") {
  const [rows, columns] = shape, rgb = colour(name);
  const canvas = el("canvas", { width: columns, height: rows, "aria-hidden": "true" });
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const to = 4 * ((rows - 1 - i) * columns + j);
      image.data.set(rgb, to);
      image.data[to + 3] = 230 * Math.sqrt(values[i * columns + j]);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Where values [y, x] of a grid cross a level, as pieces of a path; places are shares, 0 to 1.
export function contour({ shape, values }, level, sx, sy) {
  const [rows, columns] = shape, at = (i, j) => values[i * columns + j], pieces = [];
  const point = (i, j, k, l) => {
    const t = (level - at(i, j)) / (at(k, l) - at(i, j));
    return `${sx((j + t * (l - j)) / (columns - 1)).toFixed(1)},${sy((i + t * (k - i)) / (rows - 1)).toFixed(1)}`;
  };
  for (let i = 0; i + 1 < rows; i++) {
    for (let j = 0; j + 1 < columns; j++) {
      const corners = [[i, j], [i, j + 1], [i + 1, j + 1], [i + 1, j]];
      const ends = corners.flatMap(([a, b], n) => {
        const [c, d] = corners[(n + 1) % 4];
        return at(a, b) > level !== at(c, d) > level ? [point(a, b, c, d)] : [];
      });
      for (let n = 0; n + 1 < ends.length; n += 2) pieces.push(`M${ends[n]}L${ends[n + 1]}`);
    }
  }
  return pieces.join("");
}

// A density along x, with another beside it, its mean, median, 90 % interval, and marks.
export function curveChart(found, { name, width, marks = [], truth = null }) {
  const say = (value) => readable(value, found.deviation);
  const { x, density, beside } = found.curve, top = 1.05 * Math.max(...density, ...(beside ?? []));
  const drawn = frame([x[0], x[x.length - 1]], [0, top], {
    width, height: HEIGHT, xName: cut(name, width - MARGINS), yName: "density",
    alt: `Density of ${name}: mean ${say(found.mean)}, 90 % interval ${say(found.low)} to ${say(found.high)}`,
  });
  const { root, sx, sy, inner } = drawn;
  const along = (values) => path(x.map((v, i) => [sx(v), sy(values[i])]));
  const line = (v, style, name) => svg("line", { class: name, x1: sx(v), x2: sx(v), y1: inner.top, y2: inner.bottom, style });
  root.append(svg("rect", {
    class: "interval", x: sx(found.low), width: sx(found.high) - sx(found.low), y: inner.top,
    height: inner.bottom - inner.top, style: "fill:var(--c0);opacity:.12",
  }));
  if (beside) root.append(svg("path", { class: "line beside", d: along(beside), style: "stroke:var(--soft);stroke-width:1.2" }));
  root.append(
    svg("path", { class: "line density", d: along(density), style: "stroke:var(--c0)" }),
    line(found.mean, "stroke:var(--c1);stroke-width:1.6", "mean"),
    line(found.median, "stroke:var(--c1);stroke-width:1.6;stroke-dasharray:5 4", "median"),
  );
  for (const mark of marks) root.append(svg("circle", { class: "mode", cx: sx(mark), cy: sy(height(x, density, mark)), r: 4, style: "fill:var(--c2)" }));
  if (truth != null && within(truth, [x[0], x[x.length - 1]])) root.append(line(truth, "stroke:var(--c5);stroke-width:2.4", "truth"));
  return root;
}

const within = (v, [low, high]) => v >= low && v <= high;

function height(x, density, at) {
  const i = x.findIndex((v) => v >= at);
  if (i <= 0) return density[Math.max(0, i)];
  const t = (at - x[i - 1]) / (x[i] - x[i - 1]);
  return density[i - 1] + t * (density[i] - density[i - 1]);
}

// A density over two columns, with contours and marks at places [x, y].
export function heatChart(heat, density, { names, width, marks = [], truth = null, alt }) {
  const size = Math.min(width, 620), [xName, yName] = names.map((name) => cut(name, size - MARGINS));
  const drawn = frame(heat.x, heat.y, { width: size, height: size * 0.8, xName, yName, alt });
  const { root, sx, sy } = drawn;
  const ux = (t) => sx(heat.x[0] + t * (heat.x[1] - heat.x[0]));
  const uy = (t) => sy(heat.y[0] + t * (heat.y[1] - heat.y[0]));
  heat.levels.forEach((level, i) => root.append(svg("path", {
    class: "line contour", d: contour(density, level, ux, uy),
    style: `stroke:var(--ink);stroke-width:${i ? 1 : 1.8};opacity:.75`,
  })));
  const spot = (at, name, style) => root.append(svg("circle", { class: name, cx: sx(at[0]), cy: sy(at[1]), r: 4.5, style }));
  for (const { at, name } of marks) spot(at, name, `fill:var(--${name === "mean" ? "c1" : "c2"})`);
  if (truth && within(truth[0], heat.x) && within(truth[1], heat.y)) spot(truth, "truth", "fill:none;stroke:var(--c5);stroke-width:3");
  return layered(drawn, size, size * 0.8, shaded(density));
}

// What lines and marks of a chart mean: {text, style} of each.
export function keys(items) {
  return el("ul", { class: "keys" }, ...items.map(({ text, style }) =>
    el("li", {}, el("span", { style, "aria-hidden": "true" }), text)));
}

export const KEYS = {
  density: { text: "density", style: "background:var(--c0)" },
  beside: { text: "with nothing fixed", style: "background:var(--soft);height:1px" },
  interval: { text: "90 % interval", style: "background:var(--c0);opacity:.25;height:.8em" },
  mean: { text: "mean", style: "background:var(--c1)" },
  median: { text: "median", style: "background:repeating-linear-gradient(90deg,var(--c1) 0 5px,transparent 5px 9px)" },
  modes: { text: "modes", style: "background:var(--c2);width:.6em;height:.6em;border-radius:50%" },
  middle: { text: "mean", style: "background:var(--c1);width:.6em;height:.6em;border-radius:50%" },
  contours: { text: "half and nine tenths of the density", style: "background:var(--ink)" },
  truth: { text: "true value of the row", style: "background:var(--c5);height:3px" },
  ring: { text: "true values of the row", style: "border:3px solid var(--c5);width:.8em;height:.8em;border-radius:50%" },
};
