// Curves ------------------------------------------------------------------------------------------------------------------

/**
 * `lots`: [{runs, one}], the lines whose curves share the panels; `one`: the run that is open, if any.
 * `protocol.metrics` count as evaluation even where they are measured on the training images.
 */
function curvePanels(lots, protocol) {
  const names = [...new Set(lots.flatMap(({ runs }) => runs.flatMap((run) => Object.keys(run.curves))))];
  const panels = { "Evaluation": [], "Training: loss terms and diagnostics": [], "First stage": [] };
  for (const name of names) {
    const measured = protocol.metrics.includes(name.replace(/^train_/, ""));
    const part = name.startsWith("train_") && !measured ? "Training: loss terms and diagnostics" : name.startsWith("first_") ? "First stage" : "Evaluation";
    const figure = plot(measured ? name : name.replace(/^(train|first)_/, ""), lots.map(({ runs, one }) => ({ curves: curvesOf(runs, name), one })));
    if (figure) panels[part].push(figure);
  }
  return Object.entries(panels).filter(([, figures]) => figures.length).map(([title, figures]) => section(title, make("div", { class: "panels" }, ...figures)));
}

function curvesOf(runs, name) {
  const having = runs.filter((run) => Object.hasOwn(run.curves, name));
  const curves = having.map((run) => ({ run, points: run.curves[name][0].map((e, i) => [e, run.curves[name][1][i]]).filter(([, v]) => v !== null) }));
  return curves.filter((c) => c.points.length);
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

/** Draw the curves of one line, or of two over each other; a line of several runs as its mean and a band. */
function plot(title, lots) {
  const drawn = lots.map((lot, i) => ({ ...lot, i, mean: band(lot.curves) })).filter((lot) => lot.curves.length);
  if (!drawn.length) return null;
  const all = drawn.flatMap((lot) => lot.curves.flatMap((c) => c.points));
  const ys = [...all.map(([, y]) => y), ...drawn.flatMap((lot) => lot.mean.flatMap(([, m, s]) => [m - s, m + s]))];
  let [x0, x1] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  for (const lot of drawn) {
    lot.mine = lot.curves.find((c) => c.run === lot.one);
    lot.read = lot.mine ? lot.mine.points : lot.mean;
  }
  const finals = drawn.map((lot) => lot.read.at(-1)?.[1]).filter((v) => v !== undefined);
  const ends = finals.map(short).join(" | ");
  const caption = make("figcaption", {}, make("strong", {}, bdi(title)), make("output", {}, ends));
  if (x0 === x1) return make("figure", { class: "single" }, caption, make("p", { class: "std" }, `epoch ${x0} only`));
  if (y1 - y0 < 1e-9 * Math.abs(y1) || y0 === y1) [y0, y1] = [y0 - Math.abs(y0) * 0.1 - 1e-9, y1 + Math.abs(y1) * 0.1 + 1e-9];
  const [W, H, L, R, T, B] = [300, 160, 44, 8, 8, 22];
  const x = (v) => L + ((v - x0) / (x1 - x0)) * (W - L - R);
  const y = (v) => H - B - ((v - y0) / (y1 - y0)) * (H - T - B);
  const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const runs = drawn.reduce((sum, lot) => sum + lot.curves.length, 0);
  const description = `${title}: ${plural(runs, "run")}, epochs ${x0} to ${x1}, at the end ${ends || "unknown"}`;
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": description });
  for (const t of ticks(y0, y1)) {
    svg.append(draw("line", { class: "grid", x1: L, x2: W - R, y1: y(t), y2: y(t) }));
    svg.append(draw("text", { class: "tick", x: L - 5, y: y(t) + 3, "text-anchor": "end" }, short(t)));
  }
  for (const t of ticks(x0, x1).filter(Number.isInteger)) {
    svg.append(draw("text", { class: "tick", x: x(t), y: H - 6, "text-anchor": "middle" }, String(t)));
  }
  for (const lot of drawn) drawLot(svg, lot, path);
  readAt(svg, caption.lastChild, drawn.map((lot) => lot.read), { x, W, H, T, B });
  return make("figure", {}, caption, svg);
}

function drawLot(svg, { curves, mean, mine, i }, path) {
  const kind = i ? " second" : "";
  const single = curves.length === 1;
  if (!single && mean.length > 1) {
    const up = mean.map(([e, m, s]) => [e, m + s]);
    const down = mean.map(([e, m, s]) => [e, m - s]).reverse();
    svg.append(draw("path", { class: `band${kind}`, d: `${path(up)}${path(down).replace("M", "L")}Z` }));
  }
  for (const curve of curves) if (curve !== mine) svg.append(draw("path", { class: `${single ? "mean" : "seed"}${kind}`, d: path(curve.points) }));
  if (!single && !mine) svg.append(draw("path", { class: `mean${kind}`, d: path(mean) }));
  if (mine) svg.append(draw("path", { class: `mean${kind}`, d: path(mine.points) }));
}

/** Show the values under the pointer in place of the last ones. */
function readAt(svg, output, lots, { x, W, H, T, B }) {
  const last = output.value;
  const guide = draw("line", { class: "guide", y1: T, y2: H - B, visibility: "hidden" });
  svg.append(guide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const position = ((event.clientX - box.left) / box.width) * W;
    const nearest = (points) => points.reduce((a, b) => (Math.abs(x(b[0]) - position) < Math.abs(x(a[0]) - position) ? b : a), points[0]);
    const near = lots.filter((points) => points.length).map(nearest);
    if (!near.length) return;
    guide.setAttribute("x1", x(near[0][0]));
    guide.setAttribute("x2", x(near[0][0]));
    guide.setAttribute("visibility", "visible");
    output.value = `epoch ${near[0][0]}: ${near.map(([, value]) => short(value)).join(" | ")}`;
  });
  svg.addEventListener("pointerleave", () => {
    guide.setAttribute("visibility", "hidden");
    output.value = last;
  });
}
