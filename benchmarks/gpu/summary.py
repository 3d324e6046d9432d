"""The summary of a run of the GPU program: at most 60 lines of text, from its findings alone."""

from collections import Counter
from collections.abc import Iterator

from benchmarks.gpu import history
from benchmarks.gpu.findings import Finding, Findings
from benchmarks.gpu.history import Figures

MOST_LINES = 60
_CHANGE = 0.05  # of a figure, beyond which it is listed as changed


def summary(findings: Findings) -> list[str]:
    """Return the lines of the summary; what does not fit is counted."""
    lines = list(findings.read())
    text = [line for part in (_card, _tests, _throughput, _row, _large, _ends) for line in part(lines)]
    text += _compared(Figures.of(findings))
    if len(text) > MOST_LINES:
        more = len(text) - MOST_LINES + 1
        text = [*text[: MOST_LINES - 1], f"... {more} more lines: see {findings.path.name}"]
    return text


def _of(lines: list[Finding], kind: str) -> list[Finding]:
    return [f for f in lines if f.get("kind") == kind]


def _card(lines: list[Finding]) -> Iterator[str]:
    for f in _of(lines, "machine")[-1:]:
        versions = ", ".join(f"{k} {f[k]}" for k in ("torch", "cuda", "cudnn", "python") if f[k])
        memory = f", {f['memory_gib']} GiB" if "memory_gib" in f else ""
        driver = f", driver {f['nvidia_smi'].get('driver_version')}" if f.get("nvidia_smi") else ""
        yield f"{f['card']}{memory}{driver}; {versions}; {f['cores']} cores; commit {f['commit']}"
    reached = [f"{f['kind']} {f['gb_per_s']} GB/s" for f in lines if f.get("kind") in ("copy", "copy to device")]
    reached += [f"{f['precision']} products {f['tflops']} TFLOP/s" for f in _of(lines, "matrix peak")]
    if reached:
        yield "reached: " + ", ".join(reached)


def _tests(lines: list[Finding]) -> Iterator[str]:
    results = {f["test"]: f["result"] for f in _of(lines, "test")}
    if results:
        counts = ", ".join(f"{count} {result}" for result, count in sorted(Counter(results.values()).items()))
        seconds = "".join(f" in {f['seconds']} s" for f in _of(lines, "suite")[-1:])
        yield f"tests: {counts}{seconds}"
    failed = [test for test, result in results.items() if result in ("failed", "error")]
    yield from (f"  {test}" for test in failed[:8])


def _throughput(lines: list[Finding]) -> Iterator[str]:
    plain = history.plain_rates(lines)
    measured = [f for f in lines if f.get("kind") in ("ours", "plain")]
    if measured:
        yield "images per second of all runs together; times one plain loop; share of the products' peak; MiB of each"
    for f in sorted(measured, key=lambda f: (f["pair"], f["precision"], f["kind"])):
        what = history.ours(f) if f["kind"] == "ours" else f"plain loop, {f['processes']} at once"
        rate = plain.get((f["pair"], f["precision"]))
        times = f"{f['images_per_s_of_all'] / rate:.2f} x" if rate else ""
        share = f"{100 * f['share_of_matrix_peak']:.1f} %" if f.get("share_of_matrix_peak") else ""
        memory = f"{f['memory_mib_per_member']:.0f} MiB" if f.get("memory_mib_per_member") else ""
        row = f"{f['images_per_s_of_all']:>10,.0f} {times:>8} {share:>7} {memory:>9}"
        minutes = f"  240 epochs: {f['minutes_of_240_epochs']:.1f} min" if len(f.get("methods", ())) > 1 else ""
        yield f"  {f['pair']}, {f['precision']}, {what}:".ljust(64) + row + minutes
    for f in _of(lines, "kernels"):
        kinds = ", ".join(f"{kind} {ms:.2f}" for kind, ms in list(f["by_kind"].items())[:4])
        step = f"{f['kernel_ms_per_step']:.2f} of {f['ms_per_step']:.2f} ms of a step"
        yield f"  kernels, {f['pair']}, {f['members']} in a pack: {step}; {kinds}"
    for f in _of(lines, "not measured"):
        yield f"  not measured: {f['what']}: {f['why']}"[:160]


def _row(lines: list[Finding]) -> Iterator[str]:
    for f in _of(lines, "waits")[-1:]:
        yield f"published row: {f['why']}"
    for f in _of(lines, "trained")[-1:]:
        yield f"published row: {f['done']} of {f['runs']} runs done; trained for {f['seconds']} s in the last call"
        if f["not_saved"]:
            yield f"  not saved, too large: {len(f['not_saved'])} files"
    last = {f["run"]: f for f in lines if f.get("kind") in ("in training", "failed", "done")}
    for run, f in last.items():
        if f["kind"] == "in training":
            left = f", {f['seconds_left'] / 60:.1f} min left" if f.get("seconds_left") else ""
            yield f"  {run}: epoch {f['epoch']} of {f['epochs']}{left}"
        elif f["kind"] == "failed":
            yield f"  {run}: FAILED: {f['why']}"[:160]
    for f in _of(lines, "table")[-1:]:
        yield from f["lines"]


def _large(lines: list[Finding]) -> Iterator[str]:
    for f in _of(lines, "classifier"):
        yield (
            f"{f['pair']}, batch {f['batch']}, {f['side']} pixels, {f['precision']}: {f['images_per_s']:,.0f} images/s"
            + (f", {f['memory_mib']:,.0f} MiB" if f["memory_mib"] else "")
        )
    for f in _of(lines, "detector"):
        memory = f", {f['memory_mib']:,.0f} MiB" if f["memory_mib"] else ""
        yield f"{f['pair']}, batch {f['batch']}: {f['seconds_per_step']} s per step ({f['steps']} steps){memory}"


def _ends(lines: list[Finding]) -> Iterator[str]:
    last = {f["stage"]: f for f in _of(lines, "end")}
    for stage, f in last.items():
        if not f["finished"]:
            yield f"stage {stage}: not finished: {f['why']}"


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
