//! What a running daemon has told, judged. Pure.

use super::{Daemon, Finding, Told};
use crate::{config::Config, wire::admin as pb};

/// Beyond this the clocks of two clusters make logs hard to compare.
const CLOCKS_APART_MS: u64 = 2_000;
/// Beyond this certificates that have just been made are not valid yet.
const CLOCKS_WRONG_MS: u64 = 300_000;

/// For how long a step of the node's own clock is a warning.
const STEP_MATTERS_MS: u64 = 86_400_000;

/// Judges what is known of a running daemon.
pub(super) fn check(config: &Config, daemon: &Daemon) -> Vec<Finding> {
    match daemon {
        Daemon::Down => {
            let text = format!("none answers at {}", config.admin.socket.display());
            let hint = format!("emccd run --config {}", config.file.display());
            vec![Finding::warning("daemon", text, hint)]
        }
        Daemon::Silent { why, hint } => vec![Finding::error("daemon", why, hint)],
        Daemon::Up(told) => judge(config, told),
    }
}

fn judge(config: &Config, told: &Told) -> Vec<Finding> {
    let status = &told.status;
    let text = format!(
        "{} of cluster {} runs {}",
        status.node, status.cluster_id, status.software
    );
    let mut found = vec![Finding::ok("daemon", text)];
    if status.cluster_id != config.cluster_id.as_str() || status.node != config.node {
        let text = format!(
            "the daemon at the socket is {} of cluster {}, and the configuration is that of {} of cluster {}",
            status.node, status.cluster_id, config.node, config.cluster_id
        );
        found.push(Finding::error(
            "daemon",
            text,
            "name the configuration that it was started with: emccd doctor --config FILE",
        ));
    }
    if let Some(why) = &status.federation_down_reason {
        let hint = status
            .federation_hint
            .clone()
            .unwrap_or_else(|| "emccd cluster status".to_owned());
        found.push(Finding::error("federation", why, hint));
    }
    found.extend(status.clock_step.as_ref().map(step));
    found.extend(told.identities.identities.iter().filter_map(identity));
    for node in status.nodes.iter().filter(|node| !node.lives) {
        let text = "it is on record and gives no signs of life: it was killed, or can't write to the store";
        let hint = format!("on {}: emccd doctor", node.node);
        found.push(Finding::warning("node", text, hint).about(&node.node));
    }
    if status.peers.is_empty() {
        let hint = "emccd cluster add ID --address HOST:PORT --trust FILE";
        found.push(Finding::warning(
            "link",
            "no other cluster is configured",
            hint,
        ));
    }
    for peer in &status.peers {
        found.extend(links(peer));
    }
    found.extend(ends(config, &told.trust));
    found.extend(told.trust.crls.iter().map(crl));
    found.extend(parameters(&told.parameters));
    found.extend(told.rotations.rotations.iter().map(rotation));
    found
}

/// A certificate that is being exchanged: what holds it up.
fn rotation(rotation: &pb::Rotation) -> Finding {
    const ID: &str = "rotation";
    let (phase, since) = (&rotation.phase, &rotation.since);
    let purpose = &rotation.purpose;
    let next = rotation.next.as_deref();
    let next = next.unwrap_or("emccd cert rotate status");
    let finding = if let Some(problem) = &rotation.problem {
        let text = format!("of the {purpose} certificate: {problem}");
        Finding::error(ID, text, next)
    } else if rotation.blockers.is_empty() {
        Finding::ok(
            ID,
            format!("of the {purpose} certificate: {phase} since {since}"),
        )
    } else {
        let blockers = rotation.blockers.join("; ");
        let text = format!("of the {purpose} certificate: {phase} since {since}: {blockers}");
        Finding::warning(ID, text, next)
    };
    finding.about(&rotation.node)
}

fn identity(identity: &pb::Identity) -> Option<Finding> {
    let problem = identity.problem.as_ref()?;
    let text = format!("of the {} identity: {problem}", identity.purpose);
    let finding = if identity.certificate.is_some() {
        Finding::warning
    } else {
        Finding::error
    };
    Some(finding(
        "identity-in-force",
        &text,
        "mend the files that emccd cert show names, then: emccd cert reload",
    ))
}

