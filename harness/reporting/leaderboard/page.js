"use strict";
// All text enters the page as textContent: the browser never reads the data as HTML, as a style or as a script.

const overview = JSON.parse(document.getElementById("overview").textContent);
const byId = (id) => document.getElementById(id);
const PHONE = matchMedia("(max-width: 700px)");
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function draw(tag, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

const fixed = (value, digits = 2) => (value === null || value === undefined ? "" : value.toFixed(digits));
const signed = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(2);
const short = (value) => (value === null ? "" : value === 0 ? "0" : String(Number(value.toPrecision(3))));
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// Columns -------------------------------------------------------------------------------------------------------------

function spread(value, format = fixed) {
  if (!value) return [make("span", { class: "none" }, "\u2013")];
  const std = value[1] === null ? null : make("span", { class: "std" }, ` \u00b1 ${value[1].toFixed(2)}`);
  return [format(value[0]), std];
}

function lastCell(line) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
  const [low, high] = ranges.get(line.protocol);
  const share = line.last && high > low ? (line.last[0] - low) / (high - low) : line.last ? 1 : 0;
  bar.firstChild.style.width = `${4 + 96 * share}%`;
  return [make("span", {}, ...spread(line.last)), bar];
}

function methodCell(line) {
  const link = make("a", { href: `#line=${line.id}`, title: `${line.method} ${line.settings}` }, make("bdi", {}, line.method));
  if (line.settings) link.append(" ", make("bdi", { class: "settings" }, line.settings));
  const warnings = line.warnings ? make("span", { class: "flag", title: "runs with a warning of their method" }, plural(line.warnings, "warning")) : null;
  return [make("div", { class: "name" }, link, warnings)];
}

const protocolOf = (line) => overview.protocols[line.protocol];
const SCORE = [...new Set(Object.values(overview.protocols).map((p) => p.shown))].join(" or "); // rows of one group share one score
const COLUMNS = [
  { key: "rank", name: "Rank", width: 76, value: (l) => l.rank, show: (l) => [l.rank === null ? "" : String(l.rank)], about: "within a protocol and pair, by the mean after the last epoch" },
  { key: "method", name: "Method", width: 250, text: true, value: (l) => `${l.method} ${l.settings}`, show: methodCell },
  { key: "pair", name: "Pair", width: 190, text: true, value: (l) => l.pair, show: (l) => [l.pair.replace(" > ", " \u2192 ")] },
  { key: "last", name: "Last", width: 138, value: (l) => l.last && l.last[0], show: lastCell, about: `${SCORE} in % after the last epoch, mean \u00b1 sample std over seeds` },
  { key: "best", name: "Best", width: 126, value: (l) => l.best && l.best[0], show: (l) => spread(l.best), about: `${SCORE} in % at the best evaluated epoch: optimistic` },
  { key: "to_baseline", name: "\u2212 student", width: 146, value: (l) => l.to_baseline && l.to_baseline[0], show: (l) => spread(l.to_baseline, signed), about: "points over the undistilled student, paired by seed" },
  { key: "to_reference", name: "\u2212 KD", width: 146, value: (l) => l.to_reference && l.to_reference[0], show: (l) => spread(l.to_reference, signed), about: "points over KD, paired by seed" },
  { key: "hours", name: "Cost", width: 132, value: (l) => l.hours, show: (l) => (l.hours === null ? [make("span", { class: "none" }, "\u2013")] : [short(l.hours), make("span", { class: "std" }, ` ${l.unit}`)]), about: "per run: GPU-hours, or hours of one processor core" },
  { key: "per_hour", name: "Per hour", width: 104, value: (l) => l.per_hour, show: (l) => [l.per_hour === null ? make("span", { class: "none" }, "\u2013") : signed(l.per_hour)], about: "points gained over KD per hour that a run takes longer than KD's" },
  { key: "seeds", name: "Seeds", width: 84, value: (l) => (l.last ? l.last[2] : 0), show: (l) => [String(l.last ? l.last[2] : 0), l.diverged ? make("span", { class: "flag", title: "diverged runs, in no mean" }, `${l.diverged} div.`) : null], about: "runs in the mean" },
  { key: "dataset", name: "Dataset", width: 110, text: true, value: (l) => protocolOf(l).dataset, show: (l) => [protocolOf(l).dataset] },
  { key: "protocol", name: "Protocol", width: 300, text: true, value: (l) => protocolOf(l).label, show: (l) => [protocolOf(l).label] },
];
const column = Object.fromEntries(COLUMNS.map((c) => [c.key, c]));

