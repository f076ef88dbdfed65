// A map of latents to decode from, lines between images, and the components of the prior.

import { get, newest, post, unpack } from "../api.js";
import { lines } from "../charts.js";
import { el, facts, filled, told } from "../dom.js";
import { pointMap } from "../map.js";
import { count, fixed, nats, percent, readable } from "../numbers.js";
import { draw, wall } from "../pixels.js";

const LISTED = 12; // groups that the legend names

export async function render(model) {
  const found = await get("latents");
  const panel = decodedPanel(model, found), between = el("div"), legend = el("div", { class: "legend" });
  let through = found.latents > 2 ? "row" : "mean";
  const ends = [null, null], left = el("p", { class: "hint", role: "status" });

  const decode = newest(async (at) => {
    try {
      const answer = await post("latents/decode", { at, through });
      panel.show(answer);
      map.mark(answer.place);
    } catch (error) { panel.fail(error); }
  });
  const line = newest((start, end) => filled(between, async () => {
    const answer = await post("latents/line", { start, end });
    return lineOf(model, found, answer);
  }));
  const join = () => {
    map.join(ends.filter((i) => i != null));
    if (ends.every((i) => i != null)) line(...ends);
  };
  const map = pointMap({
    points: unpack(found.points), outlines: unpack(found.outlines), moved: decode,
    label: "Map of latents: point at it, or move the crosshair by arrow keys",
    keyed: (groups, inks) => legend.replaceChildren(...key(groups, inks)),
    joined: (a, b) => { ends[0] = a; ends[1] = b; join(); },
    fitted: (points, outlines) => { left.textContent = beyond(points, outlines, found); },
  });
  const choose = (which) => () => { ends[which] = map.nearest(map.at); join(); };
  const plane = el("select", { onchange: (event) => { through = event.target.value; decode(map.at); } },
    el("option", { value: "row" }, "the nearest row's, moved in this plane"),
    el("option", { value: "mean" }, "in the plane through the mean"));

  const status = el("p", { class: "hint", role: "status" });
  grouped(map, status, panel);
  const edge = extremes(map.range.x);
  [ends[0], ends[1]] = edge;
  join();
  map.go(map.point(edge[1]), true);

  const what = found.means ? "Means of the posteriors" : "Means of the particles";
  const rows = count(found.rows.length);
  const axes = found.latents > 2
    ? `along the two principal axes of their ${found.latents} latents, which hold ${percent(found.share)} of the variance`
    : found.latents === 2 ? "by their two latents" : "by their one latent";
  const prior = found.components === 1 ? "The ellipse is one standard deviation of the prior."
    : `Ellipses are one standard deviation of ${found.components > found.weights.length ? `the ${found.weights.length} heaviest of ` : "the prior's "}${found.components} components${found.components > found.weights.length ? " of the prior" : ""}.`;
  const content = el("div", { class: "stack" },
    el("div", { class: "split" },
      el("section", { class: "card" }, el("h2", {}, "Map of latents"), map.canvas, legend, left, status),
      el("section", { class: "card" }, el("h2", {}, "Decoded"), panel.root,
        el("div", { class: "row" },
          el("button", { type: "button", onclick: choose(0) }, "Line from here"),
          el("button", { type: "button", onclick: choose(1) }, "Line to here")),
        ...(found.latents > 2 ? [el("p", {}, el("label", {}, "Latents are ", plane))] : []),
        el("p", { class: "hint", id: "how" }, "Point at the map, touch it, or move the crosshair by arrow keys (faster with Shift) to decode what is there; a click keeps a place. Drag the mouse from one row to another to see what lies between."),
        el("p", { class: "hint" }, `${what} of ${rows} rows, ${axes}. ${prior}`))),
    el("section", {}, el("h2", {}, "Between two rows"),
      el("p", { class: "hint" }, "The straight line between the latents of two rows, decoded step by step."), between),
    ...(model.image && found.components > 1 ? [components(model, found)] : []));
  return { content, leave: map.leave };
}

// What the map leaves out, in words.
function beyond(points, outlines, { rows, weights }) {
  const parts = [
    outlines ? `parts of ${count(outlines)} of ${count(weights.length)} ellipses` : "",
    points ? `${count(points)} of ${count(rows.length)} rows` : "",
  ].filter(Boolean);
  return parts.length ? `Beyond the edge of the map: ${parts.join(", and ")}.` : "";
}

// Two points far apart that stand for a first line.
function extremes(values) {
  const order = Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
  return [order[Math.floor(0.05 * (order.length - 1))], order[Math.floor(0.95 * (order.length - 1))]];
}

async function grouped(map, status, panel) {
  const timer = setTimeout(() => { status.textContent = "Groups of the points are being found …"; }, 400);
  try {
    const groups = await get("latents/groups");
    map.group(groups);
    panel.name((place) => `${groups.what} ${groups.names[groups.group[place]]}`);
    status.textContent = "";
  } catch (error) {
    status.textContent = error.message;
  } finally { clearTimeout(timer); }
}

function key(groups, inks) {
  const n = groups.names.length;
  if (n > LISTED) return [el("span", {}, `Coloured by ${groups.what}, of ${n}.`)];
  return [el("span", {}, `${groups.what}:`),
    ...groups.names.map((name, i) => el("span", {}, el("i", { style: `background:${inks[i]}` }), name))];
}