/// Certificates of peers that near their end. Ours are told with their files.
fn ends(config: &Config, trust: &pb::ForecastTrustResponse) -> Vec<Finding> {
    const ID: &str = "certificate-expiry";
    let of_peers = trust.alarms.iter();
    let of_peers = of_peers.filter(|alarm| alarm.owner != config.cluster_id.as_str());
    let found: Vec<_> = of_peers
        .map(|alarm| {
            let finding = if alarm.is_pressing && alarm.threshold == "expired" {
                Finding::error
            } else {
                Finding::warning
            };
            finding(ID, &alarm.text, &alarm.next).about(&alarm.owner)
        })
        .collect();
    if found.is_empty() {
        let text = "no certificate of a peer ends within 90 days";
        return vec![Finding::ok(ID, text)];
    }
    found
}

/// A revocation list: a stale one no longer says what was revoked since.
fn crl(crl: &pb::Crl) -> Finding {
    const ID: &str = "crl";
    let issuer = crl.issuer.clone().unwrap_or_default().subject;
    let (number, due, id) = (&crl.number, &crl.next_update, &crl.cluster_id);
    let hint = |strict| {
        format!("get the authority's newest list, then: emccd trust crl add {id} FILE{strict}")
    };
    let finding = match (crl.is_stale, crl.is_strict) {
        (false, _) => Finding::ok(
            ID,
            format!("number {number} of {issuer} is in force, the next one is due at {due}"),
        ),
        (true, false) => Finding::warning(
            ID,
            format!("number {number} of {issuer} is stale since {due}; it goes on counting"),
            hint(""),
        ),
        (true, true) => Finding::error(
            ID,
            format!(
                "number {number} of {issuer} is stale since {due}, and strict: nothing that it has issued is accepted"
            ),
            hint(" --strict"),
        ),
    };
    finding.about(id)
}

fn links(peer: &pb::PeerStatus) -> Vec<Finding> {
    let id = peer.cluster_id.as_str();
    let (out, inbound) = (
        peer.outbound.clone().unwrap_or_default(),
        peer.inbound.clone().unwrap_or_default(),
    );
    let see = || format!("emccd cluster refresh {id}");
    if !peer.enabled {
        return vec![Finding::ok("link", "it is disabled").about(id)];
    }
    let mut found = vec![match out.state.as_str() {
        "up" => Finding::ok(
            "link",
            format!("up, version {}", out.version.clone().unwrap_or_default()),
        ),
        state => {
            let why = out
                .reason
                .clone()
                .unwrap_or_else(|| "no reason is known yet".to_owned());
            Finding::error(
                "link",
                format!("{state}: {why}{}", elsewhere(peer)),
                out.hint.clone().unwrap_or_else(see),
            )
        }
    }];
    found.extend(peer.own_links.iter().filter_map(other_link));
    if let Some(why) = &inbound.peer_down_reason {
        let text = format!("{id} says that its link to us is down: {why}");
        found.push(Finding::error(
            "link-inbound",
            text,
            format!("on {id}: emccd cluster status"),
        ));
    } else if out.state == "up" && !inbound.watching {
        // Its links go to one node of ours at least; with several this may be another one.
        let text = format!("{id} holds no link to this node");
        found.push(Finding::warning(
            "link-inbound",
            text,
            format!("on {id}: emccd cluster status"),
        ));
    }
    if let Some(offset) = out.clock_offset_ms {
        found.push(clock(id, offset));
    }
    let is_linked = out.state == "up" || peer.own_links.iter().any(|own| own.state == "up");
    if peer.parked_ends > 0 {
        let text = format!(
            "{id} refuses to hear of ends of sessions: {}",
            peer.parked_ends
        );
        found.push(Finding::warning(
            "parked",
            text,
            format!(
                "emccd session list --owed --peer {id} says why; then: emccd session retry --peer {id}"
            ),
        ));
    }
    if peer.owed_ends > peer.parked_ends && !is_linked {
        let owed = peer.owed_ends - peer.parked_ends;
        let text = format!("{owed} ends of sessions are to be told to {id}");
        found.push(Finding::warning(
            "owed",
            text,
            format!("they are told when the link is up: {}", see()),
        ));
    }
    found.extend(
        peer.agreement
            .as_ref()
            .and_then(|a| agreement(id, a, is_linked)),
    );
    found.into_iter().map(|finding| finding.about(id)).collect()
}

/// For how long linked clusters may not have been found to agree on what they share: many times what it takes.
const DISAGREED_MS: u64 = 5 * 60 * 1000;

