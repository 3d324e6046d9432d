"""The summary of a run of the GPU program: at most 60 lines of text, from its findings alone."""

from collections import Counter
from collections.abc import Iterator

from benchmarks.gpu import history
from benchmarks.gpu.findings import Finding, Findings
from benchmarks.gpu.history import Figures

MOST_LINES = 60
WIDTH = 160
_CHANGE = 0.05  # of a figure, beyond which it is listed as changed
_MOST = {"_row": 20, "_throughput": 26}  # lines of a part


def summary(findings: Findings) -> list[str]:
    """Return the lines of the summary; what does not fit is counted."""
    lines = findings.read()
    text: list[str] = []
    for part in (_card, _ends, _tests, _row, _throughput, _large):
        text += _first(list(part(lines)), _MOST.get(part.__name__, 8), findings)
    text += _compared(Figures.of(findings))
    return _first(text, MOST_LINES, findings)


def _first(text: list[str], most: int, findings: Findings) -> list[str]:
    if len(text) > most:
        text = [*text[: most - 1], f"... {len(text) - most + 1} more lines: see {findings.path.name}"]
    return [line if len(line) <= WIDTH or line.startswith("|") else line[: WIDTH - 3] + "..." for line in text]


def _of(lines: list[Finding], kind: str) -> list[Finding]:
    return [f for f in lines if f["kind"] == kind]


def _card(lines: list[Finding]) -> Iterator[str]:
    for f in _of(lines, "machine")[-1:]:
        versions = ", ".join(f"{k} {f[k]}" for k in ("torch", "cuda", "cudnn", "python") if f.get(k))
        memory = f", {f['memory_gib']} GiB" if "memory_gib" in f else ""
        driver = f", driver {f['nvidia_smi'].get('driver_version')}" if f.get("nvidia_smi") else ""
        yield f"{f['card']}{memory}{driver}; {versions}; {f['cores']} cores; commit {f['commit']}"
    latest = {
        (f["kind"], f.get("precision")): f for f in lines if f["kind"] in ("copy", "copy to device", "matrix peak")
    }
    reached = [
        f"{precision} products {f['tflops']} TFLOP/s" if precision else f"{kind} {f['gb_per_s']} GB/s"
        for (kind, precision), f in latest.items()
    ]
    if reached:
        yield "reached: " + ", ".join(reached)


def _ends(lines: list[Finding]) -> Iterator[str]:
    last = {f["stage"]: f for f in _of(lines, "end")}
    for stage, f in last.items():
        if not f["finished"]:
            yield f"stage {stage}: not finished: {f['why']}"


def _tests(lines: list[Finding]) -> Iterator[str]:
    results = {f["test"]: f["result"] for f in _of(lines, "test")}
    if results:
        counts = ", ".join(f"{count} {result}" for result, count in sorted(Counter(results.values()).items()))
        seconds = "".join(f" in {f['seconds']} s" for f in _of(lines, "suite")[-1:])
        yield f"tests: {counts}{seconds}"
    yield from (f"  {test}: {result}" for test, result in results.items() if result in ("failed", "error"))


def _row(lines: list[Finding]) -> Iterator[str]:
    for f in _of(lines, "trained")[-1:]:
        yield f"published row: {f['done']} of {f['runs']} runs done; trained for {f['seconds']} s in the last call"
        if f["crashes"]:
            yield f"  its process ended with an error {f['crashes']} times: see log.txt"
        if f["not_saved"]:
            yield f"  not saved, as there is no room: {', '.join(f['not_saved'])}"
    for f in _of(lines, "damaged")[-1:]:
        yield f"  {f['what']}"
    for f in _of(lines, "table")[-1:]:
        yield from f["lines"]
    last = {f["run"]: f for f in lines if f["kind"] in ("in training", "failed", "done")}
    for run, f in last.items():
        if f["kind"] == "in training":
            left = f", {f['seconds_left'] / 60:.1f} min left" if f.get("seconds_left") else ""
            yield f"  {run}: epoch {f['epoch']} of {f['epochs']}{left}"
    causes = Counter(f["why"] for f in last.values() if f["kind"] == "failed")
    yield from (f"  {count} runs FAILED: {why}" for why, count in causes.items())


