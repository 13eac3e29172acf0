// The page: a filter over the matrix, and the details of the cell that the address names. Text enters by textContent.

const DATA = JSON.parse(document.getElementById("data").textContent);
const VERDICTS = ["FAIL", "ERROR", "INCONCLUSIVE", "PASS", "SKIP"];
const panel = document.getElementById("panel");
const table = document.querySelector(".matrix table");
const heads = [...table.tHead.rows[0].cells];
const lines = [...table.tBodies[0].rows];
const address = (model, check) => `#${encodeURIComponent(model)}/${encodeURIComponent(check)}`;

/** The model of a line. Of a single model, every check has a line. */
const modelOf = (row) => DATA.rows[DATA.rows.length === 1 ? 0 : row.sectionRowIndex];

/** Every cell with its link, position and record. A link is found by what it says, however it was escaped. */
const cells = new Map();
for (const link of table.querySelectorAll("td > a")) {
  const cell = link.parentElement, row = cell.parentElement;
  const [model, check] = link.hash.slice(1).split("/").map(decodeURIComponent);
  const record = modelOf(row).records[check];
  cells.set(link, { link, model, check, record, row, column: cell.cellIndex, words: `${model} ${check} ${record.label ?? ""}`.toLowerCase() });
}
const byAddress = new Map([...cells.values()].map((cell) => [address(cell.model, cell.check), cell]));

function element(tag, kind, ...children) {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// -------------------------------------------------------------------------------------------------------- details

/** Text with its web addresses as links. */
function linked(text) {
  return text.split(/(https?:\/\/[^\s,;)]+)/).map((part, i) => {
    if (i % 2 === 0) return part;
    const link = element("a", "", part);
    Object.assign(link, { href: part, rel: "noopener noreferrer", target: "_blank" });
    return link;
  });
}

/** A formula with its subscripts and exponents: E_p, sigma_{t-1}, x^2. Names such as log_prob stay as they are. */
function formula(text) {
  return text.split(/((?<![\p{L}\p{N}_])\p{L}_(?:\{[^}]*\}|\w{1,3}\b)|\^(?:\{[^}]*\}|-?\w+))/u).flatMap((part, i) => {
    if (i % 2 === 0) return [part];
    const bare = (script) => script.replace(/^\{|\}$/g, "");
    return part[0] === "^" ? [element("sup", "", bare(part.slice(1)))] : [part[0], element("sub", "", bare(part.slice(2)))];
  });
}

function copying(text, wraps) {
  const button = element("button", "", "copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "copied" : "press Ctrl-C";
    setTimeout(() => (button.textContent = "copy"), 1600);
  });
  return element("div", wraps ? "copying wrap" : "copying", element("pre", "", text), button);
}