/// What is in the way of agreeing with a peer on sessions; nothing when all is well.
fn agreement(id: &str, agreement: &pb::SessionAgreement, is_linked: bool) -> Option<Finding> {
    match &*agreement.state {
        "agreed" | "mended"
            if is_linked && agreement.agreed_age_ms.is_some_and(|ms| ms > DISAGREED_MS) =>
        {
            let minutes = agreement.agreed_age_ms.unwrap_or_default() / 60_000;
            Some(Finding::warning(
                "sessions",
                format!("the sessions shared with {id} were last found to agree {minutes} min ago"),
                "if it stays so, the log of this cluster's nodes and of the peer's says why they could not be compared",
            ))
        }
        "held" => Some(Finding::warning(
            "sessions",
            format!(
                "{} sessions that we share with {id} do not live there any more: their end is held back for 30 s",
                agreement.held_ends
            ),
            "ask its operator whether its database was lost or restored; then: emccd cluster status",
        )),
        "unable" => Some(Finding::ok(
            "sessions",
            format!(
                "{id} has no sync-sessions: ends are told by retries, what is lost ends by expiry"
            ),
        )),
        _ => None,
    }
}

/// Behind why the node that answers is not linked: which others are. Nothing for the only node.
fn elsewhere(peer: &pb::PeerStatus) -> String {
    let linked = peer.own_links.iter().filter(|own| own.state == "up");
    let linked: Vec<_> = linked.map(|own| own.node.as_str()).collect();
    match (peer.own_links.len(), linked.is_empty()) {
        (0 | 1, _) => String::new(),
        (_, true) => "; no node of this cluster is linked to it".to_owned(),
        (_, false) => format!("; linked to it: {}", linked.join(", ")),
    }
}

/// What another node says of its link, where it isn't up. Of one that is silent that is told once, and not per peer.
fn other_link(own: &pb::OwnLink) -> Option<Finding> {
    if own.answers || matches!(&*own.state, "up" | "silent") {
        return None;
    }
    let reason = own.reason.as_ref();
    let why = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let text = format!("{} at node {}{why}", own.state, own.node);
    let hint = format!("on {}: emccd doctor", own.node);
    Some(Finding::warning("link", text, hint))
}

fn clock(peer: &str, offset_ms: i64) -> Finding {
    let apart = offset_ms.unsigned_abs();
    let which = if offset_ms < 0 { "behind" } else { "ahead of" };
    let text = format!(
        "the clock of {peer} is {}.{:03} s {which} ours",
        apart / 1_000,
        apart % 1_000
    );
    let hint = "timedatectl status, on both sides";
    match apart {
        0..CLOCKS_APART_MS => Finding::ok("clock", text),
        CLOCKS_APART_MS..CLOCKS_WRONG_MS => Finding::warning("clock", text, hint),
        _ => Finding::error("clock", text, hint),
    }
}

/// A length of time for people, in one unit.
fn ago(millis: u64) -> String {
    match millis / 1_000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// The wall clock of the node that answers was set.
fn step(step: &pb::ClockStep) -> Finding {
    const ID: &str = "clock-step";
    let by = step.by_ms.unsigned_abs();
    let text = format!(
        "the wall clock of this node was set {} by {}.{:03} s, {} ago, and showed {} then; steps since its start: {}",
        if step.by_ms < 0 { "back" } else { "forth" },
        by / 1_000,
        by % 1_000,
        ago(step.ago_ms),
        step.shown,
        step.count
    );
    if step.ago_ms > STEP_MATTERS_MS {
        return Finding::ok(ID, text);
    }
    Finding::warning(
        ID,
        text,
        "sessions don't go by it, certificates and times in logs and audit do. Compare it with another clock: \
         timedatectl status; let one service keep it (NTP), and nothing else set it",
    )
}

fn parameters(list: &pb::ListParametersResponse) -> Vec<Finding> {
    const ID: &str = "parameters";
    let value = |name: &str| {
        list.parameters
            .iter()
            .find(|p| p.name == name)
            .map(|p| p.value.as_str())
    };
    if value("validate-ip-address") == Some("on") && value("trusted-ips") == Some("none") {
        let text = "validate-ip-address is on and trusted-ips is none: every phone is refused (28)";
        return vec![Finding::error(
            ID,
            text,
            "emccd param set trusted-ips ADDRESS, or: emccd param reset validate-ip-address",
        )];
    }
    let pending: Vec<_> = list
        .parameters
        .iter()
        .filter(|p| p.value != p.in_force)
        .map(|p| p.name.as_str())
        .collect();
    if !pending.is_empty() {
        let text = format!("set, and not in force on this node: {}", pending.join(", "));
        return vec![Finding::warning(
            ID,
            text,
            "emccd param list, after a second; then look into the daemon's log",
        )];
    }
    let set = list
        .parameters
        .iter()
        .filter(|p| p.set_at.is_some())
        .count();
    vec![Finding::ok(
        ID,
        format!("{set} of {} are set, and in force", list.parameters.len()),
    )]
}
