"use strict";
// All text enters the page as textContent: the browser never reads the data as HTML, as a style or as a script.

const overview = JSON.parse(document.getElementById("overview").textContent);
const byId = (id) => document.getElementById(id);
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

const bdi = (text, attributes = {}) => make("bdi", attributes, text);
/** A name that may break after its marks, such as a long one of a user's own, but not within a number. */
const breakable = (text) => make("bdi", {}, ...text.split(/(?<=[_:]|\.(?!\d))/).flatMap((part) => [part, make("wbr")]));
const none = () => make("span", { class: "none" }, "\u2013");
const fixed = (value, digits = 2) => (value === null || value === undefined ? "" : value.toFixed(digits));
const signed = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(2);
const short = (value) => (value === null ? "" : value === 0 ? "0" : String(Number(value.toPrecision(3))));
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function spread(value, format = fixed) {
  if (!value) return [none()];
  const std = value[1] === null ? null : make("span", { class: "std" }, ` \u00b1 ${value[1].toFixed(2)}`);
  return [format(value[0]), std];
}

/** The number and the unit of a duration. */
function duration(seconds) {
  const [unit, size] = [["h", 3600], ["min", 60], ["s", 1]].find(([, s]) => seconds >= s) || ["s", 1];
  return [Number((seconds / size).toPrecision(3)).toLocaleString("en"), unit];
}

function cost({ hours, unit }) {
  if (hours === null) return [none()];
  const [number, of] = duration(hours * 3600);
  return [number, make("span", { class: "std" }, ` ${unit === "GPU-h" ? "GPU" : "core"}-${of}`)];
}

// The data: lines and the groups that have them ------------------------------------------------------------------------

const { lines, groups } = overview;
for (const line of lines) line.groups = [];
groups.forEach((group, i) => {
  group.key = i;
  group.pair = group.teacher ? `${group.teacher} > ${group.student}` : `${group.student} alone`;
  for (const position of group.lines) lines[position].groups.push(group);
});
const homeless = { protocol: Object.keys(overview.protocols)[0], pair: "", lines: [], student: "", teacher: "", baseline: null };
for (const line of lines) {
  if (!line.groups.length) line.groups.push(taught(line));
  line.title = line.teaches ? "teacher" : line.names.join(", ") || line.method;
}

/** The group that a teacher's run heads. */
function taught(line) {
  return groups.find((group) => group.teacher_runs.some((run) => line.runs.includes(run))) || homeless;
}

const protocolOf = (line) => overview.protocols[line.protocol];
const settingsText = (line) => [...line.differing, ...line.settings].map(([k, v]) => `${k} ${v}`).join(", ");
const lineById = new Map(lines.map((line) => [line.id, line]));
const lineByRun = new Map(lines.flatMap((line) => line.runs.map((run) => [run, line])));
const collator = new Intl.Collator("en", { numeric: true });
const places = (line) => (line.teaches ? [`${line.groups[0].teacher}, the teacher`] : [...new Set(line.groups.map((g) => g.pair.replace(" > ", " \u2192 ")))]);

let texts = null;
/** The text that a search looks in. Thousands of rows have theirs made by the first search. */
function searchable(line) {
  texts ??= new Map();
  if (!texts.has(line)) {
    const { dataset, label, recipe, shown } = protocolOf(line);
    const parts = [line.title, line.method, settingsText(line), ...line.groups.map((g) => g.pair), ...line.sweeps, ...line.runs, dataset, label, shown, ...recipe.map((r) => r.join(" "))];
    texts.set(line, parts.join("\n").toLowerCase());
  }
  return texts.get(line);
}

// The state of the page, as the address has it ----------------------------------------------------------------------------

const FILTERS = ["q", "dataset", "pair", "method", "protocol", "trials"];
let tableHash = "";
let typed = false; // the last change of the address was a letter of a search

function state() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const [sort, direction] = (parameters.get("sort") || "last.desc").split(".");
  const known = Object.hasOwn(column, sort);
  const detail = parameters.has("line") || parameters.has("run");
  return {
    view: parameters.has("compare") ? "compare" : detail ? "detail" : parameters.get("view") || "table",
    line: parameters.get("line"),
    run: parameters.get("run"),
    compared: (parameters.get("compare") || "").split(","),
    filters: Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) || ""])),
    sort: known ? sort : "last",
    descending: known ? direction !== "asc" : true,
  };
}

/** Write the table's state into the address. The letters of one search are one step of the browser's history. */
function setTable({ filters, sort, descending }, typing = false) {
  const parameters = new URLSearchParams();
  for (const name of FILTERS) if (filters[name]) parameters.set(name, filters[name]);
  if (sort !== "last" || !descending) parameters.set("sort", `${sort}.${descending ? "desc" : "asc"}`);
  const address = `#${parameters}`;
  if (address !== (location.hash || "#")) history[typing && typed ? "replaceState" : "pushState"](null, "", address);
  typed = typing;
  show();
}
