// Pairs of columns: rows as points, components as ellipses, and one row or component at a time.

import { get, newest, unpack } from "../api.js";
import { labelled } from "../charts.js";
import { bars, rowPicker, table, telling } from "../columns.js";
import { el, facts, svg } from "../dom.js";
import { count, exact, nats, percent, spread } from "../numbers.js";
import { LINE, colour, fitted, keys, measured, named, path, wrapped } from "../plots.js";
import { rank } from "./rows.js";

const NAME = 8, RIGHT = 16, BOTTOM = 42, GAP = 6, SMALLEST = 58, LARGEST = 260;
const NEAR = 7, APART = 8; // pixels of ticks to their panel, and between them
const REACH = 14; // pixels within which a click finds a point
const CIRCLE = Array.from({ length: 49 }, (_, i) => [Math.cos((i * Math.PI) / 24), Math.sin((i * Math.PI) / 24)]);

const DOT = "border-radius:50%;background:none;";
const ROWS = { text: "rows", style: "background:var(--soft);width:.4em;height:.4em;border-radius:50%" };
const DENSITY = { text: "density of the mixture", style: "background:var(--c0)" };
const COMPONENTS = { text: "components", style: `${DOT}border:2px solid var(--c1);width:1em;height:.7em` };
const CHOSEN = { text: "chosen", style: `${DOT}border:3px solid var(--c5);width:.8em;height:.8em` };

export async function render(model) {
  const columns = await table(), { names } = columns;
  const set = model.sets.train || !model.sets.shown ? "train" : "shown";
  const state = { columns: [], component: null, row: null, amount: 20 };
  let page = null, places = null, owned = null;

  const problem = el("div"), components = el("div"), note = el("p", { class: "hint" }), legend = el("div"), summary = el("summary");
  const detail = el("div", { "aria-live": "polite" });
  const plot = fitted((width) => page && matrix(page, places, state, width, (row) => picker.go(row)), 1000);

  const load = newest(telling(problem, async () => {
    const query = [...state.columns.map((i) => `column=${i}`), `set=${picker.set() ?? set}`, `components=${state.amount}`];
    const answer = await get(`pairs?${query.join("&")}`);
    if (!state.columns.length) state.columns = answer.columns;
    if (String(answer.columns) !== String(state.columns)) return; // others are asked for already
    page = answer;
    places = page.places ? unpack(page.places).values : new Float32Array();
    chooser.mark(page.columns, page.most);
    summary.textContent = `Columns: ${page.columns.length} of ${names.length}`;
    const few = page.rows.length < (page.of ?? 0) ? `${count(page.rows.length)} of ${count(page.of)} rows, evenly spread. ` : "";
    const heaviest = page.components.index.length < page.components.total ? `the heaviest ${page.components.index.length} of ${page.components.total} components` : "all components";
    const several = page.columns.length > 1;
    note.textContent = `${page.why ? `No rows: ${page.why} ` : few}${several ? `Ellipses lie at one and two standard deviations of ${heaviest}; the stronger, the heavier.` : ""}`;
    legend.replaceChildren(keys(several ? [ROWS, DENSITY, COMPONENTS, CHOSEN] : [DENSITY, CHOSEN]));
    if (!page.rows.length) owned = { counts: [] };
    plot.again();
    list();
  }, plot.place));

  const chooser = columnChooser(names, (columns) => { state.columns = columns; load(); });
  const picker = rowPicker(model, async (from, row) => {
    const found = await get(`table/${from}/${row}/score`);
    state.row = found.values;
    plot.again();
    detail.replaceChildren(...told(found, columns, state.columns));
  });
  if (Object.keys(model.sets).length) detail.append(el("p", { class: "hint" }, "Click a point, or give the number of a row."));
  picker.changed?.(() => { state.row = null; detail.replaceChildren(); load(); });

  function list() {
    const focused = document.activeElement?.dataset.k;
    components.replaceChildren(componentTable(page, owned, state, (k) => {
      state.component = state.component === k ? null : k;
      plot.again();
      list();
    }), more(page, () => { state.amount = 200; load(); }));
    if (focused) components.querySelector(`button[data-k="${focused}"]`)?.focus({ preventScroll: true });
  }

  await load();
  const counted = (found) => { owned = found; list(); };
  if (page?.rows.length) get(`pairs/owned?set=${set}`).then(counted, () => counted({ counts: [] }));
  return el("div", { class: "split" },
    el("section", {},
      el("h2", {}, "Columns by pairs"),
      el("details", { class: "chooser" }, summary, chooser.content), problem,
      el("div", { class: "table" }, plot.place), note,
      legend),
    el("section", { class: "card stays aside" }, el("h3", { class: "first" }, "One row"), picker.content, detail),
    el("section", { class: "under" },
      el("h3", {}, "Components"), el("p", { class: "hint" }, "Choose one to see it in every picture, with the rows that it is most responsible for."), components));
}

