// Two rows next to each other -------------------------------------------------------------------------------------------

const LEAST_SEEDS = 3; // of an interval
const MOST_LISTED = 20; // seeds with their differences
let picked = []; // ids of at most two lines

function pick(id) {
  picked = picked.includes(id) ? picked.filter((other) => other !== id) : [...picked, id].slice(-2);
  for (const box of document.querySelectorAll("[data-pick]")) box.checked = picked.includes(box.dataset.pick);
  showTray();
}

function showTray() {
  byId("tray").hidden = !picked.length || state().view !== "table";
  const names = picked.map((id) => heading("span", lineById.get(id)));
  const [first, second] = names;
  byId("picked").replaceChildren(...(second ? [first, " with ", second] : [first || "", " with a second row"]));
  byId("compare-them").hidden = !second;
  byId("compare-them").setAttribute("href", `#compare=${picked.join(",")}`);
}

function setUpCompare() {
  byId("unpick").addEventListener("click", () => {
    picked = [];
    for (const box of document.querySelectorAll("[data-pick]")) box.checked = false;
    showTray();
    scroller.focus({ preventScroll: true });
  });
}

/** A choice of rows of the same pair to compare a line with. */
function compareWith(line) {
  const others = [...new Set(line.groups.flatMap((group) => group.lines))].map((i) => lines[i]).filter((other) => other !== line);
  if (!others.length || line.teaches) return null;
  others.sort((a, b) => collator.compare(a.title, b.title));
  const options = others.map((other) => make("option", { value: other.id }, `${other.title} ${settingsText(other)}`));
  const select = make("select", {}, make("option", { value: "" }, "a row of the same pair"), ...options);
  select.addEventListener("change", () => select.value && (location.hash = `#compare=${line.id},${select.value}`));
  return make("label", { class: "with" }, make("span", {}, "Compare with "), select);
}

async function showCompare({ compared }) {
  const view = byId("compare");
  const both = compared.map((id) => lineById.get(id));
  const back = make("a", { href: tableHash || "#", class: "back" }, "\u2190 Table");
  if (both.length !== 2 || both.includes(undefined) || both[0] === both[1]) {
    const why = both.length === 2 && both[0] && both[0] === both[1] ? "The address names one row twice." : "This store does not have the two rows of this address.";
    view.replaceChildren(back, make("p", {}, why));
    return;
  }
  const details = await Promise.all(both.map((line) => (line.chunk === null ? null : runsOf(line))));
  if (state().compared.join() !== compared.join()) return; // the reader has moved on meanwhile
  const [first, second] = both;
  const title = make("h2", {}, nameLink(first, "first"), make("span", { class: "std" }, " with "), nameLink(second, "second"));
  const swap = make("a", { href: `#compare=${second.id},${first.id}` }, "Swap");
  const place = places(first).find((pair) => places(second).includes(pair));
  const { dataset, label } = protocolOf(first);
  const shared = [...(place ? [place] : []), ...(first.protocol === second.protocol ? [dataset, label] : [])];
  view.replaceChildren(back, title,
    make("p", { class: "where" }, ...shared.map((part) => bdi(part)), swap),
    sideBySide(first, second), difference(first, second), differingSettings(both, details), ...overlaid(both, details));
}

const nameLink = (line, kind) => make("a", { href: `#line=${line.id}`, class: kind }, heading("span", line));

const alike = (a, b) => a.protocol === b.protocol && a.teaches === b.teaches && a.groups.some((g) => b.groups.some((h) => g.student === h.student));

function sideBySide(...both) {
  const rows = [["Last", (l) => spread(l.last)], ["Best", (l) => spread(l.best)], ["Over the student", (l) => [sign(l.to_baseline)]], ["Over KD", (l) => [sign(l.to_reference)]],
    ["Rank", rankCell], ["Cost per run", cost], ["Seeds", column.seeds.show]];
  return compareTable("Results", both, rows.map(([name, show]) => [name, both.map(show)]));
}

/** What the two lines are called: their names, with the settings that differ where these are the same. */
function labelsOf(both) {
  const same = both[0].title === both[1].title;
  return both.map((line) => (same ? [line.title, ...line.differing.map(([k, v]) => `${k} ${v}`)].join(", ") : line.title));
}

