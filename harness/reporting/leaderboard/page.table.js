// The table: only the visible rows of thousands are in the document ------------------------------------------------------

const NARROW = matchMedia("(max-width: 1200px)"); // where the column of the best epoch is hidden
const CARDS = matchMedia("(max-width: 900px)"); // where a row is a card

function methodCell(line, group) {
  const settings = (pairs, kind) => pairs.map(([k, v], i) => [i ? ", " : "", make("span", { class: kind }, breakable(`${k} ${v}`))]).flat();
  const link = make("a", { href: `#line=${line.id}` }, breakable(line.title));
  const use = group.baseline !== null && lines[group.baseline] === line ? `${group.student} alone` : line.title === line.method || line.teaches ? "" : line.method;
  const warnings = line.warnings ? make("span", { class: "flag", title: "runs with a warning of their method" }, plural(line.warnings, "warning")) : null;
  const trial = line.trial ? make("span", { class: "flag" }, "trial") : null;
  const both = line.differing.length && line.settings.length ? [", "] : [];
  const shown = [...settings(line.differing, "differs"), ...both, ...settings(line.settings, "changed")];
  return [make("div", { class: "name" }, link, use ? make("span", { class: "use" }, breakable(use)) : null, trial, warnings), shown.length ? make("div", { class: "settings" }, ...shown) : null];
}

const STANDINGS = { 0: "equal to", "-1": "below" }; // of rows that show no rank

function rankCell(line) {
  if (line.standing in STANDINGS) return [make("span", { class: "below", title: `${STANDINGS[line.standing]} the student trained alone` }, STANDINGS[line.standing].split(" ")[0])];
  return [line.rank === null ? "" : String(line.rank)];
}

function lastCell(line) {
  return line.last ? [make("span", {}, ...spread(line.last))] : [make("span", { class: "flag" }, "diverged")];
}

/** A difference with a bar from zero, at the middle, whose full length the group's head states. */
function differenceCell(line, group) {
  if (!line.to_baseline) return [none()];
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
  const share = Math.min(1, Math.abs(line.to_baseline[0]) / (reach(group) || 1));
  bar.firstChild.style.width = `${50 * share}%`;
  bar.firstChild.style.marginLeft = `${line.to_baseline[0] < 0 ? 50 - 50 * share : 50}%`;
  return [sign(line.to_baseline), bar];
}

function sign(difference) {
  if (!difference) return none();
  const kind = difference[0] > 0 ? "up" : difference[0] < 0 ? "down" : "";
  return make("span", { class: kind }, ...spread(difference, signed));
}

/** The largest difference to the student in a group, at which its bars end. */
function reach(group) {
  group.reach ??= Math.max(0, ...group.lines.map((i) => (lines[i].to_baseline ? Math.abs(lines[i].to_baseline[0]) : 0)));
  return group.reach;
}

function pickCell(line) {
  const box = make("input", { type: "checkbox", "data-pick": line.id, "aria-label": `Compare ${line.title} ${settingsText(line)}` });
  box.checked = picked.includes(line.id);
  return [box];
}