// Boxes for columns, of which only so many may be chosen.
function columnChooser(names, changed) {
  const boxes = names.map((name) => el("input", { type: "checkbox" }));
  const labels = names.map((name, i) => el("label", {}, boxes[i], el("span", {}, name)));
  const chosen = () => boxes.flatMap((box, i) => (box.checked ? [i] : []));
  boxes.forEach((box) => box.addEventListener("change", () => { if (chosen().length) changed(chosen()); else box.checked = true; }));
  const hint = el("p", { class: "hint" }), field = el("input", {
    type: "search", class: "search", placeholder: "Search columns", "aria-label": "Search columns", hidden: names.length < 13,
    oninput: () => labels.forEach((label, i) => { label.hidden = !names[i].toLowerCase().includes(field.value.trim().toLowerCase()); }),
  });
  function mark(columns, most) {
    boxes.forEach((box, i) => { box.checked = columns.includes(i); box.disabled = !box.checked && columns.length >= most; });
    hint.textContent = `At most ${most} at once. At first those are shown in which components differ most.`;
  }
  return { content: el("div", {}, hint, field, el("div", { class: "boxes" }, ...labels)), mark };
}

// A triangle of panels: densities on the diagonal, pairs below it.
function matrix(page, places, state, width, pick) {
  const n = page.columns.length, one = n === 1;
  const smallest = Math.max(SMALLEST, Math.min(LARGEST, (width - RIGHT) / n - 30)); // about what it will be
  const beside = page.names.map((name) => wrapped(name, smallest)), deep = Math.max(...beside.slice(1).map((lines) => lines.length), 1);
  const longest = Math.max(...page.ranges.slice(1).flatMap((range) => upright(range, smallest).map(([, text]) => measured(text))), 20);
  const LEFT = NAME + LINE * deep + longest + NEAR;
  const cell = one ? Math.min(560, width - LEFT - RIGHT) : Math.max(SMALLEST, Math.min(LARGEST, (width - LEFT - RIGHT - (n - 1) * GAP) / n));
  const tall = one ? 0.55 * cell : cell, step = cell + GAP;
  const below = page.names.map((name) => wrapped(name, cell - GAP)), low = Math.max(...below.map((lines) => lines.length));
  const W = LEFT + n * step - GAP + RIGHT, H = n * (tall + GAP) + BOTTOM + LINE * (low - 1), ratio = Math.min(2, devicePixelRatio || 1);
  const canvas = el("canvas", { width: Math.round(W * ratio), height: Math.round(H * ratio), "aria-hidden": "true", style: `left:0;top:0;width:${W}px;height:${H}px` });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Pairs of ${page.names.join(", ")}: rows, and components as ellipses`, style: `width:${W}px;height:${H}px;cursor:crosshair` });
  const left = (j) => LEFT + j * step, top = (i) => i * (tall + GAP) + 2;
  const picked = state.row && page.columns.map((c, i) => (state.row[c] == null ? null : share(state.row[c], page.ranges[i])));
  const soft = colour("soft").join(","), strong = colour("c5").join(",");
  const chosen = page.components.index.indexOf(state.component);
  const dots = (page.owners ?? []).map((k) => chosen >= 0 && k === state.component);
  const size = page.rows.length > 600 ? 1.3 : 2;

  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const clip = `panel-${i}-${j}`, x0 = left(j), y0 = top(i);
      const sx = (v) => x0 + v * cell, sy = (v) => y0 + (1 - v) * tall;
      root.append(
        svg("clipPath", { id: clip }, svg("rect", { x: x0, y: y0, width: cell, height: tall })),
        svg("rect", { x: x0, y: y0, width: cell, height: tall, style: "fill:none;stroke:var(--line)" }));
      const group = svg("g", { "clip-path": `url(#${clip})` });
      root.append(group);
      if (i === j) diagonal(group, page, i, { sx, y0, tall, cell }, chosen, picked?.[i]);
      else {
        context.save();
        context.beginPath();
        context.rect(x0, y0, cell, tall);
        context.clip();
        for (const on of [false, true]) {
          context.fillStyle = on ? `rgba(${strong},.8)` : `rgba(${soft},${chosen >= 0 ? 0.2 : 0.45})`;
          page.rows.forEach((_, r) => {
            if (dots[r] !== on) return;
            const x = places[r * n + j], y = places[r * n + i];
            if (Number.isNaN(x) || Number.isNaN(y)) return;
            context.beginPath();
            context.arc(sx(x), sy(y), size, 0, 7);
            context.fill();
          });
        }
        context.restore();
        ellipses(group, page, i, j, sx, sy, chosen);
        if (picked && picked[i] != null && picked[j] != null) group.append(svg("circle", { class: "picked", cx: sx(picked[j]), cy: sy(picked[i]), r: 6, style: "fill:none;stroke:var(--c5);stroke-width:3" }));
      }
      if (j === 0 && i > 0) {
        for (const [v, text] of upright(page.ranges[i], tall)) root.append(svg("text", { x: x0 - NEAR, y: sy(v) + 4, "text-anchor": "end" }, text));
        root.append(named(page.names[i], { x: -(y0 + tall / 2), y: LINE - 2, transform: "rotate(-90)" }, wrapped(page.names[i], tall - GAP)));
      }
      if (i === n - 1) {
        for (const [v, text] of along(page.ranges[j], cell)) root.append(svg("text", { x: sx(v), y: y0 + tall + 16, "text-anchor": "middle" }, text));
        root.append(named(page.names[j], { x: sx(0.5), y: y0 + tall + 34 }, below[j]));
      }
    }
  }
  root.addEventListener("click", (event) => {
    const box = root.getBoundingClientRect(), x = ((event.clientX - box.left) * W) / box.width, y = ((event.clientY - box.top) * H) / box.height;
    const j = Math.floor((x - LEFT) / step), i = Math.floor(y / (tall + GAP));
    if (i < 0 || j < 0 || i >= n || j > i) return;
    const row = nearest(page, places, i, j, (v) => left(j) + v * cell - x, (v) => top(i) + (1 - v) * tall - y);
    if (row != null) pick(row);
  });
  return el("div", { class: "layers", style: `width:${W}px;height:${H}px` }, canvas, root);
}

