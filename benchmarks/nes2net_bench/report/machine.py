"""The machine card: what a document was measured on."""

from collections.abc import Mapping
from typing import Any

from nes2net_bench.documents import Document
from nes2net_bench.report.content import Table, table
from nes2net_runtime.output import count


def machine_card(document: Document) -> Table:
    """Rows of what the document knows of its machine; older ones know less."""
    found = document.machine
    cores = found.get("cores")
    rows = {
        "processor": _processor(found),
        "instructions": ", ".join(found.get("instructions") or ()),
        "cores": f"{cores}, {_threads(found)}" if cores else "",
        "clock governor": found.get("governor") or "",
        "memory": f"{found['memory'] / 1e9:.1f} GB" if found.get("memory") else "",
        "cards": "; ".join(map(_card, found.get("cards") or ())),
        "load at the end": f"{found['load']:g}" if "load" in found else "",
        "system": found.get("system") or "",
        "versions": ", ".join(f"{name} {version}" for name, version in _versions(found).items()),
        "measured": document.created,
    }
    return table(("machine", ""), [(name, text) for name, text in rows.items() if text])


def short(document: Document) -> str:
    """The machine in a few words."""
    cards = document.machine.get("cards") or ()
    processor = str(document.machine.get("processor", "unknown processor"))
    where = str(cards[0].get("name")) if cards else processor
    return f"{where}, {document.created[:10]}" if document.created else where


def _processor(found: Mapping[str, Any]) -> str:
    return str(found.get("processor", "")) + (", virtual" if found.get("virtual") else "")


def _quota(found: Mapping[str, Any]) -> str:
    return f", quota of {found['quota']:g} CPUs" if found.get("quota") else ""


def _threads(found: Mapping[str, Any]) -> str:
    return f"{count(int(found.get('threads', 0)), 'thread')} usable{_quota(found)}"


def _card(card: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" if name != "name" else str(value) for name, value in card.items())


def _versions(found: Mapping[str, Any]) -> dict[str, str]:
    own = {"Python": str(found["python"])} if "python" in found else {}
    return own | dict(found.get("versions") or {})