// The smallest and the largest score of a protocol, which the bars span.
const ranges = new Map();
for (const line of overview.lines) {
  if (!ranges.has(line.protocol)) ranges.set(line.protocol, [Infinity, -Infinity]);
  if (line.last) {
    const range = ranges.get(line.protocol);
    range[0] = Math.min(range[0], line.last[0]);
    range[1] = Math.max(range[1], line.last[0]);
  }
}
const lineById = new Map(overview.lines.map((line) => [line.id, line]));
const lineByRun = new Map(overview.lines.flatMap((line) => line.runs.map((run) => [run, line])));
const searchable = new Map(overview.lines.map((line) => [line.id, [line.method, line.settings, line.pair, ...line.sweeps, ...line.runs, ...Object.values(protocolOf(line))].join("\n").toLowerCase()]));

// The state of the page, as the address has it ----------------------------------------------------------------------------------

const FILTERS = ["q", "dataset", "pair", "method", "protocol"];
let tableHash = "";

function state() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const sort = (parameters.get("sort") || "last.desc").split(".");
  return {
    view: parameters.has("line") || parameters.has("run") ? "detail" : parameters.get("view") || "table",
    line: parameters.get("line"),
    run: parameters.get("run"),
    filters: Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) || ""])),
    sort: Object.hasOwn(column, sort[0]) ? sort[0] : "last",
    descending: sort[1] !== "asc",
  };
}

function setTable({ filters, sort, descending }) {
  const parameters = new URLSearchParams();
  for (const name of FILTERS) if (filters[name]) parameters.set(name, filters[name]);
  if (sort !== "last" || !descending) parameters.set("sort", `${sort}.${descending ? "desc" : "asc"}`);
  history.replaceState(null, "", `#${parameters}`);
  show();
}

function matches(line, filters) {
  const words = filters.q.toLowerCase().split(/\s+/).filter(Boolean);
  return (
    (!filters.dataset || protocolOf(line).dataset === filters.dataset) &&
    (!filters.pair || line.pair === filters.pair) &&
    (!filters.method || line.method === filters.method) &&
    (!filters.protocol || line.protocol === filters.protocol) &&
    words.every((word) => searchable.get(line.id).includes(word))
  );
}

function ordered(lines, { sort, descending }) {
  const { value, text } = column[sort];
  const sign = descending ? -1 : 1;
  const keyed = lines.map((line) => [value(line), line]);
  keyed.sort(([a, x], [b, y]) => {
    if (a === null || b === null) return (a === null) - (b === null) || (x.id < y.id ? -1 : 1); // rows without a value come last
    return sign * (text ? collator.compare(a, b) : a - b) || (x.id < y.id ? -1 : 1);
  });
  return keyed.map(([, line]) => line);
}
const collator = new Intl.Collator("en", { numeric: true });

// The table: only the visible rows of thousands are in the document ------------------------------------------------------

const scroller = byId("scroller");
const table = scroller.querySelector("table");
const body = table.querySelector("tbody");
const [above, below] = [make("tr", { class: "space", "aria-hidden": "true" }), make("tr", { class: "space", "aria-hidden": "true" })];
let items = []; // {group} or {line}, in the order of the table
let tops = [0]; // the upper edge of each in pixels, and the lower edge of the last
const nodes = new Map(); // position -> row in the document

function heights() {
  return PHONE.matches ? { group: 58, line: 102 } : { group: 44, line: 40 };
}

function fill(shown) {
  const lines = overview.lines.filter((line) => matches(line, shown.filters));
  const groups = new Map(Object.keys(overview.protocols).map((id) => [id, []]));
  for (const line of ordered(lines, shown)) groups.get(line.protocol).push(line);
  items = [];
  for (const [id, rows] of groups) if (rows.length) items.push({ group: id, count: rows.length }, ...rows.map((line) => ({ line })));
  const { group, line } = heights();
  tops = [0];
  for (const item of items) tops.push(tops[tops.length - 1] + (item.group ? group : line));
  nodes.clear();
  body.replaceChildren(above, below);
  table.setAttribute("aria-rowcount", items.length + 1);
  const protocols = items.length - lines.length;
  byId("count").value = `${plural(lines.length, "row")} in ${plural(protocols, "protocol")}`;
  showWindow();
}

