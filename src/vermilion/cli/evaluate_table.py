"""`vermilion evaluate table`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from vermilion.cli.console import OK, Terminal
from vermilion.cli.evaluation import Results, Systems, run, show, task
from vermilion.cli.options import Hardware, Json, Llm, ModelsOption, Quiet, Search
from vermilion.errors import OptionsError

if TYPE_CHECKING:
    from vermilion.evaluation.published import ReportTable
    from vermilion.evaluation.session import System
    from vermilion.pipeline import PipelineOptions

EXAMPLES = """Examples:
  vermilion evaluate table 2 --data manifests -o out
  vermilion evaluate table 6 --data manifests --recognizer llm
  vermilion evaluate table 3 --data manifests --system vermilion --system ten

Table 2: recognition; 3: voice activity; 4: languages; 5: punctuation;
6: recognition set by set. The folder holds a manifest per test set, as
`vermilion prepare` writes them; sets that are not there are left out."""


def table(
    number: Annotated[Literal[2, 3, 4, 5, 6], Parameter(help="Which table of the report (arXiv 2603.10420).")],
    /,
    *,
    data: Annotated[Path, Parameter(help="Folder of the manifests: aishell1.jsonl, ws-net.jsonl, ...")],
    recognizer: Annotated[
        Literal["auto", "aed", "llm", "whisper"], Parameter(help="Which recogniser (tables 2 and 6).")
    ] = "auto",
    system: Systems = None,
    models: ModelsOption = "auto",
    search: Search = Search(),  # noqa: B008 - frozen
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    llm: Llm = Llm(),  # noqa: B008 - frozen
    results: Results = Results(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """A table of the report: ours beside the published figures."""
    from vermilion.evaluation import published
    from vermilion.evaluation.reported import missing, parts
    from vermilion.evaluation.systems import OWN

    terminal = Terminal(quiet)
    if results.group:
        raise OptionsError("the groups of a table are the report's own; leave --group out")
    wanted = published.table(number)
    found = parts(wanted, data)
    options = replace(hardware.apply(), recognizer=recognizer, decoding=search.plain(), llm=llm.plain())
    systems = _systems(wanted, system or [OWN], models, options)
    terminal.say(f"Table {number}: {wanted.title} ({wanted.source}, section {wanted.section}). {wanted.note}")
    if absent := missing(wanted, found):
        terminal.warn(f"not in {data}: {', '.join(absent)}")
    code = OK
    for part in found:
        folder = results.output_dir / part.name if results.output_dir and part.name else results.output_dir
        plan = replace(results.plan(part.scoring, published=wanted.systems), output_dir=folder)
        code = max(code, show(terminal, run(terminal, systems, part.sets, plan), results, json))
    return code


def _systems(wanted: ReportTable, names: list[str], models: str, options: PipelineOptions) -> list[System]:
    from vermilion.evaluation import systems
    from vermilion.vad import VadOptions

    if wanted.task == "asr":
        return systems.recognisers(names, models, options)
    if wanted.task == "vad":
        return systems.detectors(names, models, VadOptions())
    if wanted.task == "lid":
        return systems.identifiers(names, models, options)
    if names != [systems.OWN]:
        raise OptionsError("only vermilion restores punctuation here; leave --system out")
    return systems.restorers(models, options)


evaluate_table_app = task(table, EXAMPLES)
