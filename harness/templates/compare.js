// The leaderboard: a table that sorts, plots of what it holds, and pictures. Text enters by textContent alone.

const BOARD = JSON.parse(document.getElementById("data").textContent);
const ROWS = BOARD.rows;
const colour = (i) => `c${i % 10}`;
const WIDE = 560, HIGH = 330, EDGE = { left: 62, right: 14, top: 12, bottom: 40 };

// ---------------------------------------------------------------------------------------------------------- sorting

const table = document.getElementById("board");
const heads = [...table.tHead.rows[0].cells];

/** Numbers before text before nothing. */
function compared(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

heads.forEach((head, column) => {
  head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const lines = [...table.tBodies[0].rows];
    const key = (line) => line.cells[column].dataset.value;
    lines.sort((a, b) => (key(a) === "" || key(b) === "" ? compared(key(a), key(b)) : (up ? 1 : -1) * compared(key(a), key(b))));
    table.tBodies[0].append(...lines);
  });
});

// ------------------------------------------------------------------------------------------------------------ plots

/** A scale from numbers to positions, linear or logarithmic, with round ticks. */
function scale(values, from, to, logarithmic) {
  const f = logarithmic ? Math.log10 : (x) => x;
  let low = Math.min(...values.map(f)), high = Math.max(...values.map(f));
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  [low, high] = [low - margin, high + margin];
  const at = (x) => from + ((f(x) - low) / (high - low)) * (to - from);
  return { at, ticks: logarithmic ? decades(low, high) : rounds(low, high) };
}

/** Powers of ten between two logarithms, or 1, 2 and 5 times them where there are few; two of them at least. */
function decades(low, high) {
  if (high - low < 0.8) return rounds(10 ** low, 10 ** high); // less than two steps from 2 to 5
  const found = [];
  const digits = high - low < 2 ? [1, 2, 5] : [1];
  const step = Math.max(1, Math.ceil((high - low) / 7));
  for (let power = Math.floor(low); power <= high; power += step)
    for (const digit of digits) if (Math.log10(digit) + power >= low && Math.log10(digit) + power <= high) found.push(digit * 10 ** power);
  return found;
}

function rounds(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
  return found;
}