/** Copy by the clipboard's interface or, where a page from a file may not use it, by a selection. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", "unseen");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

function figure(plot, caption) {
  return element("figure", "", plot, element("figcaption", "", caption));
}

function facts(record, run) {
  const seen = record.evidence, list = element("dl", "");
  const add = (name, text, kind) => list.append(element("div", kind, element("dt", "", name), element("dd", "", text)));
  const unit = seen.unit ? ` ${seen.unit}` : "";
  if (seen.type === "exact" || seen.type === "estimated") {
    add("statistic", short(record.statistic) + unit);
    add("bound", short(record.bound) + unit);
    add(seen.type === "exact" ? "points" : "draws", count(record.n ?? 0));
  }
  if (seen.type === "estimated") {
    add("tolerance", short(seen.tolerance) + unit);
    add("share of α", short(record.alpha));
    if (seen.columns > 1) add("watched together", `${seen.columns} quantities`);
  }
  add("seconds", short(record.seconds ?? 0));
  if (DATA.runs.length > 1) add("run", `${run + 1}: ${DATA.runs[run].effort.name}`);
  if (DATA.runs.length > 1 || record.seed) add("seed", `${record.seed ?? DATA.runs[run].seed}`);
  if (record.device) add("device", record.device);
  if (seen.where) add("where", seen.where, "wide");
  return list;
}

function evidence(record, model) {
  const seen = record.evidence, parts = [];
  if (seen.type === "estimated") {
    const sure = short(100 * seen.confidence), crossed = crossing(seen.path, record.alpha);
    const mark = crossed ? " ▾ marks where the evidence is conclusive." : "";
    parts.push(element("h3", "", "Confidence sequence"));
    parts.push(figure(sequencePlot(seen, record.alpha), `Estimate and ${sure} % interval, valid at all numbers of draws together. The law says 0; a PASS must lie within the green band, ±${short(seen.tolerance)}.${mark}`));
    parts.push(element("h3", "", "Evidence against the law"));
    parts.push(figure(evidencePlot(seen, record.alpha), `E-value by number of draws. A correct model ever reaches the dashed line with probability at most ${short(record.alpha)}.`));
    if (seen.asymptotic) parts.push(element("p", "why", "Asymptotic: leans on a central-limit argument, confirmed on fresh draws."));
    if (seen.cells.length) {
      const part = seen.cells.length < seen.cells_total ? `The ${seen.cells.length} of ${seen.cells_total} cells that differ most. ` : "";
      parts.push(element("h3", "", "Expected and observed masses"));
      parts.push(figure(cellsPlot(seen.cells), `${part}Bar: observed. Stroke: expected.`));
    }
  } else if (seen.type === "exact" && (value(seen.allowed) > 0 || value(seen.error) > 0) && seen.unit !== "violations") {
    parts.push(element("h3", "", "Error and allowance"));
    parts.push(figure(errorPlot(seen, record.verdict), "Logarithmic. Allowed is what the arithmetic can explain."));
  } else if (seen.type === "raised") {
    parts.push(element("h3", "", seen.kind), element("pre", "trace", seen.trace || seen.message));
  } else if (seen.type === "absent" && seen.blocked_by && byAddress.has(address(model, seen.blocked_by))) {
    const link = element("a", "", seen.blocked_by);
    link.href = address(model, seen.blocked_by);
    parts.push(element("p", "", "Blocked by ", link, "."));
  }
  return parts;
}

function details({ model, check, record, row }) {
  const law = DATA.laws[check], close = element("button", "close", "×");
  Object.assign(close, { type: "button", title: "Close (Esc)", onclick: shut });
  close.setAttribute("aria-label", "Close");
  const parts = [close, element("h2", "", check), element("p", "of", model)];
  const sentence = element("p", "sentence", element("span", `tag ${record.verdict}`, record.verdict), " ");
  if (record.label) sentence.append(element("span", "tag note", record.label), " ");
  sentence.append(record.message);
  parts.push(sentence);
  if (record.expected) parts.push(element("p", record.attention ? "problem" : "why", record.attention ? `Expected to fail, but does not: ${record.expected}` : `Expected to fail: ${record.expected}`));
  if (law) parts.push(element("p", "law", ...formula(law.law)));
  parts.push(facts(record, modelOf(row).run), ...evidence(record, model));
  if (record.reproducer) {
    parts.push(element("h3", "", "See it again"), copying(record.reproducer.command, true));
    if (record.reproducer.script) {
      const script = element("details", "", element("summary", "", `Script, at ${count(record.reproducer.n)} draws`), copying(record.reproducer.script));
      parts.push(script);
    }
  }
  if (law && (law.why || law.source)) {
    parts.push(element("h3", "", "Why"), ...law.why.split(/\n\s*\n/).map((paragraph) => element("p", "why", paragraph)));
    if (law.source) parts.push(element("p", "why", "Source: ", ...linked(law.source)));
  }
  return parts;
}

/** What to look at first, when no cell is chosen. */
function overview() {
  const worst = [...cells.values()].filter(({ record }) => record.attention || record.verdict === "INCONCLUSIVE");
  worst.sort((a, b) => Boolean(b.record.attention) - Boolean(a.record.attention) || VERDICTS.indexOf(a.record.verdict) - VERDICTS.indexOf(b.record.verdict));
  if (!worst.length) return [element("h2", "", "Nothing needs attention"), element("p", "of", "Choose a cell to see what its verdict rests on.")];
  const list = element("ul", "list");
  for (const { model, check, record } of worst.slice(0, 60)) {
    const sign = element("span", record.verdict, element("span", "sign", DATA.signs[record.verdict]));
    const link = element("a", "", sign, element("span", "", model, " · ", check, element("small", "", record.message)));
    link.href = address(model, check);
    list.append(element("li", "", link));
  }
  const more = worst.length > 60 ? ` The first 60 of ${worst.length}.` : "";
  return [element("h2", "", "What needs attention"), element("p", "of", `Choose a cell to see what its verdict rests on.${more}`), list];
}

/** Show what the address names. */
function show() {
  let wanted = location.hash;
  try {
    wanted = address(...location.hash.slice(1).split("/").map(decodeURIComponent));
  } catch {
    // an address that is not well formed names no cell
  }
  const cell = byAddress.get(wanted);
  table.querySelector("[aria-current]")?.removeAttribute("aria-current");
  panel.replaceChildren(...(cell ? details(cell) : overview()));
  panel.scrollTop = 0;
  if (!cell) return;
  cell.link.setAttribute("aria-current", "true");
  settle(cell.link);
  reveal(cell.link);
  if (getComputedStyle(panel).position === "static") panel.scrollIntoView({ block: "start" });
}

