// The page ------------------------------------------------------------------------------------------------------------------

const VIEWS = ["table", "detail", "compare", "figures", "failures", "about"];

let shownAddress = null;

function show() {
  const shown = state();
  shownAddress = location.hash;
  const view = VIEWS.includes(shown.view) ? shown.view : "table";
  for (const name of VIEWS) byId(name).hidden = name !== view;
  document.body.dataset.view = view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#view=${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "table") showTable(shown);
  if (view === "detail") showDetail(shown);
  if (view === "compare") showCompare(shown);
  showTray();
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
  const parts = [plural(overview.runs, "run"), plural(lines.filter((line) => !line.teaches).length, "row"), plural(groups.length, "pair"), plural(Object.keys(overview.protocols).length, "protocol")];
  if (overview.runs) parts.push(`newest record ${overview.newest.replaceAll("-", "\u2011").replace(" ", "\u00a0")}\u00a0UTC`);
  if (overview.unread.length) parts.push(`tables that cannot be read: ${overview.unread.join(", ")}`);
  byId("summary").textContent = parts.join(" \u00b7 ");
}

setUpTheme();
setUpTable();
setUpFilters();
setUpFailures();
setUpCompare();
setUpKeys();
summary();
/** Follow the address: links, and the browser's back and forward. */
function follow() {
  if (location.hash === shownAddress) return;
  typed = false;
  show();
  if (state().view !== "table") scrollTo(0, 0);
}
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
follow();