function axes(plot, x, y, xName, yName) {
  const bottom = HIGH - EDGE.bottom, right = WIDE - EDGE.right;
  for (const tick of y.ticks) plot.append(line("axis", EDGE.left, y.at(tick), right, y.at(tick)), label(short(tick), EDGE.left - 6, y.at(tick) + 4, "end"));
  for (const tick of x.ticks) plot.append(line("axis", x.at(tick), EDGE.top, x.at(tick), bottom), label(short(tick), x.at(tick), bottom + 15, "middle"));
  plot.append(label(xName, (EDGE.left + right) / 2, HIGH - 6, "middle"), svg("text", { x: 12, y: (EDGE.top + bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(EDGE.top + bottom) / 2})` }, yName));
}

function titled(node, text) {
  node.append(svg("title", {}, text));
  return node;
}

function put(figure, plot) {
  figure.querySelector("svg, p")?.remove();
  figure.append(plot);
}

function nothing(figure, why) {
  const note = document.createElement("p");
  note.className = "soft";
  note.textContent = why;
  put(figure, note);
}

/** Quality against speed; the area of a dot is memory. */
function pareto(figure, of) {
  const seen = ROWS.map((row, i) => ({ row, i, seconds: row.cost?.[`seconds_per_${of}`]?.value, bytes: row.cost?.peak_memory_bytes?.value })).filter((p) => p.row.rank !== null && p.seconds > 0);
  if (!seen.length) return nothing(figure, "No ranked model has both figures.");
  const plot = drawing(WIDE, HIGH, `NLL against seconds per ${of}`);
  const x = scale(seen.map((p) => p.seconds), EDGE.left, WIDE - EDGE.right, true);
  const y = scale(seen.map((p) => p.row.nll.mean), HIGH - EDGE.bottom, EDGE.top, false);
  axes(plot, x, y, `seconds per ${of}`, "NLL, nats");
  const most = Math.max(...seen.map((p) => p.bytes ?? 0), 1);
  const dots = seen.map((p) => ({ x: x.at(p.seconds), y: y.at(p.row.nll.mean), radius: 4 + 11 * Math.sqrt((p.bytes ?? 0) / most), text: p.row.name.slice(0, 28) }));
  const places = beside(dots), names = [], leaders = []; // names are drawn last: no dot hides one
  seen.forEach((p, k) => {
    const beaten = p.row[`dominated_by_${of}`], dot = dots[k], { left, base, far } = places[k];
    const words = `${p.row.name}: ${short(p.row.nll.mean)} nats, ${short(p.seconds)} s, ${short((p.bytes ?? NaN) / 2 ** 20)} MiB${beaten ? " (dominated)" : ""}`;
    plot.append(titled(svg("circle", { class: `dot ${beaten ? "dominated" : colour(p.i)}`, cx: dot.x, cy: dot.y, r: dot.radius }), words));
    if (far) leaders.push(line("leader", dot.x, dot.y, left + roomOf(dot.text) / 2, base - 4));
    names.push(label(dot.text, left, base, "start", beaten ? "name dominated" : "name"));
  });
  plot.querySelector("circle").before(...leaders);
  plot.append(...names);
  put(figure, plot);
}

const roomOf = (text) => 6.5 * text.length;

/** Where the names of dots go: right, left, above or below, ever farther away, wherever no dot and no name is met. */
function beside(dots) {
  const taken = dots.map(({ x, y, radius }) => ({ left: x - radius, right: x + radius, top: y - radius, bottom: y + radius }));
  const frame = { left: EDGE.left, right: WIDE - EDGE.right, top: EDGE.top, bottom: HIGH - EDGE.bottom };
  const inside = (box) => box.left >= frame.left && box.right <= frame.right && box.top >= frame.top && box.bottom <= frame.bottom;
  const meets = (a) => taken.some((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom);
  return dots.map(({ x, y, radius, text }) => {
    const room = roomOf(text), right = x + radius + 4, left = x - radius - 4 - room, over = radius + 10, found = [];
    for (let away = 0; away < HIGH; away += 4)
      for (const sign of away ? [-1, 1] : [1])
        found.push([right, y + sign * away, away], [left, y + sign * away, away], [x - room / 2, y + sign * (over + away), away]);
    const boxes = found.map(([from, middle, away]) => ({ left: from, right: from + room, top: middle - 6, bottom: middle + 6, away }));
    const box = boxes.find((each) => inside(each) && !meets(each)) ?? boxes[0];
    taken.push(box);
    return { left: box.left, base: box.top + 10, far: box.away > radius };
  });
}

/** Dots and whiskers: what decided the ties. */
function gaps(figure) {
  const seen = ROWS.map((row, i) => ({ row, i })).filter((p) => p.row.rank !== null);
  if (seen.length < 2) return nothing(figure, "There is no second ranked model.");
  const height = 40 + 22 * seen.length, names = 150;
  const plot = drawing(WIDE, height, "Differences of NLL to the best model, with intervals");
  const x = scale(seen.flatMap((p) => [p.row.gap.low, p.row.gap.high, 0]), names, WIDE - EDGE.right, false);
  for (const tick of x.ticks) plot.append(line("axis", x.at(tick), 6, x.at(tick), height - 26), label(short(tick), x.at(tick), height - 10, "middle"));
  plot.append(line("zero", x.at(0), 6, x.at(0), height - 26));
  seen.forEach((p, k) => {
    const y = 20 + 22 * k, gap = p.row.gap;
    plot.append(label(`${p.row.rank}${p.row.tied ? "=" : ""}  ${p.row.name.slice(0, 20)}`, names - 10, y + 4, "end"));
    plot.append(line(`whisker ${colour(p.i)}`, x.at(gap.low), y, x.at(gap.high), y));
    plot.append(titled(svg("circle", { class: colour(p.i), cx: x.at(gap.mean), cy: y, r: 4 }), `${p.row.name}: ${short(gap.mean)} in [${short(gap.low)}, ${short(gap.high)}]`));
  });
  put(figure, plot);
}

/** Seconds of one call against n or d, a line a model. */
function growth(figure, of, variable) {
  const lines = ROWS.map((row, i) => ({ row, i, points: (row.growth?.[variable] ?? []).filter((p) => p.of === of && p.seconds > 0) })).filter((l) => l.points.length > 1 && l.row.rank !== null);
  if (!lines.length) return nothing(figure, "No ranked model has such a curve.");
  const plot = drawing(WIDE, HIGH, `Seconds of ${of} against ${variable}`);
  const all = lines.flatMap((l) => l.points);
  let x = scale(all.map((p) => p[variable]), EDGE.left, WIDE - 120, true);
  const y = scale(all.map((p) => p.seconds), HIGH - EDGE.bottom, EDGE.top, true);
  x = { at: x.at, ticks: [...new Set(all.map((p) => p[variable]))] };
  axes(plot, x, y, variable === "n" ? "rows n" : "coordinates D", "seconds");
  const drawn = lines.map((l) => ({ ...l, at: l.points.map((p) => [x.at(p[variable]), y.at(p.seconds)]) }));
  const heights = apart(drawn.map((l) => l.at.at(-1)[1]), 12, EDGE.top, HIGH - EDGE.bottom), column = WIDE - 108;
  drawn.forEach(({ row, i, at }, k) => {
    const group = svg("g", { class: "series" }), [endX, endY] = at.at(-1);
    const path = svg("polyline", { class: `curve ${colour(i)}${i < 10 ? "" : " again"}`, points: at.map((p) => p.join()).join(" ") });
    path.style.fill = "none";
    group.append(line("leader", endX, endY, column - 4, heights[k]));
    group.append(titled(path, row.name), ...at.map(([cx, cy]) => svg("circle", { class: colour(i), cx, cy, r: 2.5 })));
    group.append(label(row.name.slice(0, 18), column, heights[k] + 4));
    group.addEventListener("pointerenter", () => plot.querySelectorAll(".series").forEach((g) => g.classList.toggle("faded", g !== group)));
    group.addEventListener("pointerleave", () => plot.querySelectorAll(".series").forEach((g) => g.classList.remove("faded")));
    plot.append(group);
  });
  put(figure, plot);
}

/** Heights in the same order, moved as little as keeps them `gap` apart, between top and bottom where there is room. */
function apart(heights, gap, top, bottom) {
  const order = heights.map((_, k) => k).sort((a, b) => heights[a] - heights[b]), found = [...heights];
  let last = top - gap;
  for (const k of order) last = found[k] = Math.max(found[k], last + gap);
  let next = bottom + gap;
  for (const k of order.reverse()) next = found[k] = Math.min(found[k], next - gap);
  return found;
}

function chosen(id, draw) {
  const figure = document.getElementById(id), select = figure.querySelector("select");
  select.addEventListener("change", () => draw(figure, select.value));
  draw(figure, select.value);
}

chosen("pareto", pareto);
gaps(document.getElementById("gaps"));
chosen("growth-n", (figure, of) => growth(figure, of, "n"));
chosen("growth-d", (figure, of) => growth(figure, of, "d"));

// --------------------------------------------------------------------------------------------------------- pictures

/** Pictures side by side on one canvas, in grey levels. */
function contactSheet(shape, pictures) {
  const [height, width] = shape, columns = 6, lines = Math.ceil(pictures.length / columns);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: columns * (width + 1) - 1, height: lines * (height + 1) - 1 });
  const context = canvas.getContext("2d");
  pictures.forEach((levels, k) => {
    const image = context.createImageData(width, height);
    levels.forEach((level, j) => image.data.set([level, level, level, 255], 4 * j));
    context.putImageData(image, (k % columns) * (width + 1), Math.floor(k / columns) * (height + 1));
  });
  return canvas;
}

function picture(name, shape, pictures) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  figure.className = "card";
  caption.textContent = name;
  figure.append(caption, contactSheet(shape, pictures));
  return figure;
}

const pictured = ROWS.filter((row) => row.pictures);
if (pictured.length) {
  const section = document.getElementById("pictures");
  section.hidden = false;
  const { shape, rows } = pictured[0].pictures;
  section.querySelector("div").append(picture("rows of the data", shape, rows), ...pictured.map((row) => picture(row.rank === null ? `${row.name} (not ranked)` : row.name, shape, row.pictures.draws)));
}

// A link in the table opens the details that it leads to.
function opened() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1))) ?? document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
window.addEventListener("hashchange", opened);
opened();