function shut() {
  const chosen = table.querySelector("[aria-current]");
  history.pushState(null, "", location.pathname + location.search);
  show();
  chosen?.focus();
}

// --------------------------------------------------------------------------------------------------------- filter

const filter = document.getElementById("filter");
const toggles = [...document.querySelectorAll(".count")];

/** Dim what does not match; hide rows and columns in which nothing does. */
function sift() {
  const verdicts = new Set(toggles.filter((t) => t.getAttribute("aria-pressed") === "true").map((t) => t.dataset.verdict));
  const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = new Set(), columns = new Set();
  let matching = 0;
  for (const cell of cells.values()) {
    const fits = (!verdicts.size || verdicts.has(cell.record.verdict)) && terms.every((term) => cell.words.includes(term));
    cell.link.classList.toggle("out", !fits);
    if (fits) rows.add(cell.row), columns.add(cell.column), matching++;
  }
  for (const row of lines) {
    row.hidden = !rows.has(row);
    for (const cell of [...row.cells].slice(1)) cell.hidden = !columns.has(cell.cellIndex);
  }
  for (const head of heads.slice(1)) head.hidden = !columns.has(head.cellIndex);
  const reached = table.querySelector('a[tabindex="0"]');
  if (!reached?.offsetParent) settle([...cells.keys()].find((link) => link.offsetParent));
  const all = matching === cells.size;
  document.getElementById("shown").textContent = all ? "" : `${matching.toLocaleString("en")} of ${cells.size.toLocaleString("en")} cells`;
  document.getElementById("nothing").hidden = matching > 0;
}

filter.addEventListener("input", sift);
for (const toggle of toggles)
  toggle.addEventListener("click", () => {
    toggle.setAttribute("aria-pressed", toggle.getAttribute("aria-pressed") !== "true");
    sift();
  });

// ---------------------------------------------------------------------------------------------- keyboard and mouse

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** The one cell that Tab reaches. */
function settle(link) {
  table.querySelector('a[tabindex="0"]')?.setAttribute("tabindex", "-1");
  link?.setAttribute("tabindex", "0");
}

/** Scroll the matrix until a cell is neither outside it nor below its names. */
function reveal(link) {
  const box = document.getElementById("matrix"), names = table.tHead.rows[0].cells[0];
  const frame = box.getBoundingClientRect(), at = link.getBoundingClientRect();
  const left = frame.left + names.offsetWidth + 8, top = frame.top + names.offsetHeight + 8;
  box.scrollLeft += Math.min(0, at.left - left) || Math.max(0, at.right - frame.left - box.clientWidth + 8);
  box.scrollTop += Math.min(0, at.top - top) || Math.max(0, at.bottom - frame.top - box.clientHeight + 8);
}

/** The next cell that is there and not hidden, in the direction of an arrow key. */
function beside(link, [down, right]) {
  let row = link.closest("tr").sectionRowIndex + down, column = link.parentElement.cellIndex + right;
  for (; lines[row]?.cells[column] && column > 0; row += down, column += right) {
    const next = lines[row].cells[column].querySelector("a");
    if (next && next.offsetParent) return next;
  }
  return link;
}

table.addEventListener("keydown", (event) => {
  const link = event.target.closest("td > a");
  if (!link || !(event.key in STEPS)) return;
  event.preventDefault();
  const next = beside(link, STEPS[event.key]);
  settle(next);
  next.focus({ preventScroll: true });
  reveal(next);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && table.querySelector("[aria-current]")) shut();
  if (event.key === "/" && event.target !== filter) event.preventDefault(), filter.focus();
});

for (const kind of ["mouseover", "focusin"])
  table.addEventListener(kind, (event) => {
    const cell = cells.get(event.target.closest("td > a"));
    for (const head of table.querySelectorAll(".hot")) head.classList.remove("hot");
    if (!cell) return;
    heads[cell.column].classList.add("hot");
    cell.link.title ||= `${cell.model}\n${cell.check}\n${cell.record.verdict}: ${cell.record.message}`;
  });

document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "light dark" ? matchMedia("(prefers-color-scheme: dark)").matches : document.documentElement.dataset.theme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});

window.addEventListener("hashchange", show);
settle(table.querySelector("td > a"));
show();
