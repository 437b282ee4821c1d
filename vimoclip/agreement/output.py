"""agreement.json, agreement.csv, confusions.csv and agreement.html, and the table in the terminal."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vimoclip.agreement import page
from vimoclip.agreement.coding import Coding, CodingPair
from vimoclip.io import atomic, csv, yaml_json
from vimoclip.io.numbers import format_count, format_number
from vimoclip.runtime import versions

SCHEMA = 1
JSON_FILE, TABLE_FILE, CONFUSIONS_FILE = "agreement.json", "agreement.csv", "confusions.csv"
PAGE_FILE = "agreement.html"
ALL_ACTIONS = ""  # in agreement.csv; no action has this name
# column of agreement.csv -> keys of the entry in agreement.json
ENTRIES = {
    "kappa": ("kappa",),
    "percent_agreement": ("percent_agreement",),
    "precision_by_time": ("by_time", "precision"),
    "recall_by_time": ("by_time", "recall"),
    "f1_by_time": ("by_time", "f1"),
    "precision_by_bouts": ("by_bouts", "precision"),
    "recall_by_bouts": ("by_bouts", "recall"),
    "f1_by_bouts": ("by_bouts", "f1"),
    "onset_error_mean_seconds": ("onset_error_seconds", "mean"),
    "onset_error_mean_absolute_seconds": ("onset_error_seconds", "mean_absolute"),
    "offset_error_mean_seconds": ("offset_error_seconds", "mean"),
    "offset_error_mean_absolute_seconds": ("offset_error_seconds", "mean_absolute"),
}
COUNTS = {
    "coded_seconds": ("coded_seconds",),
    "predicted_seconds": ("predicted_seconds",),
    "coded_bouts": ("by_bouts", "coded"),
    "predicted_bouts": ("by_bouts", "predicted"),
    "matched_bouts": ("by_bouts", "matched"),
    "coded_points": ("coded_points",),
    "predicted_points": ("predicted_points",),
}


def describe(
    coded: Coding, predicted: Coding, pair: CodingPair, measured: Mapping[str, Any], span: str, command: str
) -> dict[str, Any]:
    """Return the content of agreement.json. `measured`: of `measure`."""
    notes = dict.fromkeys([*coded.notes, *predicted.notes, *pair.notes, *measured["notes"]])
    return {
        **measured,
        "schema": SCHEMA,
        "coded": _describe_file(coded),
        "predicted": _describe_file(predicted),
        "span": span,
        "notes": list(notes),
        "command": command,
        "versions": versions.package_versions(),
    }


def _describe_file(coding: Coding) -> dict[str, Any]:
    is_file = coding.path.is_file()
    return {
        "file": coding.path.name or str(coding.path),
        "observations": coding.observations,
        "sha256": hashlib.sha256(coding.path.read_bytes()).hexdigest() if is_file else None,
    }


def format_table(document: Mapping[str, Any]) -> str:
    """Return overall numbers, one line per action, and the notes."""
    overall, films = document["overall"], document["films"]
    sizes = [format_count(len(films), "film"), f"{document['compared_seconds']:.1f} s compared"]
    sizes += [format_count(len(document["actions"]), "action"), f"a sample every {document['step_seconds']:g} s"]
    lines = [
        f"{_name(document['coded'])} (coded) and {_name(document['predicted'])} (predicted): {', '.join(sizes)}",
        "",
        f"kappa of all actions together {_format_entry(overall['kappa'])}",
        f"percent agreement             {_format_entry(overall['percent_agreement'], 1)}",
        f"mean kappa of the actions     {_format_entry(overall['kappa_macro'])}",
        f"F1 by time                    {_format_entry(overall['by_time']['f1'])}",
        f"F1 by bouts                   {_format_entry(overall['by_bouts']['f1'])}",
        "",
    ]
    width = max(len("action"), *(len(name) for name in document["actions"]))
    lines.append(
        f"{'action':{width}}  {'kappa':22} {'agree %':>7} {'F1 time':>7} {'F1 bouts':>8} {'bouts':>11} {'seconds':>15}"
    )
    for name, action in document["actions"].items():
        bouts = f"{action['by_bouts']['coded']} / {action['by_bouts']['predicted']}"
        seconds = f"{action['coded_seconds']:.1f} / {action['predicted_seconds']:.1f}"
        agreement = _format_value(action["percent_agreement"]["value"], 1)
        f1 = [_format_value(action[kind]["f1"]["value"]) for kind in ("by_time", "by_bouts")]
        lines.append(
            f"{name:{width}}  {_format_entry(action['kappa']):22} {agreement:>7} {f1[0]:>7} {f1[1]:>8} {bouts:>11} "
            f"{seconds:>15}"
        )
    return "\n".join([*lines, "", *(f"note: {note}" for note in document["notes"])])


def _name(described: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (described["file"], described["observations"])))


def _format_entry(entry: Mapping[str, Any], digits: int = 2) -> str:
    interval = " to ".join(_format_value(bound, digits) for bound in entry["ci95"]) if entry["ci95"] else ""
    return _format_value(entry["value"], digits) + (f" ({interval})" if interval else "")


def _format_value(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no negative zero


def write_files(folder: Path, pair: CodingPair, document: dict[str, Any]) -> list[Path]:
    """Write all files, and return their paths. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    header = ["action", *COUNTS]
    for name in ENTRIES:
        header += [name, f"{name}_low", f"{name}_high"]
    confusions = (
        [item["coded"] or "", item["predicted"] or "", format_number(item["seconds"])]
        for item in document["confusions"]
    )
    return [
        yaml_json.write_json(folder / JSON_FILE, document),
        csv.write_csv(folder / TABLE_FILE, header, _table_rows(document)),
        csv.write_csv(folder / CONFUSIONS_FILE, ("coded", "predicted", "seconds"), confusions),
        atomic.write_text(folder / PAGE_FILE, page.render_agreement(folder, pair, document)),
    ]


def _table_rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the cells of each action, then those of all together."""
    for name, content in [*document["actions"].items(), (ALL_ACTIONS, document["overall"])]:
        cells = [_format_cell(_member(content, keys)) for keys in COUNTS.values()]
        for keys in ENTRIES.values():
            entry = _member(content, keys)
            cells += map(_format_cell, [entry["value"], *(entry["ci95"] or (None, None))])
        yield [name, *cells]


def _member(content: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """Return a nested member; None for what only actions have."""
    found: Any = content
    for key in keys:
        found = found.get(key) if found else None
    return found


def _format_cell(value: float | None) -> str:
    return "" if value is None else format_number(value)