const SCORE = [...new Set(Object.values(overview.protocols).map((p) => p.shown))].join(" or ");
const COLUMNS = [
  { key: "pick", name: "", width: 52, show: pickCell },
  { key: "rank", name: "Rank", width: 64, up: true, value: (l) => (l.rank === null ? null : l.rank + (l.standing in STANDINGS ? 1e6 : 0)), show: rankCell, about: "of the group's methods, by the mean after the last epoch; not above the student trained alone: below or equal" },
  { key: "method", name: "Method", text: true, up: true, value: (l) => `${l.title} ${settingsText(l)}`, show: methodCell, about: "the sweep's name for it, the method if that is another, and the settings: first those that differ from other rows of the method" },
  { key: "last", name: "Last", width: 128, value: (l) => l.last && l.last[0], show: lastCell, about: `${SCORE} in % after the last epoch, mean \u00b1 sample std over seeds` },
  { key: "best", name: "Best", width: 128, value: (l) => l.best && l.best[0], show: (l) => spread(l.best), about: `${SCORE} in % at the best evaluated epoch: optimistic` },
  { key: "to_baseline", name: "vs student", width: 148, value: (l) => l.to_baseline && l.to_baseline[0], show: differenceCell, about: "points over the student trained alone, paired by seed" },
  { key: "to_reference", name: "vs KD", width: 142, value: (l) => l.to_reference && l.to_reference[0], show: (l) => [sign(l.to_reference)], about: "points over KD, paired by seed" },
  { key: "hours", name: "Cost", width: 124, up: true, value: (l) => l.hours, show: cost, about: "of a run: time of one GPU, or of one processor core" },
  { key: "per_hour", name: "Per hour", width: 90, value: (l) => l.per_hour, show: (l) => [l.per_hour === null ? none() : signed(l.per_hour)], about: "points gained over KD per hour that a run costs more than KD's" },
  { key: "seeds", name: "Seeds", width: 76, value: (l) => (l.last ? l.last[2] : 0), show: (l) => [String(l.last ? l.last[2] : 0), l.diverged ? make("span", { class: "flag", title: "diverged runs, in no mean" }, `${l.diverged} div.`) : null], about: "runs in the mean" },
].filter((c) => c.key !== "per_hour" || lines.some((l) => l.per_hour !== null));
const column = Object.fromEntries(COLUMNS.filter((c) => c.value).map((c) => [c.key, c]));

function matcher(filters) {
  const words = filters.q.toLowerCase().split(/\s+/).filter(Boolean);
  return (line) =>
    (!line.trial || Boolean(filters.trials)) && (!filters.method || line.method === filters.method) && words.every((word) => searchable(line).includes(word));
}

function ordered(rows, { sort, descending }) {
  const { value, text } = column[sort];
  const direction = descending ? -1 : 1;
  const keyed = rows.map((line) => [value(line), line]);
  keyed.sort(([a, x], [b, y]) => {
    if (a === null || b === null) return (a === null) - (b === null) || (x.id < y.id ? -1 : 1); // rows without a value come last
    return direction * (text ? collator.compare(a, b) : a - b) || (x.id < y.id ? -1 : 1);
  });
  return keyed.map(([, line]) => line);
}

const scroller = byId("scroller");
const table = scroller.querySelector("table");
const body = table.querySelector("tbody");
const [above, below] = [make("tr", { class: "space", "aria-hidden": "true" }), make("tr", { class: "space", "aria-hidden": "true" })];
const measured = new Map(); // key of an item -> its height in pixels, once it has been in the document
const nodes = new Map(); // position -> row in the document
let items = []; // {key, group} or {key, group, line}, in the order of the table
let tops = [0]; // the upper edge of each in pixels, and the lower edge of the last: estimates until they are measured
let width = 0; // of the table when its rows were measured
let printing = false;

function guess(item) {
  return CARDS.matches ? (item.line ? 118 : 104) : item.line ? 50 : 68;
}

function place() {
  tops = [0];
  for (const item of items) tops.push(tops[tops.length - 1] + (measured.get(item.key) ?? guess(item)));
}

function fill(shown) {
  width = scroller.clientWidth;
  const { dataset, pair, protocol } = shown.filters;
  const matching = matcher(shown.filters);
  items = [];
  let pairs = 0;
  for (const group of groups) {
    if ((pair && group.pair !== pair) || (protocol && group.protocol !== protocol) || (dataset && overview.protocols[group.protocol].dataset !== dataset)) continue;
    const rows = ordered(group.lines.map((i) => lines[i]).filter(matching), shown);
    if (!rows.length) continue;
    pairs += 1;
    items.push({ key: `${group.key}`, group, count: rows.length }, ...rows.map((line) => ({ key: `${group.key} ${line.id}`, group, line })));
  }
  place();
  nodes.clear();
  body.replaceChildren(above, below);
  table.setAttribute("aria-rowcount", items.length + 1);
  byId("count").value = `${plural(items.length - pairs, "row")} in ${plural(pairs, "pair")}`;
  byId("nothing").hidden = items.length > 0;
  if (!lines.length) byId("nothing").textContent = "No run has a record yet.";
  showWindow();
}