def _throughput(lines: list[Finding]) -> Iterator[str]:
    plain = history.plain_rates(lines)
    measured = {f"{f['pair']}, {f['precision']}, {_name(f)}": f for f in lines if f["kind"] in ("ours", "plain")}
    if measured:
        yield "images per second of all runs together; times one plain loop; share of the products' peak; MiB of all"
    for name, f in sorted(measured.items(), key=lambda item: (item[1]["pair"], item[1]["precision"], item[1]["kind"])):
        rate = plain.get((f["pair"], f["precision"]))
        times = f"{f['images_per_s_of_all'] / rate:.2f} x" if rate else ""
        share = f"{100 * f['share_of_matrix_peak']:.1f} %" if f.get("share_of_matrix_peak") else ""
        memory = f"{f['memory_mib']:,.0f} MiB" if f.get("memory_mib") else ""
        row = f"{f['images_per_s_of_all']:>10,.0f} {times:>8} {share:>7} {memory:>10}"
        minutes = f"  240 epochs: {f['minutes_of_240_epochs']:.1f} min" if len(f.get("methods", ())) > 1 else ""
        yield f"  {name}:".ljust(64) + row + minutes
    yield from (f"  {name}: {mib:.0f} MiB" for name, mib in history.memory_per_member(lines))
    for f in _of(lines, "kernels"):
        kinds = ", ".join(f"{kind} {ms:.2f}" for kind, ms in list(f["by_kind"].items())[:4])
        busy = f"some run in {f['busy_ms_per_step']:.2f} of a step's {f['ms_per_step']:.2f} ms"
        yield f"  kernels, {f['pair']}, {f['members']} in a pack: {busy}; {kinds}"
        yield "    longest: " + ", ".join(f"{name[:40]} {ms:.3f}" for name, ms in list(f["longest"].items())[:3])
    done = {f["what"] for f in _of(lines, "measured")}
    failed = {f["what"]: f["why"] for f in _of(lines, "not measured") if f["what"] not in done}
    yield from (f"  not measured: {what}: {why}" for what, why in failed.items())


def _name(finding: Finding) -> str:
    return history.ours(finding) if finding["kind"] == "ours" else f"plain loop, {finding['processes']} at once"


def _large(lines: list[Finding]) -> Iterator[str]:
    for f in _of(lines, "classifier")[-1:]:
        what = f"{f['pair']}, batch {f['batch']}, {f['side']} pixels, {f['precision']}"
        yield f"{what}: {f['images_per_s']:,.0f} images/s, {f['memory_mib']:,.0f} MiB"
    for f in _of(lines, "detector")[-1:]:
        steps = f"{f['seconds_per_step']} s per step ({f['steps']} steps)"
        yield f"{f['pair']}, batch {f['batch']}: {steps}, {f['memory_mib']:,.0f} MiB"


def _compared(now: Figures | None) -> list[str]:
    if now is None:
        return []
    before = history.newest(now.card)
    if before is None:
        return [f"history: none of {now.card} yet"]
    both = [name for name in now.figures if before.figures.get(name)]
    ratios = {name: now.figures[name] / before.figures[name] for name in both}
    changed = sorted(
        (name for name, ratio in ratios.items() if abs(ratio - 1) > _CHANGE), key=lambda name: -abs(ratios[name] - 1)
    )
    head = f"history: {len(both)} figures as on {before.date[:10]} (torch {before.torch}, commit {before.commit})"
    return [head + f", {len(changed)} changed", *(f"  {ratios[name]:.2f} x {name}" for name in changed[:8])]