function at(y) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tops[middle + 1] <= y) low = middle + 1;
    else high = middle;
  }
  return low;
}

function showWindow() {
  const margin = 400;
  const first = at(Math.max(0, scroller.scrollTop - margin));
  const last = Math.min(items.length, at(scroller.scrollTop + scroller.clientHeight + margin) + 1);
  for (const [i, node] of nodes) {
    if (i < first || i >= last) {
      node.remove();
      nodes.delete(i);
    }
  }
  let before = above;
  for (let i = first; i < last; i++) {
    if (!nodes.has(i)) nodes.set(i, row(i));
    if (before.nextSibling !== nodes.get(i)) before.after(nodes.get(i)); // do not move rows that stay: one may have the focus
    before = nodes.get(i);
  }
  above.style.height = `${tops[first] ?? 0}px`;
  below.style.height = `${tops[items.length] - (tops[last] ?? 0)}px`;
}

function row(i) {
  const { group, line, count } = items[i];
  if (group) {
    const { dataset, label, shown } = overview.protocols[group];
    const title = make("div", {}, make("strong", {}, make("bdi", {}, dataset)), make("bdi", {}, label), make("span", { class: "std" }, `${shown} in %`), make("span", { class: "std" }, plural(count, "row")));
    const cell = make("th", { colspan: COLUMNS.length, scope: "colgroup", role: "rowheader" }, title);
    return make("tr", { class: "group", role: "row", "aria-rowindex": i + 2 }, cell);
  }
  const cells = COLUMNS.map((c) => make("td", { class: `c-${c.key}${c.text ? " text" : ""}`, role: "cell", "data-name": c.name }, ...c.show(line)));
  for (const cell of cells) if (cell.classList.contains("text") && !cell.firstElementChild) cell.title = cell.textContent;
  return make("tr", { class: "line", role: "row", "aria-rowindex": i + 2, "data-line": line.id }, ...cells);
}

function focusRow(i) {
  const step = i < 0 || i >= items.length ? 0 : i;
  if (!items[step]) return;
  const slack = 60; // the height of the table's head
  if (tops[step] - slack < scroller.scrollTop) scroller.scrollTop = Math.max(0, tops[step] - slack);
  const end = tops[step + 1] + slack - scroller.clientHeight;
  if (end > scroller.scrollTop) scroller.scrollTop = end;
  showWindow();
  nodes.get(step).querySelector("a")?.focus({ preventScroll: true });
}

function moveBy(event) {
  const current = [...nodes].find(([, node]) => node.contains(document.activeElement))?.[0];
  const start = current ?? at(scroller.scrollTop) - 1;
  const page = Math.max(1, Math.floor(scroller.clientHeight / heights().line) - 2);
  const moves = { ArrowDown: start + 1, ArrowUp: start - 1, PageDown: start + page, PageUp: start - page, Home: 0, End: items.length - 1 };
  if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey || !items.length) return;
  event.preventDefault();
  const back = event.key === "ArrowUp" || event.key === "PageUp" || event.key === "End";
  let goal = Math.min(items.length - 1, Math.max(0, moves[event.key]));
  while (items[goal]?.group) goal += back && goal > 0 ? -1 : 1;
  focusRow(goal);
}

