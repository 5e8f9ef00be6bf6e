"""What gpu_check.py keeps between its steps and commands, and the test log made of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

SOURCES = (".py", ".h", ".cuh", ".cpp", ".cu")
# What lies below the folders of a system's own software says something; any other path (but no
# address, no ratio) is of one machine and not for a record.
SYSTEM = "usr|opt|bin|sbin|lib|lib64|etc|dev|proc|sys|Library|Applications"
PRIVATE_PATH = re.compile(rf"(?<![\w.$}}])(?<!:/)/(?!(?:{SYSTEM})/)[\w.~+-]+/[^\s:'\",)]+")


@dataclass
class Result:
    """What came of a step."""

    status: str  # passed, failed, skipped, unfinished
    detail: str
    seconds: float = 0.0


class State:
    """The results of all steps in a folder; they hold for one version of the sources only."""

    def __init__(self, folder: Path, root: Path, machine: dict[str, str]) -> None:
        self.folder, self.root, self.machine = folder, root, machine
        self.file = folder / "state.json"
        self.results: dict[str, Result] = {}
        self.records: list[str] = []  # those begun by this run
        self.date = date.today().isoformat()  # of the first step: one name for all its files
        self.sources = self._fingerprint()
        folder.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            kept = json.loads(self.file.read_text())
            if kept["sources"] == self.sources and kept["GPU"] == machine["GPU"]:
                self.results = {name: Result(**value) for name, value in kept["results"].items()}
                self.records, self.date = kept["records"], kept["date"]
            else:
                self.forget()

    def _fingerprint(self) -> str:
        """Of all that is built or run."""
        digest = hashlib.sha256()
        folder = self.root / "ops_dcnv3"
        for path in sorted(p for p in folder.rglob("*") if p.suffix in SOURCES and p.is_file()):
            relative = path.relative_to(folder)
            if relative.parts[0] in ("build", "dist"):
                continue
            digest.update(f"{relative}\n".encode() + path.read_bytes())
        return digest.hexdigest()

    def forget(self, step: str | None = None) -> None:
        """Drop the results of a step, or of all of them; what was built may stay."""
        if step is None:
            self.results, self.records = {}, []
            self.date = date.today().isoformat()
            for log in self.folder.glob("*.jsonl"):
                log.unlink()
        else:
            self.results.pop(step, None)
            self.log_of(step).unlink(missing_ok=True)

    def keep(self, step: str, result: Result, seconds: float) -> None:
        """Add a result, also to the file."""
        before = self.results.get(step)
        earlier = before.seconds if before and before.status == "unfinished" else 0.0
        result.seconds = earlier + seconds
        self.results[step] = result
        self.file.write_text(
            json.dumps(
                {
                    "sources": self.sources,
                    "GPU": self.machine["GPU"],
                    "date": self.date,
                    "records": self.records,
                    "results": {name: asdict(value) for name, value in self.results.items()},
                },
                indent=1,
            )
        )

    # ------------------------------------------------------------------------- tables of checks

    def log_of(self, step: str) -> Path:
        """The file to which `python -m gpu_checks` writes."""
        return self.folder / f"{step}.jsonl"

    def entries(self, step: str) -> dict[str, dict]:
        """The last entry of each check; "started" is one that its process ended in."""
        log = self.log_of(step)
        lines = log.read_text().splitlines() if log.exists() else []
        return {entry["name"]: entry for entry in map(json.loads, lines)}

    def failures(self, step: str) -> list[dict]:
        """The checks that failed or ended their process."""
        return [e for e in self.entries(step).values() if e["status"] in ("failed", "started")]

    def summary(self, step: str) -> str:
        """How many of each status, and the names of those that failed."""
        entries = self.entries(step)
        counts = Counter(entry["status"] for entry in entries.values())
        counts["ended their process"] = counts.pop("started", 0)
        text = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
        names = [entry["name"] for entry in self.failures(step)]
        if names:
            text += ": " + "; ".join(names[:20]) + ("; ..." if len(names) > 20 else "")
        return text or "no check was run"

    # --------------------------------------------------------------------------- what is written

    def base_name(self) -> str:
        """Of record and log: the operator, the GPU and the day."""
        gpu = re.sub(r"[^a-z0-9]+", "_", self.machine["GPU"].lower()).strip("_")
        return f"dcnv3_{gpu}_{self.date}"

    def record(self, output: Path) -> Path:
        """The benchmark's record."""
        return output / f"{self.base_name()}.md"

    def begun_record(self, path: Path) -> bool:
        """Whether this run has begun the record already, so that a table is added to it."""
        if str(path) in self.records and path.exists():
            return True
        self.records.append(str(path))
        path.unlink(missing_ok=True)  # of another run of the same day
        return False

    def overview(self, steps: list[str]) -> str:
        """A line for each step."""
        lines = []
        for name in steps:
            result = self.results.get(name, Result("unfinished", "not run"))
            first = (result.detail.splitlines() or [""])[0]
            lines.append(f"{name:10} {result.status:10} {result.seconds:6.0f} s  {first}".rstrip())
        return "\n".join(lines)


def scrub(text: str, root: Path) -> str:
    """The text without paths of this machine and blanks at the ends of lines."""
    text = PRIVATE_PATH.sub("<path>", text.replace(f"{root}/", "").replace(str(root), "."))
    return "\n".join(line.rstrip() for line in text.expandtabs().splitlines())


def write_log(state: State, steps: list[str], output: Path, command: str) -> Path:
    """Writes the test log, Markdown; returns its path."""
    lines = [
        "# GPU tests of the DCNv3 operator",
        "",
        f"{state.date}: `{command}`",
        "",
        *(f"- {name}: {value}" for name, value in state.machine.items()),
        f"- sources: sha256 {state.sources[:16]}",
        "",
        "```text",
        state.overview(steps),
        "```",
    ]
    for step in steps:
        result = state.results.get(step)
        if result is None:
            continue
        if result.status != "passed":
            lines += ["", f"## {step}: {result.status}", "", "```text", result.detail, "```"]
        entries = state.entries(step)
        if not entries:
            continue
        lines += ["", f"## {step}: {len(entries)} checks", "", "```text"]
        for entry in entries.values():
            detail = entry["detail"] if entry["status"] != "failed" else "see below"
            text = f"{entry['status']:8}{entry['seconds']:8.2f} s  {entry['name']}  {detail}"
            lines.append(text.replace("\n", " "))
        lines.append("```")
        for entry in state.failures(step):
            lines += ["", f"### {step}: {entry['name']}", "", "```text", entry["detail"], "```"]
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{state.base_name()}_tests.md"
    path.write_text(scrub("\n".join(lines), state.root) + "\n")
    return path