/** The position of the item at a height. */
function at(y) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tops[middle + 1] <= y) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Put the visible rows into the document, again where their heights turn out otherwise than thought. */
function showWindow() {
  for (let round = 0; round < 4; round++) {
    putRows();
    if (!measure()) break;
  }
  showPlace();
}

/** Name the group of the first visible row while the group's head is scrolled away. */
function showPlace() {
  const first = items[at(scroller.scrollTop)];
  byId("here").hidden = !first?.line;
  if (!first?.line) return;
  const { dataset, label, recipe } = overview.protocols[first.group.protocol];
  const protocol = [dataset, label, ...recipe.map((r) => r.join(" "))].join(", ");
  byId("here").firstElementChild.replaceChildren(make("strong", {}, breakable(first.group.pair.replace(" > ", " \u2192 "))), " ", bdi(protocol, { class: "std" }));
}

function putRows() {
  const margin = 400;
  const first = printing ? 0 : at(Math.max(0, scroller.scrollTop - margin));
  const last = printing ? items.length : Math.min(items.length, at(scroller.scrollTop + scroller.clientHeight + margin) + 1);
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
  below.style.height = `${tops[items.length] - (tops[last] ?? tops[items.length])}px`;
}

/** Note the heights of the rows that are new, and keep what is visible in its place. Return whether any was not as thought. */
function measure() {
  const heights = [...nodes].filter(([i]) => !measured.has(items[i].key)).map(([i, node]) => [i, node.getBoundingClientRect().height]);
  const anchor = at(scroller.scrollTop);
  const offset = scroller.scrollTop - tops[anchor];
  for (const [i, height] of heights) if (height) measured.set(items[i].key, height);
  if (!heights.some(([i, height]) => height && height !== tops[i + 1] - tops[i])) return false;
  place();
  if (scroller.scrollTop > 0 && anchor < items.length) {
    below.style.height = `${tops[items.length]}px`; // room to scroll in, until the rows are put again
    scroller.scrollTop = tops[anchor] + offset;
  }
  return true;
}

function row(i) {
  const { group, line, count } = items[i];
  if (!line) {
    const cell = make("th", { colspan: COLUMNS.length - (NARROW.matches ? 1 : 0), scope: "colgroup", role: "rowheader" }, groupHead(group, count));
    return make("tr", { class: "group", role: "row", "aria-rowindex": i + 2 }, cell);
  }
  const cells = COLUMNS.map((c) => make("td", { class: `c-${c.key}${c.text ? " text" : ""}`, role: "cell", "data-name": c.name }, ...c.show(line, group)));
  const alone = !line.teaches && lines[group.baseline] === line ? " alone" : "";
  return make("tr", { class: `line${alone}`, role: "row", "aria-rowindex": i + 2, "data-line": line.id }, ...cells);
}

