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
    heading("h2", line),
    make("p", { class: "where" }, ...[...places(line), protocol.dataset, protocol.label, ...protocol.recipe.map((r) => r.join(" ")), ...(one ? [`seed ${one.seed}`] : [])].map((part) => bdi(part))),
    tiles(line),
    compareWith(line),
    ...pictures(line),
    ...(details ? [runTable(line, details.runs, run), ...(one ? oneRun(one) : []), ...curvePanels([{ runs: details.runs, one }], protocol), settings(line, details)] : [runNames(line, run)]),
  );
}

function heading(tag, line) {
  const settings = settingsText(line);
  const method = line.title === line.method || line.teaches ? [] : [" ", bdi(line.method, { class: "use" })];
  return make(tag, {}, bdi(line.title), ...method, ...(settings ? [" ", bdi(settings, { class: "settings" })] : []));
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
  if (line.rank !== null) list.push(tile("Rank in protocol and pair", [String(line.rank), line.standing in STANDINGS ? make("span", { class: "std" }, ` ${STANDINGS[line.standing]} the student`) : null]));
  if (line.to_baseline) list.push(tile("Over the student", [sign(line.to_baseline)]));
  if (line.to_reference) list.push(tile("Over KD", [sign(line.to_reference)]));
  const teachers = new Set(line.groups.map((group) => group.teacher_score));
  if (!line.teaches && teachers.size === 1 && !teachers.has(null)) list.push(tile(`Teacher, ${shown} %`, [fixed([...teachers][0])]));
  list.push(tile("Cost per run", cost(line)));
  if (line.per_hour !== null) list.push(tile(`Points over KD per extra ${line.unit}`, [signed(line.per_hour)]));
  return make("dl", { class: "tiles" }, ...list);
}

function section(title, ...children) {
  return make("section", { "aria-label": title }, make("h3", {}, title), ...children);
}

function runTable(line, runs, open) {
  const { score } = protocolOf(line);
  const names = ["Run", "Seed", "State", "Last", "Best", "Best epoch", "Time", "Hardware", "Finished"];
  const rows = runs.map((r) => {
    const link = make("a", { href: `#run=${r.run_id}`, "aria-current": r.run_id === open ? "true" : null }, r.run_id);
    const texts = [String(r.seed), r.status, fixed(r[`last_${score}`]), fixed(r[`best_${score}`]), String(r.best_epoch ?? ""), r.cost_s.total === null ? "" : duration(r.cost_s.total).join(" "), r.hardware, r.finished_at.slice(0, 16)];
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
  const seconds = Object.fromEntries(Object.entries(cost_s).map(([part, s]) => [part, s === null ? "" : duration(s).join(" ")]));
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
