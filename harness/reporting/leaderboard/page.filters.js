// Filters ---------------------------------------------------------------------------------------------------------------

const form = byId("filters");
const valueOf = (field) => (field.type === "checkbox" ? (field.checked ? "1" : "") : field.value);

function setUpFilters() {
  const distinct = (values) => [...new Set(values)].map((value) => [value, value]);
  const options = {
    dataset: distinct(Object.values(overview.protocols).map((p) => p.dataset)),
    pair: distinct(groups.map((group) => group.pair)),
    method: distinct(lines.filter((line) => !line.teaches).map((line) => line.method)),
    protocol: Object.entries(overview.protocols).map(([id, p]) => [id, [`${p.dataset}: ${p.label}`, ...p.recipe.map((r) => r.join(" "))].join(", ")]),
  };
  for (const [name, choices] of Object.entries(options)) {
    choices.sort((a, b) => collator.compare(a[1], b[1]));
    form.elements[name].append(make("option", { value: "" }, "all"), ...choices.map(([value, text]) => make("option", { value }, text)));
  }
  for (const c of Object.values(column)) form.elements.sort.append(make("option", { value: `${c.key}.${c.up ? "asc" : "desc"}` }, c.name));
  const trials = lines.filter((line) => line.trial).length;
  form.elements.trials.closest("label").hidden = !trials;
  byId("trials-count").textContent = plural(trials, "tuning trial");
  form.addEventListener("input", (event) => {
    const [sort, direction] = form.elements.sort.value.split(".");
    const now = state();
    const sorting = sort && sort !== now.sort ? { sort, descending: direction === "desc" } : {};
    setTable({ ...now, ...sorting, filters: Object.fromEntries(FILTERS.map((name) => [name, valueOf(form.elements[name])])) }, event.target.name === "q");
    scroller.scrollTop = 0;
  });
  byId("more").addEventListener("click", () => byId("more").setAttribute("aria-expanded", form.classList.toggle("open")));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    setTable({ filters: {}, sort: "last", descending: true });
  });
}

/** Set a field; a value of an address that no row has is added to a field's choices, so that it is seen. */
function choose(field, value) {
  field.value = value;
  if (field.value === value || !field.options) return;
  field.append(make("option", { value }, `${value} (no row)`));
  field.value = value;
}

let scrolled = 0; // how far the table was scrolled when it was left

function showTable(shown) {
  const kept = tableHash === location.hash ? scrolled : 0;
  tableHash = location.hash;
  for (const name of FILTERS) {
    const field = form.elements[name];
    if (field.type === "checkbox") field.checked = Boolean(shown.filters[name]);
    else if (field.value !== shown.filters[name]) choose(field, shown.filters[name]);
  }
  const active = FILTERS.filter((name) => name !== "q" && shown.filters[name]).length;
  byId("more").textContent = active ? `Filters (${active})` : "Filters";
  form.elements.sort.value = [...form.elements.sort.options].find((o) => o.value.startsWith(`${shown.sort}.`)).value;
  COLUMNS.forEach((c, i) => {
    const head = table.querySelector("thead tr").children[i];
    if (c.key === shown.sort) head.setAttribute("aria-sort", shown.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  fill(shown);
  if (!kept) return;
  scroller.scrollTop = kept;
  showWindow();
}