// The decoded place beside the row with the nearest latents: pictures, or of a table numbers.
function decodedPanel(model, found) {
  const decoded = el("canvas", { role: "img", "aria-label": "The decoded latents" });
  const near = el("canvas", { role: "img", "aria-label": "The row with the nearest latents" });
  const nearCaption = el("figcaption", {}, "nearest row"), numbers = el("div", { class: "table" });
  const said = el("div", { "aria-live": "polite" });
  const shape = model.shape;
  let name = null, last = null;
  const pictures = el("div", { class: "pair" },
    el("figure", {}, decoded, el("figcaption", {}, "decoded")),
    ...(found.of ? [el("figure", {}, near, nearCaption)] : []));

  function tell() {
    const near = `${count(last.row)}${name ? `, ${name(last.place)}` : ""}`;
    const z = last.latents.length <= 3 ? [["latents", last.latents.map((v) => fixed(v, 2)).join(", ")]] : [];
    const from = last.through == null ? [] : [["through row", count(last.through)]];
    said.replaceChildren(facts([["log p(z)", nats(last.log_prior)], ...z, ...from, ["nearest row", near]]));
  }

  return {
    root: el("div", {}, model.image ? pictures : numbers, said,
      found.of ? null : el("p", { class: "hint" }, `The training data cannot be opened: ${model.missing.train ?? "they have other rows now"}.`)),
    show(answer) {
      last = answer;
      if (model.image) {
        draw(decoded, unpack(answer.decoded.pixels).values, shape);
        if (answer.nearest) draw(near, unpack(answer.nearest.pixels).values, shape);
      } else {
        const columns = [answer.decoded, ...(answer.nearest ? [answer.nearest] : [])].map((c) => unpack(c.values).values);
        numbers.replaceChildren(table(found.names, ["decoded", "nearest row"], columns));
      }
      tell();
    },
    name(of) { name = of; if (last) tell(); },
    fail(error) { said.replaceChildren(told(error)); },
  };
}

function table(names, heads, columns) {
  const scale = (i) => Math.max(...columns.map((values) => Math.abs(values[i])));
  return el("table", {},
    el("thead", {}, el("tr", {}, el("th", {}, "feature"), ...columns.map((_, j) => el("th", {}, heads[j])))),
    el("tbody", {}, ...names.map((name, i) =>
      el("tr", {}, el("td", {}, name), ...columns.map((values) => el("td", {}, readable(values[i], scale(i))))))));
}

function lineOf(model, found, answer) {
  const [from, to] = answer.rows.map(count);
  const decoded = unpack(answer.decoded[model.image ? "pixels" : "values"]), steps = decoded.shape[0];
  const along = (i) => percent(i / (steps - 1));
  const size = decoded.shape[1];
  const strip = model.image
    ? wall(decoded, (i) => ({ text: along(i), alt: `Decoded at ${along(i)} of the line` }))
    : el("div", { class: "table" }, table(found.names, Array.from({ length: steps }, (_, i) => along(i)),
      Array.from({ length: steps }, (_, i) => decoded.values.subarray(i * size, (i + 1) * size))));
  if (model.image) strip.classList.add("strip");
  const chart = lines([{ name: "log p(z)", x: answer.share.map((s) => 100 * s), y: answer.log_prior }],
    { xName: "% of the way", yName: "log p(z), nats", height: 160, alt: `Log-density of the prior along the line, from ${nats(answer.log_prior[0])} to ${nats(answer.log_prior[answer.log_prior.length - 1])}, at least ${nats(Math.min(...answer.log_prior))}` });
  return [
    el("p", {}, `From row ${from} to row ${to}.`), strip,
    el("figure", { style: "margin-top: 1.2rem" }, chart, el("figcaption", {}, "How dense the prior is along the way; in a valley lie latents that it holds to be unlikely.")),
  ];
}

function components(model, found) {
  const walls = el("div"), more = el("button", { type: "button" }, "More components"), detail = el("div", { "aria-live": "polite" });
  let shown = 0, pressed = null, turn = 0;

  async function load() {
    const page = await get(`latents/components?start=${shown}`);
    shown += page.index.length;
    more.hidden = shown >= page.total;
    const label = (i) => ({
      text: percent(page.weights[i]),
      alt: `Decoded mean of component ${page.index[i]}, weight ${percent(page.weights[i])}`,
    });
    walls.append(wall(unpack(page.decoded.pixels), label, (i, tile) => {
      pressed?.setAttribute("aria-pressed", "false");
      tile.setAttribute("aria-pressed", "true");
      pressed = tile;
      drawn(page.index[i]);
    }));
  }

  function drawn(k, seed = 0) {
    const mine = ++turn;
    filled(detail, async () => {
      const answer = await get(`latents/components/${k}?seed=${seed}`);
      if (mine !== turn) return detail.childNodes.length ? [...detail.childNodes] : [];
      return [el("h3", {}, `Samples from component ${k}`),
        wall(unpack(answer.decoded.pixels), (i) => ({ text: "", alt: `Sample ${i + 1} from component ${k}` })),
        el("div", { class: "row" }, el("button", { type: "button", onclick: () => drawn(k, seed + 1) }, "Draw again"))];
    });
  }

  more.addEventListener("click", () => load().catch((error) => walls.append(told(error))));
  load().catch((error) => walls.append(told(error)));
  return el("section", {}, el("h2", {}, "Components of the prior, the heaviest first"),
    el("p", { class: "hint" }, `Decoded means of the ${found.components} components. Choose one to draw from it.`),
    walls, el("div", { class: "row" }, more), detail);
}