function groupHead(group, count) {
  const { dataset, label, shown, recipe } = overview.protocols[group.protocol];
  const arrow = make("span", { class: "std" }, " \u2192 ");
  const pair = group.teacher ? [breakable(group.teacher), arrow, make("span", { class: "student" }, breakable(group.student))] : [make("span", { class: "student" }, breakable(group.student)), " alone"];
  const facts = [];
  if (group.teacher_score !== null) facts.push([group.teacher_runs.length ? make("a", { href: `#run=${group.teacher_runs[0]}` }, "teacher") : "teacher", ` ${fixed(group.teacher_score)}`]);
  const alone = lines[group.baseline];
  if (!alone && group.teacher) facts.push(["student alone: no run"]);
  if (alone?.last && group.teacher) facts.push([make("a", { href: `#line=${alone.id}` }, "student alone"), " ", ...spread(alone.last)]);
  const scale = reach(group) ? [`bars: 0 is the student alone, ends at \u00b1\u00a0${fixed(reach(group))} points`] : [];
  const notes = [bdi(dataset, { class: "dataset" }), bdi(label), ...recipe.map(([k, v]) => bdi(`${k} ${v}`)), `${shown} in %`, plural(count, "row"), ...scale];
  return make("div", { class: "head" },
    make("div", { class: "pair" }, make("strong", {}, ...pair), ...facts.map((fact) => make("span", { class: "fact" }, ...fact))),
    make("div", { class: "notes" }, ...notes.flatMap((note, i) => [i ? " \u00b7 " : "", note])));
}

function focusRow(i) {
  const step = i < 0 || i >= items.length ? 0 : i;
  if (!items[step]) return;
  const seen = () => tops[step] >= scroller.scrollTop && tops[step + 1] <= scroller.scrollTop + scroller.clientHeight;
  if (!seen()) scroller.scrollTop = Math.max(0, tops[step] - scroller.clientHeight / 2);
  showWindow();
  const node = nodes.get(step);
  node?.scrollIntoView({ block: "nearest" });
  showWindow();
  nodes.get(step)?.querySelector("a")?.focus({ preventScroll: true });
}

const focused = () => [...nodes].find(([, node]) => node.contains(document.activeElement))?.[0];

function moveBy(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || !items.length) return;
  const current = focused();
  if (event.key === "c" && items[current]?.line) pick(items[current].line.id);
  const start = current ?? at(scroller.scrollTop) - 1;
  const page = Math.max(1, at(tops[Math.max(0, start)] + scroller.clientHeight - 100) - start - 1);
  const moves = { ArrowDown: start + 1, ArrowUp: start - 1, PageDown: start + page, PageUp: start - page, Home: 0, End: items.length - 1 };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const back = event.key === "ArrowUp" || event.key === "PageUp" || event.key === "End";
  let goal = Math.min(items.length - 1, Math.max(0, moves[event.key]));
  while (items[goal] && !items[goal].line) goal += back && goal > 0 ? -1 : 1;
  focusRow(goal);
}

function setUpTable() {
  for (const c of COLUMNS) {
    const col = make("col", { class: `w-${c.key}` });
    if (c.width) col.style.width = `${c.width}px`;
    table.querySelector("colgroup").append(col);
    const head = make("th", { scope: "col", role: "columnheader", class: `h-${c.key}${c.text ? " text" : ""}` });
    head.append(c.value ? sortButton(c) : make("span", { class: "unseen" }, "Compare"));
    table.querySelector("thead tr").append(head);
  }
  const scroll = () => {
    if (!scroller.clientHeight) return; // hidden
    scrolled = scroller.scrollTop;
    requestAnimationFrame(showWindow);
  };
  scroller.addEventListener("scroll", scroll, { passive: true });
  scroller.addEventListener("keydown", moveBy);
  scroller.addEventListener("change", (event) => event.target.dataset.pick && pick(event.target.dataset.pick));
  new ResizeObserver(() => {
    if (Math.abs(scroller.clientWidth - width) >= 1 && scroller.clientWidth) {
      measured.clear();
      fill(state());
    } else showWindow();
  }).observe(scroller);
  const print = (on) => {
    printing = on;
    if (state().view === "table") putRows();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
}

function sortButton(c) {
  const button = make("button", { type: "button", "data-sort": c.key, title: c.about }, c.name, make("span", { class: "arrow", "aria-hidden": "true" }));
  button.addEventListener("click", () => {
    const now = state();
    setTable({ ...now, sort: c.key, descending: now.sort === c.key ? !now.descending : !c.up });
  });
  return button;
}