function setUpTable() {
  table.querySelector("colgroup").append(...COLUMNS.map((c) => make("col", { class: `w-${c.key}` })));
  COLUMNS.forEach((c, i) => (table.querySelector("colgroup").children[i].style.width = `${c.width}px`));
  table.style.minWidth = `${COLUMNS.reduce((sum, c) => sum + c.width, 0)}px`;
  for (const c of COLUMNS) {
    const button = make("button", { type: "button", "data-sort": c.key, title: c.about }, c.name, make("span", { class: "arrow", "aria-hidden": "true" }));
    button.addEventListener("click", () => {
      const now = state();
      setTable({ ...now, sort: c.key, descending: now.sort === c.key ? !now.descending : !c.text && c.key !== "rank" });
    });
    table.querySelector("thead tr").append(make("th", { scope: "col", role: "columnheader", class: `h-${c.key}${c.text ? " text" : ""}` }, button));
  }
  scroller.addEventListener("scroll", () => requestAnimationFrame(showWindow), { passive: true });
  scroller.addEventListener("keydown", moveBy);
  new ResizeObserver(showWindow).observe(scroller);
  PHONE.addEventListener("change", () => fill(state()));
}

// Filters ---------------------------------------------------------------------------------------------------------------

const form = byId("filters");

function setUpFilters() {
  const options = {
    dataset: [...new Set(Object.values(overview.protocols).map((p) => p.dataset))].map((d) => [d, d]),
    pair: [...new Set(overview.lines.map((line) => line.pair))].map((p) => [p, p]),
    method: [...new Set(overview.lines.map((line) => line.method))].map((m) => [m, m]),
    protocol: Object.entries(overview.protocols).map(([id, p]) => [id, `${p.dataset}: ${p.label}`]),
  };
  for (const [name, choices] of Object.entries(options)) {
    choices.sort((a, b) => collator.compare(a[1], b[1]));
    form.elements[name].append(make("option", { value: "" }, "all"), ...choices.map(([value, text]) => make("option", { value }, text)));
  }
  for (const c of COLUMNS) {
    const direction = c.text || c.key === "rank" ? "asc" : "desc";
    form.elements.sort.append(make("option", { value: `${c.key}.${direction}` }, c.name));
  }
  const read = () => {
    const [sort, direction] = form.elements.sort.value.split(".");
    const now = state();
    const sorting = sort && sort !== now.sort ? { sort, descending: direction === "desc" } : {};
    setTable({ ...now, ...sorting, filters: Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value])) });
    scroller.scrollTop = 0;
  };
  form.addEventListener("input", read);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    setTable({ filters: {}, sort: "last", descending: true });
  });
}