const share = (v, [low, high]) => (v - low) / (high - low);

function nearest(page, places, i, j, dx, dy) {
  const n = page.columns.length;
  let best = REACH ** 2, found = null;
  page.rows.forEach((row, r) => {
    const far = dx(places[r * n + j]) ** 2 + (i === j ? 0 : dy(places[r * n + i]) ** 2);
    if (far < best) { best = far; found = row; }
  });
  return found;
}

function diagonal(group, page, i, { sx, y0, tall, cell }, chosen, picked) {
  const { at, density } = page.densities[i], heights = page.histograms?.[i] ?? [];
  const most = Math.max(1e-9, ...density, ...heights) * 1.08, sy = (v) => y0 + tall * (1 - v / most);
  const bar = cell / heights.length;
  heights.forEach((v, b) => group.append(svg("rect", { x: sx(0) + b * bar, y: sy(v), width: Math.max(0.5, bar - 0.5), height: y0 + tall - sy(v), style: "fill:var(--soft);opacity:.35" })));
  group.append(svg("path", { class: "line density", d: path(at.map((v, k) => [sx(v), sy(density[k])])), style: "stroke:var(--c0)" }));
  if (chosen >= 0) {
    const { centres, covariances, weights } = page.components, mean = centres[chosen][i], variance = covariances[chosen][i][i];
    const own = (v) => (weights[chosen] * Math.exp((-0.5 * (v - mean) ** 2) / variance)) / Math.sqrt(2 * Math.PI * variance);
    group.append(svg("path", { class: "line", d: path(at.map((v) => [sx(v), sy(own(v))])), style: "stroke:var(--c5)" }));
  }
  if (picked != null) group.append(svg("line", { class: "picked", x1: sx(picked), x2: sx(picked), y1: y0, y2: y0 + tall, style: "stroke:var(--c5);stroke-width:2" }));
}

