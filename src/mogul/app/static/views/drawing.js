// A mask drawn on an image, and what the model fills in while it is drawn.

import { get, newest, pack, post, send, unpack } from "../api.js";
import { el, facts, filled, slider, told } from "../dom.js";
import { fixed, milliseconds, nats, percent, readable } from "../numbers.js";
import { draw, wall } from "../pixels.js";
import { brush, MASKS } from "../mask.js";

const SAMPLES = 4, FIRST = 24;
const REST = 250; // milliseconds without a stroke

export async function render(model, page) {
  const [height, width] = model.shape;
  const observed = new Uint8Array(height * width);
  MASKS.right(observed, [height, width]);
  const canvas = el("canvas", { class: "paint", tabindex: 0, role: "application", "aria-label":
    "The image; draw with the mouse or a finger to hide pixels. Arrow keys move, space hides or reveals." });
  const mean = el("canvas", { role: "img", "aria-label": "In-painted: the conditional mean" });
  const deviation = el("canvas", { role: "img", "aria-label": "Uncertainty: the conditional standard deviation" });
  const others = Array.from({ length: SAMPLES }, (_, i) => el("canvas", { role: "img", "aria-label": `Alternative ${i + 1}` }));
  const scores = el("div", { "aria-live": "polite" }), problem = el("div");
  const uncertain = el("figcaption", {}, "uncertainty"), treated = el("p", { class: "hint", role: "status" });
  let image = null, pixels = null, seed = 0, noise = false;
  let turn = 0, rested = -1, start = null, timer = null; // of searches: which is the newest, the last whole one, its latents

  const paint = () => pixels && draw(canvas, shaded(pixels, observed, model.shape, tool.cursor()), [height, width, 3]);
  const tool = brush(canvas, observed, [height, width], () => { paint(); fill(); });

  // Decoders search for latents: along a stroke from those of the answer before, in few steps; when
  // the pointer rests, thoroughly. Of mixtures every answer is exact.
  const fill = () => {
    turn += 1;
    clearTimeout(timer);
    live(!model.searched);
  };
  const answered = async (settled) => {
    if (!image) return;
    const since = performance.now(), mine = turn, [own, mask] = [image, pack(observed, [height, width])];
    try {
      const found = await post("inpaint", { image: own, mask, samples: SAMPLES, seed, noise, settled, start: settled ? null : start });
      const late = settled ? mine !== turn : rested === turn; // another is asked for, or a better one known
      if (own !== image || (model.searched && late)) return;
      if (settled) rested = mine;
      start = found.latents ?? null;
      draw(mean, unpack(found.mean).values, model.shape);
      draw(deviation, unpack(found.deviation).values, model.shape);
      const samples = unpack(found.samples).values;
      others.forEach((other, i) => draw(other, samples, model.shape, i));
      uncertain.textContent = `${found.deviation_of}, white is ${readable(found.largest_deviation)}`;
      parts.observed = [found.what, nats(found.observed)];
      const search = model.searched ? (settled ? ", by a whole search" : ", by a short search; a whole one follows when the pointer rests") : "";
      parts.time = ["answered in", `${milliseconds(performance.now() - since)}${search}`];
      problem.replaceChildren();
    } catch (error) {
      problem.replaceChildren(told(error));
    }
    tell();
  };
  const live = newest(async (settled) => {
    await answered(settled);
    clearTimeout(timer);
    if (!settled) timer = setTimeout(() => { timer = null; settle(); }, REST);
  });
  const settle = newest(async () => { if (timer == null) await answered(true); });

  const parts = {};
  function tell() {
    scores.replaceChildren(facts([parts.whole, parts.percentile, parts.component, parts.observed, parts.time].filter(Boolean)));
  }

  async function use(next, bytes, done = []) {
    [image, pixels, start] = [next, bytes, null];
    treated.textContent = done.length ? `The uploaded image was ${listed(done)}.` : "";
    delete parts.whole; delete parts.percentile; delete parts.component;
    paint();
    fill();
    if (!model.scored) return;
    try {
      const found = await post("score", image);
      parts.whole = ["log p(whole image)", nats(found.log_likelihood)];
      if (found.percentile != null) parts.percentile = ["percentile", `${percent(found.percentile / 100)} of the training images are less likely`];
      parts.component = ["component", found.components.flatMap((k, i) => (found.responsibilities[i] < 5e-4 ? [] : [`${k} (${percent(found.responsibilities[i])})`])).join(", ")];
      tell();
    } catch (error) {
      problem.replaceChildren(told(error));
    }
  }

  async function upload(file) {
    problem.replaceChildren();
    try {
      const found = await send("upload", file);
      await use({ pixels: found.pixels }, unpack(found.pixels).values, found.done);
    } catch (error) {
      problem.replaceChildren(told(error));
    }
  }

  const content = el("section", {},
    el("h2", {}, "Draw what is hidden"),
    el("p", { class: "soft" }, "Draw on the image: the pixels under the brush are hidden from the model, which fills them in from the rest."),
    el("div", { class: "drawing" },
      el("div", { class: "card" }, canvas, treated, controls(tool, observed, [height, width], () => { paint(); fill(); })),
      el("div", { class: "card" },
        el("div", { class: "pair" },
          el("figure", {}, mean, el("figcaption", {}, "filled in")),
          el("figure", {}, deviation, uncertain)),
        el("h3", {}, "Alternatives"),
        el("div", { class: "four" }, ...others),
        el("div", { class: "row" },
          el("button", { type: "button", onclick: () => { seed += 1; fill(); } }, "Others"),
          el("label", {}, el("input", { type: "checkbox", onchange: (event) => { noise = event.target.checked; fill(); } }), " with noise")),
        scores, problem)),
    ...chooser(model, use, upload, Math.floor(+page.argument) || 0));
  dropped(content, upload);
  return { content, leave: () => clearTimeout(timer) };
}

