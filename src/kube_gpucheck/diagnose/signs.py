"""Whether a sign speaks in the surroundings of a subject: yes, no, or unknown."""

import re
from functools import cache

from kube_gpucheck.diagnose import facts
from kube_gpucheck.diagnose.catalogue import EventSign, FindingSign, LogSign, Sign
from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.evidence.readings import attempt
from kube_gpucheck.model import Missing, Outcome, Reading, Seen


def speaks(sign: Sign, context: Context) -> Reading[bool]:
    """Return whether the sign speaks; missing where the evidence that would tell is missing. Asked once a subject."""
    if sign not in context.spoken:
        context.spoken[sign] = _speaks(sign, context)
    return context.spoken[sign]


def _speaks(sign: Sign, context: Context) -> Reading[bool]:
    if sign.finding is not None:
        return _finding(sign.finding, context)
    if sign.log is not None:
        return _log(sign.log, context)
    if sign.event is not None:
        return _event(sign.event, context)
    if sign.any is not None:
        return _any(sign.any, context)
    return facts.ask(sign.fact or "", context)


def _any(signs: tuple[Sign, ...], context: Context) -> Reading[bool]:
    missing: Missing | None = None
    for sign in signs:
        answer = speaks(sign, context)
        if isinstance(answer, Missing):
            missing = missing or answer
        elif answer.value:
            return answer
    return missing or Seen(value=False)


def _finding(sign: FindingSign, context: Context) -> Reading[bool]:
    said = context.judgements.says(sign.check, context.subject, Outcome(sign.outcome))
    return Seen(next(said, None) is not None)


def _log(sign: LogSign, context: Context) -> Reading[bool]:
    answer = attempt(lambda: context.heard(sign.component).says(sign))
    return answer if isinstance(answer, Missing) else answer.value


def _event(sign: EventSign, context: Context) -> Reading[bool]:
    pattern = _compiled(sign.re)
    return attempt(
        lambda: any(
            (not sign.reason or reason == sign.reason) and pattern.search(message) is not None
            for reason, message in context.messages(sign.component)
        )
    )


@cache
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE | re.MULTILINE)