/** A table of two lines, with a row for each of [name, [cells of the first, cells of the second]]. */
function compareTable(label, both, rows, wraps = false) {
  const labels = labelsOf(both);
  const head = make("tr", {}, make("td", {}), ...both.map((line, i) => make("th", { scope: "col", class: i ? "second" : "first" }, bdi(labels[i]))));
  const body = rows.map(([name, cells]) => make("tr", {}, make("th", { scope: "row" }, breakable(name)), ...cells.map((cell) => make("td", {}, ...cell))));
  return make("div", { class: `wide-table two${wraps ? " wraps" : ""}`, tabindex: "0", role: "region", "aria-label": label }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

/** The first line minus the second, paired by seed, with Student's 95 % interval. */
function difference(first, second) {
  if (!alike(first, second)) return section("Difference", make("p", {}, "The rows have different protocols or students, so their difference says nothing of the methods."));
  const theirs = new Map(second.by_seed[0].map((seed, i) => [seed, second.by_seed[1][i]]));
  const pairs = first.by_seed[0].map((seed, i) => [seed, first.by_seed[1][i] - theirs.get(seed)]).filter(([, d]) => !Number.isNaN(d));
  if (!pairs.length) return section("Difference", make("p", {}, "The rows have no seed in common, so no difference is paired."));
  const n = pairs.length;
  const mean = pairs.reduce((sum, [, d]) => sum + d, 0) / n;
  const std = n > 1 ? Math.sqrt(pairs.reduce((sum, [, d]) => sum + (d - mean) ** 2, 0) / (n - 1)) : null;
  const tested = n >= LEAST_SEEDS && std > 1e-9;
  const half = tested ? (overview.quantiles[n - LEAST_SEEDS] * std) / Math.sqrt(n) : null;
  const clear = tested && Math.abs(mean) > half;
  const interval = tested ? `95 % interval ${signed(mean - half)} to ${signed(mean + half)}: ${clear ? "0 is outside" : "0 is inside, so either may be the better one"}` : n < LEAST_SEEDS ? `no interval: it needs ${LEAST_SEEDS} seeds that both have` : "no interval: all differences are equal";
  const each = n <= MOST_LISTED ? ` (${pairs.map(([seed, d]) => `seed ${seed} ${signed(d)}`).join(", ")})` : "";
  const [name, other] = labelsOf([first, second]);
  return section("Difference", make("p", { class: "difference" }, bdi(name, { class: "first" }), " \u2212 ", bdi(other, { class: "second" }), ": ", sign([mean, std, n]), " points"),
    make("p", {}, `${interval}. Paired over ${plural(n, "seed")}${each}.`));
}

/** The keys and values of settings, nested ones by dotted keys. */
function flat(value, name = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[name, typeof value === "string" ? value : JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, part]) => flat(part, name ? `${name}.${key}` : key));
}

function differingSettings(both, details) {
  const known = details.every(Boolean);
  const values = both.map((line, i) => new Map(known ? flat(details[i].science) : stated(line)));
  const names = [...new Set(values.flatMap((own) => [...own.keys()]))].filter((name) => values[0].get(name) !== values[1].get(name));
  const note = known ? null : make("p", { class: "std" }, "Of settings that both rows state only: this page does not hold the details of both.");
  if (!names.length) return section("Settings that differ", note, make("p", {}, "None."));
  const rows = names.map((name) => [name, values.map((own) => [own.has(name) ? breakable(own.get(name)) : none()])]);
  return section("Settings that differ", note, compareTable("Settings that differ", both, rows, true));
}

function stated(line) {
  const { dataset, label, recipe } = protocolOf(line);
  return [["method", line.method], ["pair", places(line).join(", ")], ["dataset", dataset], ["protocol", label], ...recipe, ...line.differing, ...line.settings];
}

function overlaid(both, details) {
  if (!details.every(Boolean)) return [section("Curves", make("p", {}, "This page does not hold the curves of both rows; the store does."))];
  const legend = make("p", { class: "legend" }, ...both.map((line, i) => make("span", { class: i ? "second" : "first" }, heading("span", line))));
  const panels = curvePanels(details.map(({ runs }) => ({ runs, one: undefined })), protocolOf(both[0]));
  return [section("Curves", legend), ...panels];
}
