// Numbers as the page writes them, in every view.

const NONE = "–";
const SMALL = 1e-3, LARGE = 1e9; // beyond these, powers of ten
const COARSE = 1e6; // what large values must vary by to be written so
const DIGITS = 3; // of what values vary by
const MOST = 12; // decimals
const SINGLE = 12; // digits from which a number of 32 bits is written as one

const power = (size) => Math.floor(Math.log10(size));
const powers = (value, digits) => value.toExponential(digits).replace("e+", "e");
const grouped = (value, decimals) => value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
const decimals = (scale, digits = DIGITS) => (scale > 0 && Number.isFinite(scale) ? Math.max(0, Math.min(MOST, digits - 1 - power(scale))) : DIGITS);

// With so many decimals, for what the page itself sets: pixels of a brush, deviations of a slider.
export const fixed = (value, places) => (value == null || Number.isNaN(value) ? NONE : grouped(value, places));

export const figure = (value) => fixed(value, Number.isInteger(value) ? 0 : 4); // of a fit, of any kind
export const count = (value) => (value == null ? NONE : value.toLocaleString("en"));
export const logs = (value) => fixed(value, 2); // log-densities
export const nats = (value) => `${logs(value)} nats`;
export const milliseconds = (value) => `${fixed(value, 0)} ms`;
export const seconds = (value) => `${fixed(value, 1)} s`;

// A share of one, in percent: a decimal, or two digits of what is smaller than one in a hundred.
export function percent(share) {
  if (share == null || Number.isNaN(share)) return NONE;
  const value = 100 * share;
  if (value > 0 && value < SMALL) return `< ${SMALL} %`;
  return `${fixed(value, value > 0 && value < 1 ? 1 - power(value) : 1)} %`;
}

// A value to three digits of what it varies by, so that those beside it are told apart: of a
// measured value its deviation, else the range of its column; of a value alone itself.
export function readable(value, scale = Math.abs(value)) {
  if (value == null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size && ((size < SMALL && scale < SMALL) || (size >= LARGE && scale >= COARSE))) return powers(value, DIGITS);
  return grouped(value, decimals(scale));
}

export const spread = (value, deviation) => `${readable(value, deviation)} ± ${readable(deviation, deviation)}`;

// A value of the data with every digit that it has, and no more: the shortest text that is read
// back as the same number, in 32 bits if it is one of these.
export function exact(value) {
  if (value == null || !Number.isFinite(value)) return value == null ? "" : String(value);
  const long = String(value).replace(/e.*|[^0-9]/g, "").length > SINGLE && Math.fround(value) === value;
  const found = (long && [6, 7, 8, 9].map((n) => +value.toPrecision(n)).find((v) => Math.fround(v) === value)) || value;
  const text = String(found), short = powers(found);
  return short.length < text.length ? short : text;
}

// A value that the page proposes, such as a place of a slider or a mean: to four digits of itself,
// and of the range of its column.
export function rounded(value, range) {
  const finest = Math.min(range || Infinity, Math.abs(value) || Infinity);
  if (!Number.isFinite(value) || !Number.isFinite(finest)) return value;
  return +value.toFixed(Math.max(0, Math.min(100, DIGITS - power(finest))));
}

// A tick of an axis, with the digits that tell it from its neighbours.
export function tick(value, step = 0) {
  const size = Math.abs(value);
  if (!size) return "0";
  if (!(step > 0)) return exact(+value.toPrecision(DIGITS));
  if (step >= 1e-4 && size < 1e7) return grouped(value, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
  return powers(value, Math.max(0, power(size * (1 + 1e-9)) - power(step * (1 + 1e-9))));
}
