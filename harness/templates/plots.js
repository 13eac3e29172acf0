"use strict";
// Plots of evidence as inline SVG. Numbers come in as JSON has them: infinity and NaN are strings. Colours are classes.

const value = (x) => ({ inf: Infinity, "-inf": -Infinity, nan: NaN })[x] ?? x;
const minus = (text) => text.replace(/-/g, "−");

/** A number for a reader: three digits, a power of ten where it is very large or small. */
function short(x) {
  x = value(x);
  if (x === null || x === undefined) return "–";
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [digits, power] = x.toExponential(2).split("e");
    return minus(`${Number(digits)}e${Number(power)}`);
  }
  return minus(String(Number(x.toPrecision(3))));
}

const count = (n) => (n < 1e6 ? n.toLocaleString("en") : `${Number((n / 1e6).toPrecision(3))}M`);

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, x] of Object.entries(attributes)) node.setAttribute(name, x);
  node.append(...children);
  return node;
}

const line = (kind, x1, y1, x2, y2) => svg("line", { class: kind, x1, y1, x2, y2 });
const label = (text, x, y, anchor = "start", kind = "") => svg("text", { x, y, "text-anchor": anchor, class: kind }, text);
const polyline = (points) => svg("polyline", { class: "path", points: points.map((p) => p.join()).join(" ") });
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

function drawing(width, height, description) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description });
}

const WIDTH = 520, LEFT = 60, RIGHT = WIDTH - 12;

/** Positions of numbers of draws on a logarithmic axis, with labels that do not touch. */
function drawsAxis(path) {
  const low = Math.log(Math.max(1, path[0][0]) / 1.35), high = Math.log(Math.max(1, path.at(-1)[0]) * 1.12);
  const at = (n) => LEFT + ((Math.log(Math.max(1, n)) - low) / (high - low)) * (RIGHT - LEFT);
  const labels = [];
  for (const [n] of [...path].reverse()) if (labels.every((m) => Math.abs(at(m) - at(n)) > 62)) labels.push(n);
  return { at, labels };
}

/** Round numbers within ±limit, 0 and the largest first, that stand at least `gap` apart once drawn. */
function ticks(limit, at, gap) {
  const top = Math.floor(Math.log10(limit)), kept = [0];
  for (let power = top; power > top - 4; power--)
    for (const digit of [5, 2, 1])
      for (const sign of [1, -1]) {
        const x = sign * digit * 10 ** power;
        if (Math.abs(x) <= limit && kept.every((y) => Math.abs(at(x) - at(y)) >= gap)) kept.push(x);
      }
  return kept;
}

