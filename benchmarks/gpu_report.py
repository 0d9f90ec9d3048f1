"""The tables of docs/gpu.md from the results of gpu.py."""

from __future__ import annotations

from typing import Any

from markdown_tables import table


def report(data: dict[str, Any]) -> dict[str, list[str]]:
    """By section of the page, the lines in Markdown."""
    found = {"machine": machine_lines(data)}
    for step, tasks in data["steps"].items():
        lines = [line for name, task in tasks.items() for line in said(name, task)]
        results = {
            name: task["result"] | {"command": task["command"]} for name, task in tasks.items() if task.get("result")
        }
        found[step] = [*lines, *(LINES[step](results) if results else [])]
    return found


def machine_lines(data: dict[str, Any]) -> list[str]:
    m = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items() if version)
    where = f"{m['gpu']}, driver {data.get('driver')}, CUDA {m['cuda']}; host: " if m["gpu"] else ""
    return [
        f"`{data['command']}`",
        "",
        f"{where}{m['cpu']}, {m['cores']} cores. Python {m['python']}, {versions}. Commit {data['commit']}; "
        f"{data['seconds']:.0f} s for everything.",
        "",
    ]


def said(name: str, task: dict[str, Any]) -> list[str]:
    """Return one line on a task that failed, was stopped or was left out."""
    if task["status"] == "done":
        return []
    failed = task["status"].startswith("failed")
    last = [line.strip() for line in task.get("says", []) if failed and line.strip()][-1:]
    return [f"**{name}: {task['status']}**" + (f": {last[0]}" if last else "."), ""]


def tests(results: dict[str, Any]) -> list[str]:
    (result,) = results.values()
    lines = [f"{result['passed']} passed, {len(result['failed'])} failed, {sum(result['skipped'].values())} skipped."]
    lines += ["", *(f"- skipped ({count}): {reason}" for reason, count in result["skipped"].items())]
    return [*lines, *(f"- failed: {bad['test']}" for bad in result["failed"]), ""]


def explainers(results: dict[str, Any]) -> list[str]:
    lines = []
    for name, result in results.items():
        body = [
            [
                row["label"],
                str(row["batch"]),
                f"{row['wall_ms']['median']:.2f}",
                f"{1000 * (1 if row['job'] == 'classes' else row['batch']) / row['wall_ms']['median']:.0f}",
                spread_of(row["times_floor"]),
                f"{row['memory_mib']['peak']:.0f}",
            ]
            for row in result["rows"]
        ]
        lines += [f"### {name}", "", *table(["", "batch", "ms", "images/s", "/ floor", "peak MiB"], body)]
        lines += [f"- fails: {label}: {error}" for label, error in result.get("failed", {}).items()]
        lines += [f"- left out, because not installed: {', '.join(result['left out'])}"] if result["left out"] else []
        lines += [""]
    return lines


def spread_of(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} [{spread['low']:.2f}, {spread['high']:.2f}]"


def refinement(results: dict[str, Any]) -> list[str]:
    (result,) = results.values()
    body = []
    for row in result["rows"]:
        (_, cpu), (_, device) = row["seconds"].items()
        times = [f"{1000 * s['median']:.1f}" for s in (cpu, device)]
        ratio = row["device_over_cpu"]["median"]
        differs = [f"{row['labels_differing']:.4%}", f"{row['largest_difference']:.1e}"]
        body.append([row["what"], str(row["classes"]), *times, f"{ratio:.2f}", *differs])
    height, width = result["size"]
    head = [f"{width}x{height}", "K", "CPU, ms", "device, ms", "device / CPU", "labels differing", "largest difference"]
    return table(head, body)


def seeds(results: dict[str, Any]) -> list[str]:
    (result,) = results.values()
    parts = list(next(iter(result["rows"].values()))["parts_ms"])
    body = []
    for line, row in result["rows"].items():
        runs = [f"{r['images_per_second']:.1f} ({r['images_per_pass']:.1f})" for r in row["run"].values()]
        body.append([f"`{line}`", *runs, *(f"{row['parts_ms'][p]:.2f}" for p in parts)])
    batches = next(iter(result["rows"].values()))["run"]
    alone = ", ".join(f"{v:.0f} at batch {b}" for b, v in result["model_alone_images_per_second"].items())
    return [
        f"{result['images']} images, long side {result['long_side']}. The model alone, images/s: {alone}. In the table "
        "images/s of `camplug seeds` (images per forward pass), and the milliseconds per image of its steps, each "
        "waited for.",
        "",
        *table(["", *(f"images/s, --batch {b}" for b in batches), *parts], body),
    ]


def training(results: dict[str, Any]) -> list[str]:
    (result,) = results.values()
    body = []
    for row in result["rows"]:
        if "error" in row:
            body.append(
                [row["training"], row["dtype"], "fails: " + row["error"].strip().splitlines()[-1][:80], *[""] * 5]
            )
            continue
        losses = [f"{row[key]:.3f}" for key in ("first_losses", "last_losses")]
        speed = "-" if row["images_per_second"] is None else f"{row['images_per_second']:.0f}"
        memory = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        finite = "yes" if row["finite"] and row["weights_finite"] else "NO"
        body.append([row["training"], f"{row['dtype']} ({row['precision']})", *losses, finite, speed, memory])
    return table(["", "dtype", "first losses", "last losses", "finite", "images/s", "peak MiB"], body)


def papers(results: dict[str, Any]) -> list[str]:
    from papers import report as lines_of

    (result,) = results.values()
    return lines_of({"seconds": 0.0, **result})


def plan(results: dict[str, Any]) -> list[str]:
    from device_plan import report as lines_of

    (result,) = results.values()
    return lines_of(result)


LINES = {f.__name__: f for f in (tests, explainers, refinement, seeds, training, plan, papers)}