function showTable(shown) {
  tableHash = location.hash;
  for (const name of FILTERS) if (form.elements[name].value !== shown.filters[name]) form.elements[name].value = shown.filters[name];
  form.elements.sort.value = [...form.elements.sort.options].find((o) => o.value.startsWith(`${shown.sort}.`)).value;
  COLUMNS.forEach((c, i) => {
    const head = table.querySelector("thead tr").children[i];
    if (c.key === shown.sort) head.setAttribute("aria-sort", shown.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  fill(shown);
}

// One line and its runs ---------------------------------------------------------------------------------------------------

async function runsOf(line) {
  const compressed = Uint8Array.from(atob(byId(`chunk${line.chunk}`).textContent), (c) => c.charCodeAt(0));
  const unpacked = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return (await new Response(unpacked).json())[line.id];
}

async function showDetail({ line: id, run }) {
  const detail = byId("detail");
  const line = run ? lineByRun.get(run) : lineById.get(id);
  const back = make("a", { href: tableHash || "#", class: "back" }, "\u2190 Table");
  if (!line) {
    detail.replaceChildren(back, make("p", {}, `This store has no record of ${run || id}.`));
    return;
  }
  const details = line.chunk === null ? null : await runsOf(line);
  const now = state();
  if (now.run !== run || now.line !== id) return; // the reader has moved on meanwhile
  const one = details?.runs.find((r) => r.run_id === run);
  const protocol = protocolOf(line);
  detail.replaceChildren(
    back,
    make("h2", {}, make("bdi", {}, line.method), " ", line.settings ? make("bdi", { class: "settings" }, line.settings) : null),
    make("p", { class: "where" }, ...[line.pair.replace(" > ", " \u2192 "), protocol.dataset, protocol.label, ...(one ? [`seed ${one.seed}`] : [])].map((part) => make("bdi", {}, part))),
    tiles(line),
    ...pictures(line),
    ...(details ? [runTable(line, details.runs, run), ...(one ? oneRun(one) : []), ...curvePanels(details.runs, one, protocol), settings(line, details)] : [runNames(line, run)]),
  );
}

/** Copies of the figures' pictures of the line's pair. */
function pictures(line) {
  const copies = line.images.map((place) => byId(`objects${place}`).cloneNode(true));
  for (const copy of copies) copy.removeAttribute("id");
  return copies.length ? [section("Images", make("div", { class: "plates" }, ...copies))] : [];
}

/** The runs of a line whose details are not in the page. */
function runNames(line, open) {
  const note = `Of ${plural(overview.runs, "run")} this page has the details and curves of ${overview.held.toLocaleString("en")}, those of the rows last added to. The store has the rest.`;
  const names = line.runs.map((run) => make("li", {}, make(run === open ? "strong" : "span", {}, run)));
  return section(plural(line.runs.length, "run"), make("p", {}, note), inTables(line), make("ul", {}, ...names));
}

function inTables(line) {
  return line.sweeps.length ? make("p", { class: "std" }, `In the tables of ${line.sweeps.join("; ")}.`) : null;
}

function tiles(line) {
  const tile = (name, children) => make("div", {}, make("dt", {}, name), make("dd", {}, ...children));
  const { shown } = protocolOf(line);
  const list = [tile(`Last, ${shown} %`, spread(line.last)), tile(`Best, ${shown} %`, spread(line.best))];
  if (line.rank !== null) list.push(tile("Rank in protocol and pair", [String(line.rank)]));
  if (line.to_baseline) list.push(tile("Over the student", spread(line.to_baseline, signed)));
  if (line.to_reference) list.push(tile("Over KD", spread(line.to_reference, signed)));
  if (line.teacher_score !== null) list.push(tile(`Teacher, ${shown} %`, [fixed(line.teacher_score)]));
  list.push(tile("Cost per run", column.hours.show(line)));
  if (line.per_hour !== null) list.push(tile(`Points over KD per extra ${line.unit}`, [signed(line.per_hour)]));
  return make("dl", { class: "tiles" }, ...list);
}

function section(title, ...children) {
  return make("section", { "aria-label": title }, make("h3", {}, title), ...children);
}

function runTable(line, runs, open) {
  const { score } = protocolOf(line);
  const names = ["Run", "Seed", "State", "Last", "Best", "Best epoch", "Minutes", "Hardware", "Finished"];
  const rows = runs.map((r) => {
    const link = make("a", { href: `#run=${r.run_id}`, "aria-current": r.run_id === open ? "true" : null }, r.run_id);
    const texts = [String(r.seed), r.status, fixed(r[`last_${score}`]), fixed(r[`best_${score}`]), String(r.best_epoch ?? ""), fixed(r.cost_s.total === null ? null : r.cost_s.total / 60, 1), r.hardware, r.finished_at.slice(0, 16)];
    return make("tr", { class: r.run_id === open ? "open" : null }, make("td", {}, link), ...texts.map((t) => make("td", {}, t)));
  });
  const head = make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));
  const wrap = make("div", { class: "wide-table", tabindex: "0", role: "region", "aria-label": "Runs" }, make("table", {}, head, make("tbody", {}, ...rows)));
  return section(plural(runs.length, "run"), wrap, inTables(line));
}

function pairs(values) {
  const known = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  return make("dl", { class: "pairs" }, ...known.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]));
}

function oneRun(run) {
  const { curves, versions, cost_s, warnings, ...rest } = run;
  const warned = warnings.length ? [section("Warnings", make("ul", { class: "warnings" }, ...warnings.map((w) => make("li", {}, w))))] : [];
  const seconds = Object.fromEntries(Object.entries(cost_s).map(([part, s]) => [part, s === null ? "" : `${s.toFixed(1)} s`]));
  return [...warned, make("div", { class: "columns" }, section(`Provenance of ${run.run_id}`, pairs(rest)), make("div", {}, section("Cost", pairs(seconds)), section("Versions", pairs(versions))))];
}

function settings(line, { science, defaults_changed }) {
  const { method, recipe, dataset, teacher } = science;
  const own = { ...method.weights, ...method.params };
  const marked = Object.fromEntries(Object.entries(own).map(([k, v]) => [defaults_changed.includes(k) ? `${k} *` : k, v]));
  const note = defaults_changed.length ? make("p", { class: "std" }, "* not the method's default") : null;
  return make("div", { class: "columns" },
    section("Settings", pairs({ method: line.method, version: method.version, ...marked }), note),
    make("div", {}, section("Recipe", pairs(recipe))),
    make("div", {}, section("Dataset", pairs(dataset)), teacher ? section("Teacher", pairs(teacher)) : null),
  );
}

