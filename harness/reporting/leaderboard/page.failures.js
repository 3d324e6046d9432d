// Failures ------------------------------------------------------------------------------------------------------------------

function setUpFailures() {
  const failing = overview.failures.filter((cause) => !cause.superseded);
  const superseded = overview.failures.filter((cause) => cause.superseded);
  const count = (causes) => causes.reduce((sum, cause) => sum + cause.count, 0);
  const failed = count(failing);
  byId("failed").textContent = failed ? String(failed) : "";
  const newest = overview.failures.reduce((sum, cause) => sum + cause.runs.length, 0);
  const more = failed + count(superseded) > newest ? ` The newest ${newest.toLocaleString("en")} are listed.` : "";
  byId("failures-note").textContent = failed ? `${plural(failed, "run")} without a record, by cause.${more}` : "No run has failed, or a later attempt has succeeded.";
  if (!overview.failures.length) byId("failures-note").textContent = "No run has failed.";
  byId("failure-list").append(...failing.map(causeOf));
  if (!superseded.length) return;
  const about = "A later attempt of the run has succeeded; or no table asks for the run any longer, and a table has a later result of the same pair, method and seed.";
  const fold = make("details", { class: "superseded" }, make("summary", {}, `${plural(count(superseded), "superseded failure")}`), make("p", { class: "std" }, about), ...superseded.map(causeOf));
  byId("failure-list").append(fold);
}

function causeOf({ kind, cause, count, runs }) {
  const title = [make("span", { class: "kind" }, kind), " ", make("strong", {}, bdi(cause)), " "];
  if (count === 1 && runs.length === 1) return failureOf(runs[0], title);
  return make("details", { class: "cause" }, make("summary", {}, ...title, make("span", { class: "count" }, plural(count, "run"))), ...runs.map((run) => failureOf(run)));
}

function failureOf(f, title = []) {
  const parts = [f.of || "its settings are not known", f.run, f.at].map((part) => bdi(part));
  return make("details", { id: `failure-${f.run}` }, make("summary", {}, ...title, make("span", { class: title.length ? "std" : null }, ...parts)),
    make("pre", { tabindex: "0" }, f.details || "(nothing in the log)"),
    make("p", { class: "std" }, `on ${f.host}; log: ${f.log}`));
}
