"""The commands that tell what there is, and that turn an archive into a bundle. They gather nothing."""

import argparse
import shlex

from kube_gpucheck import runner
from kube_gpucheck.cli import codes
from kube_gpucheck.cli.sources import catalogue, exists, library
from kube_gpucheck.cli.streams import show, width
from kube_gpucheck.errors import UsageError
from kube_gpucheck.evidence.bundle import write_bundle
from kube_gpucheck.imports import recording
from kube_gpucheck.model import Layer
from kube_gpucheck.report import listing


def import_archive(options: argparse.Namespace) -> int:
    """Turn an archive into a bundle. Creates the folder.

    Raises:
        UsageError: the archive is none that is known, or the folder is no place for a bundle.
    """
    if options.kind not in {None, recording.KIND}:
        msg = f"--as {options.kind}: unknown kind; this release imports '{recording.KIND}'"
        raise UsageError(msg)
    if not options.archive.is_dir():
        seen = "a file; unpack it first" if exists(str(options.archive)) else "no such folder"
        msg = f"{options.archive}: {seen}; give the folder of a recording"
        raise UsageError(msg)
    if options.output.resolve().is_relative_to(options.archive.resolve()):
        msg = f"-o {options.output}: inside the recording, which must stay as it is; name a folder elsewhere"
        raise UsageError(msg)
    if options.kind is None and not recording.recognise(options.archive):
        seen = "not a recording (no objects.json with kubectl lists, no host dumps)"
        msg = f"{options.archive}: {seen}; 'gpucheck import --help' says what is read"
        raise UsageError(msg)
    manifest, files = recording.import_recording(options.archive, name=None)
    write_bundle(options.output, manifest, files)
    lost = f", {len(manifest.missing)} could not be had when it was recorded" if manifest.missing else ""
    following = f"gpucheck run --from {shlex.quote(str(options.output))}"
    show(f"{options.output}: {len(files)} files of evidence{lost}\nnext: {following}\n")
    return 0


def list_things(options: argparse.Namespace) -> int:
    """Show checks, causes, scenarios or layers."""
    match options.what:
        case "checks":
            show(listing.checks(runner.list_checks(options.checks), width=width()))
        case "causes":
            show(
                listing.table(
                    ((cause.id, cause.position.value, cause.title) for cause in catalogue().causes), width=width()
                )
            )
        case "scenarios":
            there = library()
            show(
                listing.table(
                    ((name, there.about(name)) for name in there.scenarios() if not name.startswith("checks/")),
                    width=width(),
                )
            )
        case _:
            show("".join(f"{layer.value}\n" for layer in Layer))
    return 0


def explain(options: argparse.Namespace) -> int:
    """Show the pages of checks, causes, layers and codes.

    Raises:
        UsageError: an id is none of them.
    """
    known = catalogue()
    infos = {info.id: info for info in runner.list_checks()}
    pages: list[str] = []
    words = iter(options.ids)
    for name in words:
        if name.lower() in codes.KINDS:
            pages.append(codes.page(name.lower(), next(words, "")))
            continue
        cause = known.by_id.get(name.lower())
        if name.upper() in infos:
            info = infos[name.upper()]
            causes = [(one.id, one.title) for one in known.by_check.get(info.id, ())]
            pages.append(listing.check_page(info, causes, width=width()))
        elif cause is not None:
            pages.append(
                listing.cause_page(
                    f"{cause.id}  {cause.title}",
                    facts=[
                        ("layer", cause.position.value),
                        ("first seen as a fault of", ", ".join(cause.claims)),
                        *(("speaks for it", str(sign)) for sign in (*cause.needs, *cause.hints)),
                        *(("speaks against it", str(sign)) for sign in cause.against),
                        ("interrupts", cause.interrupts),
                    ],
                    remedies=list(cause.remedy.items()),
                    proof=f"gpucheck run -k {cause.proves}",
                    width=width(),
                )
            )
        elif name.lower() in {layer.value for layer in Layer}:
            pages.append(
                listing.checks((info for info in infos.values() if info.layer.value == name.lower()), width=width())
            )
        else:
            msg = (
                f"'{name}' is no check, cause, layer or code (xid 79); 'gpucheck list checks' and 'gpucheck list "
                "causes' show the ids"
            )
            raise UsageError(msg)
    show("\n".join(pages))
    return 0