// Curves ------------------------------------------------------------------------------------------------------------------

/** `protocol.metrics` count as evaluation even where they are measured on the training images. */
function curvePanels(runs, one, protocol) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  const panels = { "Evaluation": [], "Training: loss terms and diagnostics": [], "First stage": [] };
  for (const name of names) {
    const measured = protocol.metrics.includes(name.replace(/^train_/, ""));
    const part = name.startsWith("train_") && !measured ? "Training: loss terms and diagnostics" : name.startsWith("first_") ? "First stage" : "Evaluation";
    const curves = runs.filter((run) => Object.hasOwn(run.curves, name)).map((run) => ({ run, points: run.curves[name][0].map((e, i) => [e, run.curves[name][1][i]]).filter(([, v]) => v !== null) }));
    const figure = plot(measured ? name : name.replace(/^(train|first)_/, ""), curves.filter((c) => c.points.length), one);
    if (figure) panels[part].push(figure);
  }
  return Object.entries(panels).filter(([, figures]) => figures.length).map(([title, figures]) => section(title, make("div", { class: "panels" }, ...figures)));
}

function band(curves) {
  const at = new Map();
  for (const { points } of curves) for (const [epoch, value] of points) at.set(epoch, [...(at.get(epoch) || []), value]);
  const common = [...at].filter(([, values]) => values.length === curves.length).sort((a, b) => a[0] - b[0]);
  return common.map(([epoch, values]) => {
    const mean = values.reduce((a, b) => a + b) / values.length;
    const std = values.length > 1 ? Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (values.length - 1)) : 0;
    return [epoch, mean, std];
  });
}

function ticks(low, high) {
  const raw = (high - low) / 5;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= raw);
  const values = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) values.push(Number(t.toPrecision(6)));
  return values;
}

function plot(title, curves, one) {
  if (!curves.length) return null;
  const all = curves.flatMap((c) => c.points);
  const mean = band(curves);
  const ys = [...all.map(([, y]) => y), ...mean.flatMap(([, m, s]) => [m - s, m + s])];
  let [x0, x1] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const final = one ? curves.find((c) => c.run === one)?.points.at(-1)?.[1] : mean.at(-1)?.[1];
  const caption = make("figcaption", {}, make("strong", {}, title), make("output", {}, final === undefined ? "" : short(final)));
  if (x0 === x1) return make("figure", { class: "single" }, caption, make("p", { class: "std" }, `epoch ${x0} only`));
  if (y1 - y0 < 1e-9 * Math.abs(y1) || y0 === y1) [y0, y1] = [y0 - Math.abs(y0) * 0.1 - 1e-9, y1 + Math.abs(y1) * 0.1 + 1e-9];
  const [W, H, L, R, T, B] = [300, 160, 44, 8, 8, 22];
  const x = (v) => L + ((v - x0) / (x1 - x0)) * (W - L - R);
  const y = (v) => H - B - ((v - y0) / (y1 - y0)) * (H - T - B);
  const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const description = `${title}: ${plural(curves.length, "run")}, epochs ${x0} to ${x1}, at the end ${final === undefined ? "unknown" : short(final)}`;
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": description });
  for (const t of ticks(y0, y1)) {
    svg.append(draw("line", { class: "grid", x1: L, x2: W - R, y1: y(t), y2: y(t) }));
    svg.append(draw("text", { class: "tick", x: L - 5, y: y(t) + 3, "text-anchor": "end" }, short(t)));
  }
  for (const t of ticks(x0, x1).filter(Number.isInteger)) {
    svg.append(draw("text", { class: "tick", x: x(t), y: H - 6, "text-anchor": "middle" }, String(t)));
  }
  if (curves.length > 1 && mean.length > 1) {
    const up = mean.map(([e, m, s]) => [e, m + s]);
    const down = mean.map(([e, m, s]) => [e, m - s]).reverse();
    svg.append(draw("path", { class: "band", d: `${path(up)}${path(down).replace("M", "L")}Z` }));
  }
  for (const { run, points } of curves) if (run !== one) svg.append(draw("path", { class: curves.length > 1 ? "seed" : "mean", d: path(points) }));
  if (curves.length > 1 && !one) svg.append(draw("path", { class: "mean", d: path(mean) }));
  const mine = curves.find((c) => c.run === one);
  if (mine) svg.append(draw("path", { class: "mean", d: path(mine.points) }));
  readAt(svg, caption.lastChild, mine ? mine.points : mean, { x, W, H, T, B });
  return make("figure", {}, caption, svg);
}