/** Estimate and time-uniform interval against the number of draws: the confidence sequence closing on its verdict. */
function sequencePlot(evidence, alpha) {
  const path = evidence.path.map((look) => look.map(value)), tolerance = value(evidence.tolerance);
  const seen = path.flatMap(([, ...rest]) => rest.slice(0, 3)).filter(Number.isFinite).map(Math.abs);
  const unit = tolerance > 0 && Number.isFinite(tolerance) ? tolerance : Math.max(...seen, 1e-12) / 4;
  const limit = 1.08 * Math.max(...seen, 1.7 * unit);
  const TOP = 8, BOTTOM = 186, middle = (TOP + BOTTOM) / 2;
  // asinh is linear within the tolerance and logarithmic beyond it, so the first wide looks leave room for the last
  const y = (v) => middle - (clamp(Math.asinh(v / unit) / Math.asinh(limit / unit), -1, 1) * (BOTTOM - TOP)) / 2;
  const { at: x, labels } = drawsAxis(path), last = path.at(-1);
  const words = `estimate ${short(last[1])} in ${short(last[2])} to ${short(last[3])} after ${count(last[0])} draws`;
  const plot = drawing(WIDTH, 206, `Confidence sequence: ${words}, tolerance ${short(tolerance)}`);
  if (tolerance > 0) {
    plot.append(svg("rect", { class: "allowed", x: LEFT, width: RIGHT - LEFT, y: y(tolerance), height: y(-tolerance) - y(tolerance) }));
    plot.append(line("edge", LEFT, y(tolerance), RIGHT, y(tolerance)), line("edge", LEFT, y(-tolerance), RIGHT, y(-tolerance)));
  }
  for (const tick of ticks(limit, y, 21)) plot.append(line("grid", LEFT, y(tick), RIGHT, y(tick)), label(short(tick), LEFT - 7, y(tick) + 3.5, "end"));
  for (const n of labels) plot.append(label(count(n), x(n), BOTTOM + 15, "middle"));
  plot.append(line("axis", LEFT, BOTTOM, RIGHT, BOTTOM), line("zero", LEFT, y(0), RIGHT, y(0)));
  mark(plot, path, alpha, x, TOP, BOTTOM);
  const drawn = path.filter((look) => look.slice(1, 4).every((v) => !Number.isNaN(v)));
  if (drawn.length === 1) drawn.forEach(([n, , low, high]) => plot.append(svg("rect", { class: "band", x: x(n) - 16, width: 32, y: y(high), height: y(low) - y(high) })));
  const edges = [...drawn.map(([n, , , high]) => [x(n), y(high)]), ...drawn.map(([n, , low]) => [x(n), y(low)]).reverse()];
  plot.append(svg("polygon", { class: "band", points: edges.map((p) => p.join()).join(" ") }));
  for (const [n, , low, high] of drawn) {
    plot.append(line("whisker", x(n), y(low), x(n), y(high)));
    for (const end of [low, high]) plot.append(line("whisker", x(n) - 4, y(end), x(n) + 4, y(end)));
  }
  plot.append(polyline(drawn.map(([n, estimate]) => [x(n), y(estimate)])));
  for (const [n, estimate] of drawn) plot.append(svg("circle", { class: "dot", cx: x(n), cy: y(estimate), r: 3.6 }));
  return plot;
}

/** The look at which the evidence reached what a FAIL needs, if any. */
function crossing(path, alpha) {
  return path.find(([, , , , logE]) => !(value(logE) < -Math.log(value(alpha))));
}

function mark(plot, path, alpha, x, top, bottom) {
  const look = crossing(path, alpha);
  if (look) plot.append(line("crossing", x(look[0]), top, x(look[0]), bottom), svg("path", { class: "alarm", d: `M${x(look[0]) - 5},${top - 6}h10l-5,8z` }));
}

/** Evidence against the law, a power of ten, beside what a FAIL needs. */
function evidencePlot(evidence, alpha) {
  const path = evidence.path.map((look) => look.map(value)), needed = -Math.log10(value(alpha));
  const power = ([, , , , logE]) => logE / Math.LN10;
  const powers = path.map(power).filter(Number.isFinite);
  const low = Math.max(Math.min(0, ...powers), -0.6 * needed), high = 1.12 * Math.max(needed, ...powers);
  const TOP = 8, BOTTOM = 92;
  const y = (v) => (Number.isNaN(v) ? TOP : BOTTOM - ((clamp(v, low, high) - low) / (high - low)) * (BOTTOM - TOP));
  const { at: x, labels } = drawsAxis(path);
  const plot = drawing(WIDTH, 112, `Evidence: 10 to the ${short(Math.max(...path.map(power)))}, a FAIL needs 10 to the ${short(needed)}`);
  const ten = (v) => { const text = label("10", LEFT - 7, y(v) + 3.5, "end"); text.append(svg("tspan", { dy: -4, "font-size": 8 }, minus(String(Math.abs(v) < 100 ? Number(v.toFixed(1)) : Math.round(v))))); return text; };
  plot.append(line("axis", LEFT, BOTTOM, RIGHT, BOTTOM), line("grid", LEFT, y(0), RIGHT, y(0)), ten(0));
  if (y(needed) < y(0) - 12) plot.append(ten(needed));
  if (y(high / 1.12) < y(needed) - 12) plot.append(ten(high / 1.12));
  plot.append(line("limit", LEFT, y(needed), RIGHT, y(needed)));
  plot.append(label("a FAIL needs", LEFT + 4, y(needed) - 4, "start", "alarm"));
  for (const n of labels) plot.append(label(count(n), x(n), BOTTOM + 15, "middle"));
  mark(plot, path, alpha, x, TOP, BOTTOM);
  plot.append(polyline(path.map((look) => [x(look[0]), y(power(look))])));
  for (const look of path) plot.append(svg("circle", { class: "dot", cx: x(look[0]), cy: y(power(look)), r: 3.2 }));
  return plot;
}

