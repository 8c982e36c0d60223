"""Sharing layer: the plugin's sharing configuration can be used, and is what the plugin runs with."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("SHR-001", layer=Layer.SHARING, severity=Severity.CRITICAL)
def check_sharing_configuration_can_be_used(node: Node) -> None:
    """The sharing configuration that the plugin is given exists and parses.

    That the node carries no label is no fault: the default or a fallback applies. Whether the plugin runs with it is
    SHR-009's.
    """
    if not known(node.plugin.is_given_config, "whether the plugin is given a configuration"):
        not_applicable("the plugin is given no configuration file here; its flags alone apply")
    requested = known(node.plugin.requested, "the configuration that the plugin is given")
    if requested is None:
        return
    if not requested.is_given:
        fault(
            seen=f"on {node.name}: {requested.problem}",
            means="the plugin runs with its flags alone, and the label changes nothing",
            remedy="give the plugin the ConfigMap (Helm: config.name, operator: devicePlugin.config.name), or take "
            "the label off; then run 'gpucheck run -k SHR-001'",
            severity=Severity.MAJOR,
        )
    if requested.problem is not None:
        fault(
            seen=f"on {node.name}: {requested.problem}",
            means="the plugin or its config-manager ends with an error, and serves nothing or what it served before",
            remedy="correct the ConfigMap's entry (version: v1 first) or the node's label, delete the plugin's pod "
            "on the node, then run 'gpucheck run -k SHR-001'",
        )
    if requested.config.misplaced:
        fault(
            seen=f"entry '{requested.entry}' of ConfigMap {requested.config_map} has "
            f"{', '.join(requested.config.misplaced)}",
            means="the plugin reads these keys only under sharing.timeSlicing or sharing.mps, and ignores them "
            "elsewhere without a word",
            remedy="move the keys under sharing.timeSlicing (or sharing.mps), delete the plugin's pod on the node, "
            "then run 'gpucheck run -k SHR-001'",
            severity=Severity.MAJOR,
        )


@check("SHR-009", layer=Layer.SHARING, severity=Severity.MAJOR, after=("PLG-003",))
def check_sharing_applied_is_the_one_asked_for(node: Node) -> None:
    """The sharing that is applied is the one asked for: resources, replicas, renaming, refusal of requests above one.

    What the plugin prints that it runs with is compared with its ConfigMap's entry; a ConfigMap that asks for sharing
    and that no plugin mounts is applied nowhere. What the node then offers is PLG-005's.
    """
    if not known(node.plugin.is_given_config, "whether the plugin is given a configuration"):
        unread = known(node.plugin.unread, "the sharing configurations that no plugin mounts")
        if unread is not None:
            fault(
                seen=f"entry '{unread.entry}' of ConfigMap {unread.config_map} asks for {unread.sharing}; no device "
                f"plugin mounts it, and the plugin on {node.name} is given no configuration",
                means="the plugin does not know of that configuration and runs with its flags alone",
                remedy="give it to the plugin (Helm: config.name, operator: devicePlugin.config.name; a static "
                "manifest needs the mount and CONFIG_FILE), or delete the ConfigMap if it is left over; then run "
                "'gpucheck run -k SHR-009'",
                severity=Severity.MAJOR if unread.is_meant else Severity.MINOR,
            )
        not_applicable("the plugin is given no configuration file here; its flags alone apply")
    requested = known(node.plugin.requested, "the configuration that the plugin is given")
    if requested is None or requested.problem is not None:
        not_applicable("the configuration cannot be used; SHR-001 judges that")
    if not known(node.plugin.is_running, "whether the plugin runs"):
        not_applicable("the plugin does not run here; PLG-003 judges that")
    applied = known(node.plugin.printed, "the configuration that the plugin prints").sharing
    wanted = requested.config.sharing
    if applied != wanted:
        fault(
            seen=f"on {node.name} the plugin runs with {applied}; entry '{requested.entry}' of ConfigMap "
            f"{requested.config_map} ({requested.chosen_by}) asks for {wanted}",
            means="the plugin has not read its configuration since that was changed, or ignores a part of it",
            remedy="delete the plugin's pod on the node; if the difference stays, correct the entry (custom names "
            "are not supported); then run 'gpucheck run -k SHR-009'",
        )