/** Shows the value under the pointer in place of the last one. */
function readAt(svg, output, points, { x, W, H, T, B }) {
  const last = output.value;
  const guide = draw("line", { class: "guide", y1: T, y2: H - B, visibility: "hidden" });
  svg.append(guide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const position = ((event.clientX - box.left) / box.width) * W;
    const near = points.reduce((a, b) => (Math.abs(x(b[0]) - position) < Math.abs(x(a[0]) - position) ? b : a), points[0]);
    if (!near) return;
    guide.setAttribute("x1", x(near[0]));
    guide.setAttribute("x2", x(near[0]));
    guide.setAttribute("visibility", "visible");
    output.value = `epoch ${near[0]}: ${short(near[1])}`;
  });
  svg.addEventListener("pointerleave", () => {
    guide.setAttribute("visibility", "hidden");
    output.value = last;
  });
}

// Failures ------------------------------------------------------------------------------------------------------------------

function setUpFailures() {
  const { failures, failed } = overview;
  byId("failed").textContent = failed ? String(failed) : "";
  const more = failed > failures.length ? ` The newest ${failures.length} are shown.` : "";
  byId("failures-note").textContent = failed ? `${plural(failed, "run")} without a record, newest first.${more}` : "No run has failed.";
  byId("failure-list").append(...failures.map((f) => make("details", { id: `failure-${f.run}` },
    make("summary", {}, make("span", { class: "kind" }, f.kind), make("strong", {}, make("bdi", {}, f.cause)), make("span", { class: "std" }, ...[f.run, f.of || "its settings are not known", f.at].map((part) => make("bdi", {}, part)))),
    make("pre", { tabindex: "0" }, f.details || "(nothing in the log)"),
    make("p", { class: "std" }, `on ${f.host}; log: ${f.log}`))));
}

// The page ------------------------------------------------------------------------------------------------------------------

const VIEWS = ["table", "detail", "figures", "failures", "about"];

function show() {
  const shown = state();
  const view = VIEWS.includes(shown.view) ? shown.view : "table";
  for (const name of VIEWS) byId(name).hidden = name !== view;
  document.body.dataset.view = view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#view=${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "table") showTable(shown);
  if (view === "detail") showDetail(shown);
}

function setUpTheme() {
  const button = byId("theme");
  const next = { auto: "light", light: "dark", dark: "auto" };
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // some browsers have no storage for files: the choice is lost
    }
  };
  let stored = null;
  try {
    stored = localStorage.getItem("theme");
  } catch {
    // no storage, as above
  }
  set(next[stored] ? stored : "auto");
  button.addEventListener("click", () => set(next[document.documentElement.dataset.theme]));
}

function setUpKeys() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (state().view !== "table") location.hash = tableHash || "#";
      byId("table").hidden = false;
      form.elements.q.focus();
    } else if (event.key === "Escape" && state().view !== "table") {
      location.hash = tableHash || "#";
    }
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
}

function summary() {
  const parts = [plural(overview.runs, "run"), plural(overview.lines.length, "row"), plural(Object.keys(overview.protocols).length, "protocol")];
  if (overview.runs) parts.push(`newest record ${overview.newest} UTC`);
  if (overview.unread.length) parts.push(`tables that cannot be read: ${overview.unread.join(", ")}`);
  byId("summary").textContent = parts.join(" \u00b7 ");
}

setUpTheme();
setUpTable();
setUpFilters();
setUpFailures();
setUpKeys();
summary();
window.addEventListener("hashchange", () => {
  show();
  if (state().view !== "table") scrollTo(0, 0);
});
show();