/** Observed share of the draws, a bar, against expected mass, a stroke; one line a cell. */
function cellsPlot(cells) {
  const STEP = 18, START = 150, END = WIDTH - 112, height = cells.length * STEP + 6;
  const top = Math.max(...cells.flatMap(([, expected, observed]) => [value(expected), value(observed)]).filter(Number.isFinite), 1e-300);
  const x = (v) => START + (clamp(v, 0, top) / top) * (END - START) || START;
  const plot = drawing(WIDTH, height, `Expected and observed masses of ${cells.length} cells`);
  cells.forEach(([name, expected, observed], i) => {
    const y = i * STEP + 3, text = name.length > 24 ? `${name.slice(0, 23)}…` : name;
    plot.append(label(text, START - 8, y + 11.5, "end"));
    plot.append(svg("rect", { class: "observed", x: START, y: y + 2, height: STEP - 5, width: Math.max(0, x(value(observed)) - START) }));
    plot.append(line("expected", x(value(expected)), y, x(value(expected)), y + STEP - 1));
    plot.append(label(`${short(observed)} of ${short(expected)}`, WIDTH - 4, y + 11.5, "end"));
  });
  return plot;
}

/** Error against what the arithmetic allows, on a logarithmic scale; 0 stands at the left end. */
function errorPlot(evidence, verdict) {
  const [error, allowed, uncertainty] = [evidence.error, evidence.allowed, evidence.uncertainty].map(value);
  const positive = [error, allowed, error + uncertainty].filter((v) => v > 0 && Number.isFinite(v));
  const low = Math.floor(Math.log10(Math.min(...positive))) - 1, high = Math.ceil(Math.log10(Math.max(...positive))) + 1;
  const x = (v) => LEFT + (v > 0 ? clamp((Math.log10(v) - low) / (high - low), 0, 1) : Number.isNaN(v) ? 1 : 0) * (RIGHT - LEFT);
  const plot = drawing(WIDTH, 78, `Error ${short(error)}, allowed ${short(allowed)}`), Y = 34, colour = { PASS: "ok", FAIL: "alarm" }[verdict] ?? "unsure";
  plot.append(svg("rect", { class: "allowed", x: LEFT, y: Y - 14, width: Math.max(0, x(allowed) - LEFT), height: 28 }));
  plot.append(line("edge", x(allowed), Y - 14, x(allowed), Y + 14));
  const side = x(allowed) > WIDTH - 120 ? "end" : "start";
  plot.append(label(`allowed ${short(allowed)}`, x(allowed) + (side === "end" ? -5 : 5), Y + 11, side));
  plot.append(line("axis", LEFT, Y + 14, RIGHT, Y + 14));
  const every = Math.ceil((high - low) / 8);
  for (let power = low; power <= high; power += every) plot.append(label(minus(`1e${power}`), x(10 ** power), Y + 29, "middle"));
  if (uncertainty > 0) plot.append(line("spread", x(Math.max(error - uncertainty, 0)), Y, x(error + uncertainty), Y));
  plot.append(svg("circle", { class: colour, cx: x(error), cy: Y, r: 5 }));
  const anchor = x(error) > WIDTH - 70 ? "end" : x(error) < LEFT + 40 ? "start" : "middle";
  plot.append(label(`error ${short(error)}`, x(error), Y - 20, anchor, colour));
  return plot;
}
