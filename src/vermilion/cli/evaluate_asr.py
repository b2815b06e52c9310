"""`vermilion evaluate asr`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vermilion.cli.console import Terminal
from vermilion.cli.evaluation import SCORING, Results, Systems, Text, run, sets_of, show, task
from vermilion.cli.options import Hardware, Json, Llm, ModelsOption, Quiet, Search
from vermilion.errors import OptionsError

if TYPE_CHECKING:
    from vermilion.evaluation.session import Outcome, Plan

EXAMPLES = """Examples:
  vermilion evaluate asr test.jsonl                         a table
  vermilion evaluate asr test.jsonl -o out                  and out/report.html
  vermilion evaluate asr a.jsonl b.jsonl --group Both=a,b   a macro average
  vermilion evaluate asr test.jsonl --system vermilion --system whisper
  vermilion evaluate asr test.jsonl -o new --against old    is it better?
  vermilion evaluate asr --ref ref.txt --hyp hyp.txt --show 5

Texts are Kaldi's (an id, then the words) or JSON lines with id and text. A
missing text counts as deleted words; one without a reference does not count
and is reported. --hyp may be repeated."""


def asr(
    manifests: Annotated[
        list[str] | None, Parameter(help="Test sets: manifests (JSON lines or Kaldi folders), also as NAME=path.")
    ] = None,
    /,
    *,
    ref: Annotated[str | None, Parameter(group=SCORING, help="File of true texts; no recordings are needed.")] = None,
    hyp: Annotated[list[str] | None, Parameter(group=SCORING, help="File of recognised texts, as NAME=path.")] = None,
    text: Text = Text(),  # noqa: B008 - frozen
    known_language: Annotated[
        bool, Parameter(negative="", show_default=False, help="Tell the recogniser the language, if it can use it.")
    ] = False,
    system: Systems = None,
    models: ModelsOption = "auto",
    search: Search = Search(),  # noqa: B008 - frozen
    hardware: Hardware = Hardware(),  # noqa: B008 - frozen
    llm: Llm = Llm(),  # noqa: B008 - frozen
    results: Results = Results(),  # noqa: B008 - frozen
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Error rates of recognised text, from recordings or from two files of texts."""
    terminal = Terminal(quiet)
    plan = results.plan(text.scoring())
    if ref is not None or hyp is not None:
        if ref is None or not hyp or manifests:
            raise OptionsError("texts are compared by --ref and --hyp together, without manifests")
        return show(terminal, _texts(ref, hyp, plan, terminal), results, json)
    if not manifests:
        raise OptionsError("give a manifest, or --ref and --hyp")
    from vermilion.evaluation.systems import OWN, recognisers

    options = replace(hardware.apply(), decoding=search.plain(), llm=llm.plain())
    systems = recognisers(system or [OWN], models, options, known_language=known_language)
    return show(terminal, run(terminal, systems, sets_of(manifests, results), plan), results, json)


def _texts(ref: str, hyp: Sequence[str], plan: Plan, terminal: Terminal) -> Outcome:
    from vermilion.evaluation.session import scored
    from vermilion.evaluation.texts import as_answers, as_set, read_texts

    references = read_texts(ref)
    test_set = as_set(Path(ref).stem, references)
    answers = {}
    for given in hyp:
        name, equals, path = given.partition("=")
        named = bool(equals) and not Path(given).exists()
        hypotheses = read_texts(path if named else given)
        extra = [id for id in hypotheses if id not in references]
        if extra:
            more = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
            terminal.warn(
                f"{given} has {len(extra)} texts without a reference, not counted: {', '.join(extra[:3])}{more}"
            )
        answers[name if named else Path(given).stem] = as_answers(test_set, hypotheses)
    if len(answers) < len(hyp):
        raise OptionsError("two --hyp share a name; give one as NAME=path")
    return scored([test_set], answers, plan)


evaluate_asr_app = task(asr, EXAMPLES)