function ellipses(group, page, i, j, sx, sy, chosen) {
  const { centres, covariances, weights, index } = page.components, heaviest = Math.max(...weights);
  const draw = (c, on) => {
    const a = covariances[c][j][j], b = covariances[c][i][j], d = covariances[c][i][i], l = Math.sqrt(a), m = b / l, r = Math.sqrt(Math.max(0, d - m * m));
    const strength = (chosen >= 0 && !on ? 0.25 : 1) * (0.35 + (0.65 * weights[c]) / heaviest);
    for (const sigma of [1, 2]) {
      const points = CIRCLE.map(([u, v]) => [sx(centres[c][j] + sigma * l * u), sy(centres[c][i] + sigma * (m * u + r * v))]);
      group.append(svg("path", { class: on ? "ellipse on" : "ellipse", "data-k": index[c], d: path(points), style: `stroke:var(--${on ? "c5" : "c1"});stroke-width:${on ? 2.4 : sigma === 1 ? 1.8 : 1.2};opacity:${on ? 1 : strength.toFixed(2)}` }));
    }
  };
  index.forEach((_, c) => { if (c !== chosen) draw(c, false); });
  if (chosen >= 0) draw(chosen, true);
}

// Ticks of a range that fit on a side of so many pixels, as [share of the side, text]; `size` is
// what a text needs along the side.
function fitting(range, length, most, size) {
  let best = [];
  for (let about = most; about > 0 && best.length < 2; about--) {
    const found = labelled(...range, about).map(([v, text]) => [share(v, range), text])
      .filter(([at, text]) => Math.min(at, 1 - at) * length + GAP / 2 >= size(text) / 2);
    const free = found.every(([at, text], k) => !k || (at - found[k - 1][0]) * length >= APART + (size(text) + size(found[k - 1][1])) / 2);
    if (free && found.length > best.length) best = found;
  }
  return best;
}

const along = (range, length) => fitting(range, length, Math.max(2, Math.round(length / 60)), measured);
const upright = (range, length) => fitting(range, length, Math.max(3, Math.round(length / 45)), () => 10);

function componentTable(page, owned, state, choose) {
  const { index, weights, means, deviations } = page.components;
  return el("div", { class: "table" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", {}, "component"), el("th", {}, "weight"), el("th", {}, "training rows"), ...page.names.map((name) => el("th", { class: "named", title: name }, name)))),
    el("tbody", {}, ...index.map((k, i) => el("tr", { class: k === state.component ? "chosen" : "" },
      el("td", {}, el("button", { type: "button", class: "small", "data-k": k, "aria-pressed": String(k === state.component), onclick: () => choose(k) }, `component ${k}`)),
      el("td", {}, percent(weights[i])),
      el("td", {}, owned ? count(owned.counts[k]) : "…"),
      ...means[i].map((mean, d) => el("td", {}, spread(mean, deviations[i][d]))))))));
}

function more(page, all) {
  const { index, total } = page.components, left = Math.min(200, total) - index.length;
  return left > 0 ? el("div", { class: "row" }, el("button", { type: "button", onclick: all }, `${left} more components`)) : "";
}

function told(found, { names }, shown) {
  const rest = names.map((_, i) => i).filter((i) => !shown.includes(i)), value = (i) => [names[i], exact(found.values[i]) || "–"];
  const what = found.whole ? "log-likelihood" : "log p(what is there)";
  return [
    facts([[what, nats(found.log_likelihood)], ...rank(found)]),
    el("h3", {}, "Components that explain it"), bars(found.responsibilities),
    el("h3", {}, "Values"), facts(shown.map(value)),
    rest.length ? el("details", {}, el("summary", {}, `${rest.length} other columns`), facts(rest.map(value))) : "",
  ];
}
