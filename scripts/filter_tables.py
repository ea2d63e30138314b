"""Tables of docs/filters.md and docs/inner-layers.md from docs/results, between their markers.

    python scripts/filter_tables.py [REPO]
"""
import json
import re
import sys
from pathlib import Path

REPO = Path(sys.argv[1] if len(sys.argv) > 1 else ".")


def rows(folder):
    return {f.stem: json.loads(f.read_text()) for f in sorted((REPO / "docs/results" / folder).glob("*.json"))}


def table(head, lines):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def put(document, name, text):
    file = REPO / "docs" / document
    old = file.read_text()
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    new = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + text + end, old, flags=re.S)
    assert begin in new, f"{document} has no marker {name}"
    file.write_text(new)


def percent(row):
    return f"{100 * row['accuracy']:.2f}" if row else "-"


def resnet():
    all_rows = rows("filters")
    criteria = ("l1", "l2", "geometric-median", "bn-scale", "taylor", "random", "reverse")
    columns = [("normalised", order, cut, scope) for scope in ("inside", "all") for cut in (30, 50) for order in ("uniform", "global")]
    name = lambda c, how, order, cut, scope: f"{c}-{how}-{order}-{cut}" + ("-all" if scope == "all" else "")
    head = ["criterion"] + [f"{scope}, {order}, -{cut} %" for _, order, cut, scope in columns]
    put("filters.md", "resnet", table(head, [[f"`{c}`"] + [percent(all_rows.get(name(c, *k))) for k in columns] for c in criteria]))
    ways = [(how, cut) for cut in (30, 50) for how in ("normalised", "sum", "makers")]
    head = ["criterion"] + [f"{how}, -{cut} %" for how, cut in ways]
    lines = [[f"`{c}`"] + [percent(all_rows.get(f"{c}-{how}-uniform-{cut}")) for how, cut in ways] for c in criteria]
    put("filters.md", "aggregates", table(head, lines))
    lines = []
    for c in criteria:
        for cut in (30, 50):
            row = all_rows.get(f"{c}-sum-uniform-{cut}")
            if row and "torch_pruning" in row:
                t = row["torch_pruning"]
                same = t["layers_with_the_same_channels"]
                if "with_the_norm_s_scale_added" in t:
                    same += f" ({t['with_the_norm_s_scale_added']} with the norm's scale added)"
                lines.append([f"`{c}`", f"-{cut} %", percent(row), percent(t), same])
    put("filters.md", "torch-pruning", table(["criterion", "MACs", "Pomona, `sum`", "Torch-Pruning", "layers with the same channels"], lines))


def mobilenet():
    found = rows("mobilenetv2")
    criteria = ("l1", "l2", "geometric-median", "bn-scale", "taylor", "random", "reverse")
    columns = [(scope, order, cut) for cut in (10, 30) for scope, order in (("inside", "uniform"), ("inside", "global"), ("all", "uniform"))]
    cell = lambda r: f"{100 * r['agreement']:.1f} / {r['kl']:.2f}" if r else "-"
    lines = [[f"`{c}`"] + [cell(found.get(f"{c}-{scope}-{order}-{cut}")) for scope, order, cut in columns] for c in criteria]
    put("filters.md", "mobilenet", table(["criterion"] + [f"{scope}, {order}, -{cut} %" for scope, order, cut in columns], lines))


def cats():
    found = rows("inner-layers")
    line = lambda what, r: [what, f"{r['parameters']:,}", f"{r['macs'] / 1e6:.1f} M", f"{r['l1']:.3f}",
                            "-" if r["psnr"] is None else f"{r['psnr']:.2f}", f"{r['ssim']:.3f}"]
    lines = []
    for share in (25, 50, 75):
        row = found[f"cut-{share}"]
        lines.append(line(f"{share} % of levels 4 to 8", row["inner"]))
        lines.append(line("the same size, global ranking", row["global"]))
        lines.append(line("the same size, the same share everywhere", row["uniform"]))
    lines += [line(f"{n} innermost level{'s' if n > 1 else ''} out", found[f"drop-{n}"]) for n in (1, 2, 3, 4)]
    put("inner-layers.md", "cats", table(["cut", "parameters", "MACs", "L1", "PSNR", "SSIM"], lines))


if __name__ == "__main__":
    cats()
    if rows("filters"):
        resnet()
    if rows("mobilenetv2"):
        mobilenet()