const listed = (parts) => [parts.slice(0, -1).join(", "), parts[parts.length - 1]].filter(Boolean).join(" and ");

function controls(tool, observed, size, changed) {
  const modes = ["Hide", "Reveal"].map((name, i) => el("button", {
    type: "button", "aria-pressed": String(!i), onclick: () => {
      tool.reveal = Boolean(i);
      modes.forEach((m, j) => m.setAttribute("aria-pressed", String(i === j)));
    } }, name));
  const reach = slider("brush", { min: 0.5, max: Math.max(3, size[0] / 5), step: 0.5, value: tool.radius, show: (v) => `${fixed(v, 1)} px` }, (v) => { tool.radius = v; });
  const ready = Object.keys(MASKS).map((name) => el("button", { type: "button", onclick: () => { MASKS[name](observed, size); changed(); } }, name));
  return el("div", {},
    el("div", { class: "row", role: "group", "aria-label": "Brush" }, ...modes),
    el("div", { class: "sliders" }, reach),
    el("div", { class: "row small", role: "group", "aria-label": "Ready-made masks" }, ...ready));
}

function chooser(model, use, upload, first) {
  const place = el("div"), known = model.sets.shown;
  let start = 0;
  const file = el("input", { type: "file", accept: "image/png,image/jpeg", class: "visually-hidden", onchange: () => file.files.length && upload(file.files[0]) });
  async function page() {
    const index = Array.from({ length: Math.min(FIRST, known.rows - start) }, (_, i) => start + i);
    const found = await get(`rows/shown?${index.map((i) => `index=${i}`).join("&")}`);
    const images = unpack(found.pixels), size = images.values.length / index.length;
    const made = wall(images, (i) => ({ text: String(index[i]), alt: `Row ${index[i]}` }), (i, tile) => {
      place.querySelector("[aria-pressed=true]")?.setAttribute("aria-pressed", "false");
      tile.setAttribute("aria-pressed", "true");
      use({ row: index[i] }, images.values.slice(i * size, (i + 1) * size));
    });
    made.firstElementChild.click();
    return made;
  }
  const go = (to) => { start = Math.max(0, Math.min(known.rows - 1, to)); row.value = start; filled(place, page); };
  const row = el("input", { type: "number", min: 0, max: known ? known.rows - 1 : 0, value: 0, "aria-label": "First row to show", onchange: (event) => go(Math.floor(+event.target.value || 0)) });
  if (known) go(first);
  else place.append(el("p", { class: "hint" }, `No data to choose from: ${model.missing.shown ?? ""} Upload an image.`));
  return [
    el("h3", {}, known ? `Images of ${known.name}` : "Images"),
    el("div", { class: "row" },
      el("label", { class: "button" }, "Upload an image", file),
      ...(known ? [
        el("button", { type: "button", onclick: () => go(start - FIRST) }, "Earlier"),
        el("button", { type: "button", onclick: () => go(start + FIRST) }, "Later"),
        el("label", {}, "from row ", row)] : []),
      el("span", { class: "hint" }, "or drop a PNG or JPEG here")),
    place,
  ];
}

function dropped(place, upload) {
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("drop"); });
  place.addEventListener("dragleave", () => place.classList.remove("drop"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("drop");
    if (event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  });
}

// The image with hidden pixels tinted, and the keyboard's place marked.
function shaded(bytes, observed, shape, cursor) {
  const colours = 3, own = shape.length === 3 ? 3 : 1, out = new Uint8Array(observed.length * colours);
  for (let i = 0; i < observed.length; i++) {
    const [y, x] = [Math.floor(i / shape[1]), i % shape[1]];
    const here = cursor && cursor[0] === y && cursor[1] === x, hatch = (x + y) % 2 ? 150 : 120;
    for (let c = 0; c < colours; c++) {
      const value = bytes[i * own + (own === 3 ? c : 0)];
      out[i * colours + c] = observed[i] ? value : [hatch * 0.55, hatch * 0.85, hatch * 1.5][c];
      if (here) out[i * colours + c] = [255, 120, 60][c];
    }
  }
  return out;
}
