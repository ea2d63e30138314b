"""The tables of docs/llm-depth.md, and README's, from the rows in docs/results/llm-depth (depth_tables.py makes those).

    python scripts/depth_pages.py [REPO]     prints; with --write, puts them between the marks of both pages
"""
import json
import re
import statistics
import sys
from pathlib import Path

WRITE = "--write" in sys.argv
REPO = Path(next((a for a in sys.argv[1:] if a != "--write"), "."))
RESULTS = REPO / "docs/results/llm-depth"
PAGE = REPO / "docs/llm-depth.md"
CRITERIA = ("perplexity", "taylor", "block-influence", "magnitude")
CUTS = (3, 6, 9)


def load(name):
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def share(r, name):
    return f"{100 * r[name]['acc_norm']:.1f}"


def cells(r):
    return [f"{r['perplexity']:.1f}", share(r, "arc-easy"), share(r, "siqa")] if r else ["", "", ""]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, r)) + " |" for r in rows])


def spread(values, digits=1):
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else f"{values[0]:.{digits}f}"


def criteria():
    """One table a number of blocks."""
    out = []
    dense = load("dense")
    for cut in CUTS:
        rows = [["dense", "", *cells(dense)]] if dense else []
        for criterion in CRITERIA:
            for mode in ("one-shot", "iterative", "anywhere"):
                r = load(f"{criterion}-{mode}-{cut}")
                if r:
                    rows.append([criterion, mode, *cells(r)])
        chance = [r for s in range(1, 6) if (r := load(f"random-{s}-{cut}"))]
        if chance:
            best = [spread([r["perplexity"] for r in chance])]
            best += [spread([100 * r[n]["acc_norm"] for r in chance]) for n in ("arc-easy", "siqa")]
            rows.append([f"random, {len(chance)} seeds", "one-shot", *best])
        out.append(f"### {cut} of 30 blocks out ({10 * cut // 3} %)\n" + table(["criterion", "", "perplexity", "ARC-Easy", "SIQA"], rows))
    return "\n\n".join(out)


def costs():
    rows = []
    for file in sorted(RESULTS.glob("scoring-*.json")):
        r = json.loads(file.read_text())
        if "random" not in file.name and "calibration" not in file.name:
            rows.append([r["criterion"], r["mode"], f"{r['core_seconds']:.0f}", r["memory_mb"]])
    return table(["criterion", "", "core seconds", "peak MB (resident)"], rows)


def whole():
    rows = []
    for name in ("best-dense", *(f"best-{c}" for c in CUTS)):
        if r := load(name):
            what = "dense" if name == "best-dense" else f"{r['blocks']} out, {r['of']}"
            error = lambda s, r=r: f"{share(r, s)} ± {100 * r[s]['acc_norm_stderr']:.1f}"  # noqa: E731
            loops = r.get("repetition", {})
            repeated = f"{100 * loops['repeated']:.1f}" if loops else ""
            rows.append([what, f"{r['perplexity']:.2f}", error("arc-easy"), error("siqa"), repeated])
    return table(["", "perplexity, whole half", "ARC-Easy, all", "SIQA, all", "repeated, %"], rows)


def calibrations():
    rows = []
    for criterion in ("perplexity", "taylor"):
        for kind, name in (("WikiText's other half", f"{criterion}-one-shot-6"), ("written by the model", f"calibration-written-{criterion}-6"),
                           ("random tokens", f"calibration-random-tokens-{criterion}-6")):
            if r := load(name):
                rows.append([criterion, kind, *cells(r), ", ".join(sorted((b.split(".")[-1] for b in r["removed"]), key=int))])
    return table(["criterion", "calibrated on", "perplexity", "ARC-Easy", "SIQA", "blocks out"], rows)


def sizes():
    rows = [json.loads(f.read_text()) for f in RESULTS.glob("size-*.json")]
    rows.sort(key=lambda r: -r["bytes"])
    shown = [[f"{r['bytes'] / 1e6:.1f}", r["encoding"], r["blocks"] or "dense", *cells(r)] for r in rows]
    return table(["MB", "encoding", "blocks out", "perplexity", "ARC-Easy", "SIQA"], shown)


def front():
    """README's table: perplexity by criterion."""
    head = ["criterion", "3 blocks, one-shot", "3, iterative", "6, one-shot", "6, iterative", "9, one-shot", "9, iterative"]
    rows = []
    for criterion in CRITERIA:
        found = [load(f"{criterion}-{mode}-{cut}") for cut in CUTS for mode in ("one-shot", "iterative")]
        rows.append([criterion, *(f"{r['perplexity']:.2f}" if r else "" for r in found)])
    rows.append(["random, 5 seeds"])
    for cut in CUTS:
        chance = [r["perplexity"] for s in range(1, 6) if (r := load(f"random-{s}-{cut}"))]
        rows[-1] += [spread(chance, 0) if chance else "", ""]
    return table(head, rows)


def main():
    put(REPO / "README.md", {"depth": front()})
    parts = {"criteria": criteria(), "costs": costs(), "whole": whole(), "calibrations": calibrations(), "sizes": sizes()}
    if not WRITE:
        print("\n\n".join(f"## {k}\n{v}" for k, v in parts.items()))
        return
    put(PAGE, parts)


def put(page, parts):
    if not WRITE:
        return
    text = page.read_text()
    for name, made in parts.items():
        mark = re.compile(rf"(<!-- {name} -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)
        if not mark.search(text):
            sys.exit(f"{page} has no mark for {name}")
        text = mark.sub(lambda m, made=made: f"{m.group(1)}{made}\n{m.group(2)}", text)
    page.write_text(text)


if __name__ == "__main__":
    main()
