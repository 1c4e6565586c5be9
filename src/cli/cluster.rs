//! `cluster`: other clusters, their records and how the links stand.

use std::{path::Path, time::Duration};

use tokio::time::Instant;

use crate::{
    cli::{
        args::{Cluster, ClusterAdd, ClusterRemove, ClusterSet, Global, StorePassword},
        client::{answer, connect},
        confirm::confirm,
        failure::{Failure, Outcome},
        output::{Report, age, count, record, table, time, yes},
        pair, trust,
    },
    config::units::show_duration,
    domain::rejection::Rejection,
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses.
pub async fn run(global: &Global, verb: Cluster) -> Outcome {
    match verb {
        Cluster::Status => {
            let mut client = connect(global).await?;
            let patience = global.wait.map(|wait| (wait, Instant::now() + wait));
            loop {
                let asked = client.get_cluster_status(pb::GetClusterStatusRequest {});
                let status = answer("cannot show the status", asked.await)?;
                match patience {
                    Some((_, end)) if !all_up(&status) && Instant::now() < end => {
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                    Some((wait, _)) if !all_up(&status) => return Err(not_up(wait, &status)),
                    _ => return Ok(Report::new(status_text(&status), &status)),
                }
            }
        }
        Cluster::List => {
            let mut client = connect(global).await?;
            let asked = client.list_clusters(pb::ListClustersRequest {});
            let clusters = answer("cannot list the clusters", asked.await)?.clusters;
            Ok(Report::new(list_text(&clusters), &clusters))
        }
        Cluster::Add(args) => add(global, args).await,
        Cluster::Set(args) => set(global, args).await,
        Cluster::Remove(args) => remove(global, args).await,
        Cluster::Invite(args) => pair::invite(global, args).await,
        Cluster::Join(args) => pair::join(global, args).await,
        Cluster::Refresh { cluster_id } => refresh(global, cluster_id.to_string()).await,
    }
}

/// Whether every link that should be up is: of the node that answers to each address that the operator gave, and in both
/// directions; and of each other node of ours that lives.
fn all_up(status: &pb::GetClusterStatusResponse) -> bool {
    let is_up = |peer: &pb::PeerStatus| {
        let to_them = peer.outbound.as_ref().is_some_and(|o| o.state == "up");
        let from_them = peer
            .inbound
            .as_ref()
            .is_some_and(|i| i.watching && i.peer_down_reason.is_none());
        // What the operator gave must be there; what the peer told of may have gone since.
        let mut given = peer.nodes.iter().filter(|node| !node.learned);
        let all_nodes = given.all(|node| matches!(&*node.state, "up" | "draining"));
        // A node that was killed has no link to wait for.
        let mut ours = peer.own_links.iter().filter(|own| !own.answers);
        let all_ours = ours.all(|own| matches!(&*own.state, "up" | "silent"));
        to_them && from_them && all_nodes && all_ours
    };
    status.federation_down_reason.is_none() && status.peers.iter().filter(|p| p.enabled).all(is_up)
}

fn not_up(waited: Duration, status: &pb::GetClusterStatusResponse) -> Failure {
    Failure::new(
        format!("the links are not all up after {}", show_duration(waited)),
        status_text(status).trim_end(),
        "do what is said above, then look again: emccd cluster status",
    )
}

async fn add(global: &Global, args: ClusterAdd) -> Outcome {
    let what = format!("cannot add the peer {}", args.cluster_id);
    let trust = match (&args.trust, &args.anchor) {
        (Some(file), _) => Some(trust::material(
            &what,
            "pinned",
            file,
            &StorePassword::default(),
        )?),
        (None, Some(file)) => Some(trust::material(
            &what,
            "anchor",
            file,
            &StorePassword::default(),
        )?),
        (None, None) => None,
    };
    let request = pb::AddClusterRequest {
        cluster: Some(pb::Cluster {
            cluster_id: args.cluster_id.to_string(),
            enabled: true,
            allow_emcc: true,
            addresses: args.address,
            node_names: args.node_name,
            user_patterns: args.user_pattern,
            dn_patterns: args.dn_pattern,
            ignore_eku: args.ignore_eku,
            accept_announcements: args.accept_announcements.to_string(),
            description: args.description,
        }),
        trust,
    };
    let mut client = connect(global).await?;
    let added = answer(what, client.add_cluster(request).await)?;
    Ok(Report::new(added_text(&added), &added))
}

async fn set(global: &Global, args: ClusterSet) -> Outcome {
    let what = format!("cannot change the peer {}", args.cluster_id);
    let request = pb::SetClusterRequest {
        cluster_id: args.cluster_id.to_string(),
        enabled: args.enabled,
        allow_emcc: args.allow_emcc,
        addresses: given(args.address),
        node_names: given(args.node_name),
        user_patterns: given(args.user_pattern),
        dn_patterns: given(args.dn_pattern),
        ignore_eku: args.ignore_eku,
        accept_announcements: args.accept_announcements.map(|how| how.to_string()),
        description: args.description,
    };
    let mut client = connect(global).await?;
    let set = answer(what, client.set_cluster(request).await)?;
    Ok(Report::new(set_text(&set), &set))
}

async fn remove(global: &Global, args: ClusterRemove) -> Outcome {
    let id = args.cluster_id.to_string();
    let what = format!("cannot remove the peer {id}");
    let mut client = connect(global).await?;
    if !args.yes {
        let debts = if args.forget_owed {
            " What it has still to be told of ended sessions is forgotten."
        } else {
            ""
        };
        confirm(
            &what,
            &format!(
                "Sessions shared with it end, its trust goes, and the link ends.{debts} Remove the peer {id}?"
            ),
        )?;
    }
    let request = pb::RemoveClusterRequest {
        cluster_id: id.clone(),
        forget_owed: args.forget_owed,
    };
    let done = answer(what, client.remove_cluster(request).await)?;
    let text = format!(
        "removed the peer {id} and {} that were trusted from it\n\nnext: have it remove this cluster as well",
        count(
            usize::try_from(done.trust_removed).unwrap_or(0),
            "certificate"
        )
    );
    Ok(Report::new(text, &done))
}

async fn refresh(global: &Global, id: String) -> Outcome {
    let what = format!("cannot try the link to {id}");
    let mut client = connect(global).await?;
    let request = pb::RefreshClusterRequest {
        cluster_id: id.clone(),
    };
    let peer = answer(what, client.refresh_cluster(request).await)?.peer;
    let peer = peer.unwrap_or_default();
    let link = peer.outbound.clone().unwrap_or_default();
    if link.state == "up" {
        let version = link.version.unwrap_or_default();
        let proof = link.proof_age_ms.map(age).unwrap_or_default();
        let mut text = format!("the link to {id} is up: version {version}, last proof {proof} ago");
        let nodes = nodes_text(&peer);
        if !nodes.is_empty() {
            text += &format!("\n{}", nodes.trim_end());
        }
        return Ok(Report::new(text, &peer));
    }
    let next = link.hint.clone().unwrap_or_else(|| {
        if link.state == "disabled" {
            format!("emccd cluster set {id} --enabled true")
        } else {
            "emccd cluster status shows both directions".to_owned()
        }
    });
    let why = link
        .reason
        .clone()
        .unwrap_or_else(|| format!("it is {}", link.state));
    Err(
        Failure::new(format!("the link to {id} is not up"), why, next)
            .with("peer", serde_json::to_value(&peer).unwrap_or_default()),
    )
}

/// A list that was typed; one empty word is the empty list.
fn given(mut values: Vec<String>) -> Option<pb::TextList> {
    if values.is_empty() {
        return None;
    }
    if values.iter().all(String::is_empty) {
        values.clear();
    }
    Some(pb::TextList { values })
}

fn set_text(set: &pb::SetClusterResponse) -> String {
    let cluster = set.cluster.clone().unwrap_or_default();
    let id = cluster.cluster_id.clone();
    let text = if set.changed.is_empty() {
        format!("the peer {id} is so already")
    } else {
        let changed: Vec<_> = set.changed.iter().map(|f| f.replace('_', "-")).collect();
        format!("changed the peer {id}: {}", changed.join(", "))
    };
    format!(
        "{text}\n{}\n\nnext: emccd cluster status",
        record_text(&cluster)
    )
}

/// One record with everything that can be set.
fn record_text(cluster: &pb::Cluster) -> String {
    record(&[
        ("enabled", yes(cluster.enabled)),
        ("logins allowed", yes(cluster.allow_emcc)),
        ("addresses", cluster.addresses.join(" ")),
        ("node names", cluster.node_names.join(" ")),
        ("user patterns", cluster.user_patterns.join(" ")),
        ("extension patterns", cluster.dn_patterns.join(" ")),
        ("usage overlooked", yes(cluster.ignore_eku)),
        ("announcements", cluster.accept_announcements.clone()),
        ("description", cluster.description.clone()),
    ])
}

fn added_text(added: &pb::AddClusterResponse) -> String {
    let id = added.cluster.as_ref().map_or("", |c| &*c.cluster_id);
    let mut text = format!("added the peer {id}\n");
    if added.trust.is_empty() {
        text +=
            &format!("nothing is trusted from it yet\n\nnext: emccd trust add {id} --pin FILE\n");
        return text;
    }
    text += &trust::list_text(&added.trust);
    text += "\n\nThe other cluster has to add this one as well, with this node's certificate: emccd cert show\nnext: emccd cluster status\n";
    text
}

fn list_text(clusters: &[pb::Cluster]) -> String {
    if clusters.is_empty() {
        return "no peers\n\nnext: emccd cluster add ID --address HOST:PORT --trust FILE"
            .to_owned();
    }
    let rows = clusters.iter().map(|cluster| {
        let state = match (cluster.enabled, cluster.allow_emcc) {
            (false, _) => "disabled",
            (true, false) => "no logins",
            (true, true) => "enabled",
        };
        let mut may_claim = cluster.user_patterns.clone();
        may_claim.extend(cluster.dn_patterns.clone());
        [
            cluster.cluster_id.clone(),
            state.to_owned(),
            cluster.addresses.join(" "),
            cluster.node_names.join(" "),
            may_claim.join(" "),
            cluster.description.clone(),
        ]
    });
    table(
        [
            "PEER",
            "STATE",
            "ADDRESSES",
            "NODE NAMES",
            "MAY CLAIM",
            "DESCRIPTION",
        ],
        rows.collect(),
    )
}

/// The whole picture: a line per peer, then what is wrong with it, then who was turned away.
fn status_text(status: &pb::GetClusterStatusResponse) -> String {
    let pb::GetClusterStatusResponse {
        cluster_id,
        node,
        software,
        versions,
        ..
    } = status;
    let mut text = format!("cluster {cluster_id}, node {node}, {software}, protocol {versions}\n");
    text += &answered_text(status);
    if let Some(reason) = &status.federation_down_reason {
        text += &format!("\nfederation is down: {reason}\n");
        text += &next_line(status.federation_hint.as_deref());
    }
    text += "\n";
    if status.peers.is_empty() {
        text += "no peers\n\nnext: emccd cluster add ID --address HOST:PORT --trust FILE\n";
    } else {
        text += &table(
            [
                "PEER",
                "TO THEM",
                "PROOF",
                "FROM THEM",
                "THEIR PROOF",
                "VERSION",
                "NODE",
                "OWED",
                "AGREED",
            ],
            status.peers.iter().map(peer_row).collect(),
        );
        text += "\n";
        text += &own_links_text(status);
    }
    for peer in &status.peers {
        text += &nodes_text(peer);
        text += &troubles(peer);
    }
    if !status.refusals.is_empty() {
        text += "\nconnections that failed for want of trust, and have not been mended since:\n";
        text += &status.refusals.iter().map(refusal_text).collect::<String>();
    }
    text
}

/// Whose view it is, where there are several; nothing for the only node.
fn answered_text(status: &pb::GetClusterStatusResponse) -> String {
    if status.nodes.len() < 2 {
        return String::new();
    }
    let name = |node: &pb::OwnNode| match node.lives {
        true => node.node.clone(),
        false => format!("{} (silent)", node.node),
    };
    let names: Vec<_> = status.nodes.iter().map(name).collect();
    format!(
        "answered by {}, whose links these are, one of {} nodes: {}\n",
        status.node,
        names.len(),
        names.join(", ")
    )
}

/// Which of our nodes are linked to each peer; nothing for the only node.
fn own_links_text(status: &pb::GetClusterStatusResponse) -> String {
    if status.nodes.len() < 2 {
        return String::new();
    }
    let rows = status.peers.iter().filter(|peer| peer.enabled).map(|peer| {
        let (up, not): (Vec<_>, Vec<_>) = peer.own_links.iter().partition(|own| own.state == "up");
        let up: Vec<_> = up.iter().map(|own| &*own.node).collect();
        let not: Vec<_> = not
            .iter()
            .map(|own| format!("{} ({})", own.node, state_for(own)))
            .collect();
        [peer.cluster_id.clone(), up.join(" "), not.join(", ")]
    });
    let table = table(["PEER", "LINKED NODES", "NOT LINKED"], rows.collect());
    format!("\nour nodes:\n\n{table}\n")
}

fn state_for(own: &pb::OwnLink) -> String {
    match own.state_age_ms {
        Some(ms) => format!("{} for {}", own.state, age(ms)),
        None => own.state.clone(),
    }
}

fn peer_row(peer: &pb::PeerStatus) -> [String; 9] {
    let out = peer.outbound.clone().unwrap_or_default();
    let inbound = peer.inbound.clone().unwrap_or_default();
    let to_them = match &*out.state {
        "up" | "disabled" => out.state.clone(),
        state => format!("{state} for {}", age(out.state_age_ms)),
    };
    let proof = |age_ms: Option<u64>| {
        age_ms
            .map(|ms| format!("{} ago", age(ms)))
            .unwrap_or_default()
    };
    [
        peer.cluster_id.clone(),
        to_them,
        proof(out.proof_age_ms),
        from_them(&inbound),
        proof(inbound.peer_proof_age_ms),
        out.version.unwrap_or_default(),
        out.node.unwrap_or_default(),
        peer.owed_ends.to_string(),
        peer.agreement.as_ref().map(agreed).unwrap_or_default(),
    ]
}

/// How far we agree with it on the sessions that we share; nothing where that is not known.
fn agreed(agreement: &pb::SessionAgreement) -> String {
    match (&*agreement.state, agreement.agreed_age_ms) {
        ("agreed", Some(ms)) => format!("{} ago", age(ms)),
        ("none", _) => "nothing shared".to_owned(),
        ("held", _) => "held back".to_owned(),
        ("mended", _) => "mending".to_owned(),
        ("unable", _) => "no sync-sessions".to_owned(),
        _ => String::new(),
    }
}

/// What an operator has to know of it; nothing when all is well.
fn agreement_trouble(id: &str, agreement: &pb::SessionAgreement) -> Option<String> {
    match &*agreement.state {
        "unable" => Some(format!(
            "\n{id}: no sync-sessions: ends are told by retries, what is lost ends by expiry\n"
        )),
        "held" => {
            let ends = count(
                usize::try_from(agreement.held_ends).unwrap_or(usize::MAX),
                "end",
            );
            let since = age(agreement.held_age_ms.unwrap_or_default());
            Some(format!(
                "\n{id}: held back for {since}: {ends} of sessions that do not live there any more; they take place 30 s \
                 after the first look, if it is so then\n"
            ))
        }
        _ => None,
    }
}

fn from_them(inbound: &pb::InboundStatus) -> String {
    match (
        inbound.watching,
        &inbound.peer_down_reason,
        inbound.last_seen_age_ms,
    ) {
        (true, _, _) => "up".to_owned(),
        (false, Some(_), _) => "down, it says".to_owned(),
        (false, None, Some(seen)) => format!("seen {} ago", age(seen)),
        (false, None, None) => "never seen".to_owned(),
    }
}

/// A line per address of a peer that has several, or one that is up and fails calls; nothing for another.
fn nodes_text(peer: &pb::PeerStatus) -> String {
    let fails = |node: &pb::PeerNode| node.proof_age_ms.is_some() && node.reason.is_some();
    if peer.nodes.len() < 2 && !peer.nodes.iter().any(fails) {
        return String::new();
    }
    let mut text = format!("\n{}, node by node:\n", peer.cluster_id);
    for node in &peer.nodes {
        let name = node.node.as_deref().unwrap_or("(never answered)");
        let state = match (node.proof_age_ms, &node.version) {
            (Some(proof), version) => format!(
                "{}, proof {} ago, version {}",
                node.state,
                age(proof),
                version.as_deref().unwrap_or("-")
            ),
            (None, _) => format!("{} for {}", node.state, age(node.state_age_ms)),
        };
        let reason = node.reason.as_deref();
        let reason = reason.map(|reason| format!(": {reason}"));
        let learned = if node.learned { " (it told)" } else { "" };
        text += &format!(
            "  {}{learned}  {name}  {state}{}\n",
            node.address,
            reason.unwrap_or_default()
        );
    }
    text
}

/// What is wrong with one peer, a paragraph for each direction; nothing when all is well.
fn troubles(peer: &pb::PeerStatus) -> String {
    let mut text = String::new();
    let id = &peer.cluster_id;
    if let Some(out) = &peer.outbound
        && let Some(reason) = &out.reason
    {
        let at = out
            .address
            .as_deref()
            .map(|a| format!(" ({a})"))
            .unwrap_or_default();
        let answers = peer.own_links.iter().find(|own| own.answers);
        let who = answers.filter(|_| peer.own_links.len() > 1);
        let who = who.map_or("we", |own| &own.node);
        text += &format!("\n{id}: {who} cannot reach it{at}: {reason}\n");
        text += &next_line(out.hint.as_deref());
    }
    for own in peer.own_links.iter().filter(|own| !own.answers) {
        if let Some(reason) = &own.reason {
            text += &format!("\n{id}: {} cannot reach it: {reason}\n", own.node);
        }
    }
    if let Some(reason) = peer
        .inbound
        .as_ref()
        .and_then(|i| i.peer_down_reason.as_ref())
    {
        text += &format!("\n{id}: it cannot reach us, it says: {reason}\n");
    }
    if let Some(offset) = peer.outbound.as_ref().and_then(|o| o.clock_offset_ms)
        && offset.unsigned_abs() > SKEW_SHOWN_MS
    {
        let which = if offset > 0 { "ahead of" } else { "behind" };
        let by = age(offset.unsigned_abs());
        text += &format!("\n{id}: its clock is {by} {which} ours\n");
    }
    for ours in &peer.our_certificates {
        if let Some(note) = &ours.note {
            text += &format!("\n{id}: {note} ({})\n", ours.purpose);
            text += &next_line(ours.hint.as_deref());
        }
    }
    if peer.waiting > 0 {
        let it = count(
            usize::try_from(peer.waiting).unwrap_or(usize::MAX),
            "certificate",
        );
        text += &format!("\n{id}: {it} that it announced: not accepted before you agree\n");
        text += &next_line(Some(&format!("emccd trust accept {id}")));
    }
    if !peer.accepts_otherwise.is_empty() {
        let nodes = peer.accepts_otherwise.join(", ");
        text += &format!(
            "\n{id}: its nodes do not tell the same of what they accept from us; otherwise: {nodes}\n"
        );
        text += &next_line(Some(
            "look again in a moment; if it stays so, have its operator look at those nodes: emccd doctor",
        ));
    }
    let told = peer.owed_ends.saturating_sub(peer.parked_ends);
    if told > 0 {
        let ends = count(usize::try_from(told).unwrap_or(usize::MAX), "end");
        let when = match &peer.outbound {
            _ if !peer.enabled => "will be told when it is enabled again",
            Some(outbound) if outbound.state == "up" => "being told",
            _ => "will be told as soon as the link is up",
        };
        text += &format!("\n{id}: {ends} of sessions {when}\n");
    }
    if peer.parked_ends > 0 {
        let ends = count(
            usize::try_from(peer.parked_ends).unwrap_or(usize::MAX),
            "end",
        );
        text += &format!("\n{id}: it refuses to hear of {ends} of sessions\n");
        text += &next_line(Some(&format!(
            "emccd session list --owed --peer {id} says why; then: emccd session retry --peer {id}"
        )));
    }
    let agreement = peer.agreement.as_ref();
    text += &agreement
        .and_then(|agreement| agreement_trouble(id, agreement))
        .unwrap_or_default();
    text
}

fn refusal_text(refusal: &pb::DoorRefusal) -> String {
    let times = match refusal.count {
        0 | 1 => String::new(),
        n => format!(", {n} times"),
    };
    let subject = match (&refusal.subject, &refusal.fingerprint) {
        (Some(subject), Some(fingerprint)) if refusal.side == "own" => {
            format!("\n  we showed {subject}, {fingerprint}")
        }
        (Some(subject), Some(fingerprint)) => format!("\n  it showed {subject}, {fingerprint}"),
        _ => String::new(),
    };
    let valid = match (&refusal.not_before, &refusal.not_after) {
        (Some(from), Some(to)) => format!(", valid {} to {}", time(from), time(to)),
        _ => String::new(),
    };
    let expected = if refusal.side == "own" {
        ""
    } else {
        "expected: "
    };
    let meaning = Rejection::from_word(&refusal.rejection)
        .map(|rejection| format!(" ({})", rejection.meaning()))
        .unwrap_or_default();
    let who = match &*refusal.side {
        "answerer" => "we refused what answers at",
        "own" => "we were refused by the caller at",
        _ => "we refused the caller at",
    };
    format!(
        "\n{} {who} {}: {}{meaning}{times}{subject}{valid}\n  {expected}{}\n{}",
        time(&refusal.at),
        refusal.remote,
        refusal.rejection,
        refusal.expectation,
        next_line(Some(&refusal.hint)),
    )
}

fn next_line(hint: Option<&str>) -> String {
    match hint {
        Some(hint) if !hint.is_empty() => format!("  next: {hint}\n"),
        _ => String::new(),
    }
}

/// Whether a path is there at all is asked by who reads it.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// How soon the status is asked for again; its own parts change no faster.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Clocks this far apart begin to matter for the dates of certificates.
const SKEW_SHOWN_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy(id: &str) -> pb::PeerStatus {
        pb::PeerStatus {
            cluster_id: id.to_owned(),
            enabled: true,
            outbound: Some(pb::OutboundStatus {
                state: "up".to_owned(),
                state_age_ms: 60_000,
                proof_age_ms: Some(800),
                version: Some("1.1".to_owned()),
                node: Some("t1".to_owned()),
                software: Some("emccd 0.1.0".to_owned()),
                address: Some("10.0.0.7:8444".to_owned()),
                ..pb::OutboundStatus::default()
            }),
            inbound: Some(pb::InboundStatus {
                watching: true,
                last_seen_age_ms: Some(1_200),
                peer_proof_age_ms: Some(2_000),
                peer_down_reason: None,
            }),
            agreement: Some(agreement("agreed")),
            ..pb::PeerStatus::default()
        }
    }

    fn agreement(state: &str) -> pb::SessionAgreement {
        pb::SessionAgreement {
            state: state.to_owned(),
            agreed_age_ms: Some(4_000),
            ..pb::SessionAgreement::default()
        }
    }

    #[test]
    fn how_far_we_agree_on_sessions_is_told_and_what_is_in_the_way() {
        let mut peers: Vec<_> = ["agreed", "none", "mended", "unknown", "held", "unable"]
            .into_iter()
            .map(|state| pb::PeerStatus {
                agreement: Some(agreement(state)),
                ..healthy(state)
            })
            .collect();
        if let Some(held) = peers[4].agreement.as_mut() {
            (held.held_ends, held.held_age_ms) = (812, Some(12_000));
        }
        let expected = "\
cluster berlin, node b1, emccd 0.1.0, protocol 1.0 to 1.1

PEER     TO THEM  PROOF      FROM THEM  THEIR PROOF  VERSION  NODE  OWED  AGREED
agreed   up       0.8 s ago  up         2.0 s ago    1.1      t1    0     4.0 s ago
none     up       0.8 s ago  up         2.0 s ago    1.1      t1    0     nothing shared
mended   up       0.8 s ago  up         2.0 s ago    1.1      t1    0     mending
unknown  up       0.8 s ago  up         2.0 s ago    1.1      t1    0     -
held     up       0.8 s ago  up         2.0 s ago    1.1      t1    0     held back
unable   up       0.8 s ago  up         2.0 s ago    1.1      t1    0     no sync-sessions

held: held back for 12 s: 812 ends of sessions that do not live there any more; they take place 30 s after the first look, if it is so then

unable: no sync-sessions: ends are told by retries, what is lost ends by expiry
";
        assert_eq!(status_text(&status(peers)), expected);
    }

    fn status(peers: Vec<pb::PeerStatus>) -> pb::GetClusterStatusResponse {
        pb::GetClusterStatusResponse {
            cluster_id: "berlin".to_owned(),
            node: "b1".to_owned(),
            software: "emccd 0.1.0".to_owned(),
            versions: "1.0 to 1.1".to_owned(),
            now: "2026-11-22T09:30:00.000Z".to_owned(),
            peers,
            ..pb::GetClusterStatusResponse::default()
        }
    }

    #[test]
    fn both_directions_stand_side_by_side() {
        let mut down = healthy("paris");
        down.outbound = Some(pb::OutboundStatus {
            state: "down".to_owned(),
            state_age_ms: 72_000,
            address: Some("10.0.0.9:8444".to_owned()),
            reason: Some("its certificate is not trusted".to_owned()),
            rejection: Some("unknown_issuer".to_owned()),
            hint: Some("emccd trust add paris --pin FILE".to_owned()),
            clock_offset_ms: Some(-90_000),
            ..pb::OutboundStatus::default()
        });
        down.inbound = Some(pb::InboundStatus {
            peer_down_reason: Some("connection refused".to_owned()),
            ..pb::InboundStatus::default()
        });
        (down.owed_ends, down.parked_ends) = (3, 1);
        down.agreement = Some(agreement("unknown"));
        down.our_certificates = vec![
            pb::OurCertificate {
                purpose: "federation".to_owned(),
                fingerprint: "AB:CD".to_owned(),
                standing: "unknown".to_owned(),
                note: Some("it does not accept our certificate AB:CD".to_owned()),
                hint: Some("give it to its operator".to_owned()),
                ..pb::OurCertificate::default()
            },
            pb::OurCertificate {
                standing: "accepted".to_owned(),
                ..pb::OurCertificate::default()
            },
        ];
        down.waiting = 1;
        down.accepts_otherwise = vec!["p2".to_owned()];
        let text = status_text(&status(vec![down, healthy("tokyo")]));
        let expected = "\
cluster berlin, node b1, emccd 0.1.0, protocol 1.0 to 1.1

PEER   TO THEM              PROOF      FROM THEM      THEIR PROOF  VERSION  NODE  OWED  AGREED
paris  down for 1 min 12 s  -          down, it says  -            -        -     3     -
tokyo  up                   0.8 s ago  up             2.0 s ago    1.1      t1    0     4.0 s ago

paris: we cannot reach it (10.0.0.9:8444): its certificate is not trusted
  next: emccd trust add paris --pin FILE

paris: it cannot reach us, it says: connection refused

paris: its clock is 1 min 30 s behind ours

paris: it does not accept our certificate AB:CD (federation)
  next: give it to its operator

paris: 1 certificate that it announced: not accepted before you agree
  next: emccd trust accept paris

paris: its nodes do not tell the same of what they accept from us; otherwise: p2
  next: look again in a moment; if it stays so, have its operator look at those nodes: emccd doctor

paris: 2 ends of sessions will be told as soon as the link is up

paris: it refuses to hear of 1 end of sessions
  next: emccd session list --owed --peer paris says why; then: emccd session retry --peer paris
";
        assert_eq!(text, expected);
    }

    #[test]
    fn when_ends_that_are_owed_will_be_told_is_said_as_it_is() {
        let mut paris = healthy("paris");
        paris.owed_ends = 2;
        let told = |peer: &pb::PeerStatus| status_text(&status(vec![peer.clone()]));
        let text = told(&paris);
        assert!(
            text.contains("paris: 2 ends of sessions being told\n"),
            "{text}"
        );
        paris.enabled = false;
        let text = told(&paris);
        assert!(
            text.contains("will be told when it is enabled again"),
            "{text}"
        );
    }

    #[test]
    fn the_nodes_of_a_peer_that_has_several_are_told_one_by_one() {
        let up = pb::PeerNode {
            address: "10.0.0.7:8444".to_owned(),
            state: "draining".to_owned(),
            state_age_ms: 60_000,
            proof_age_ms: Some(800),
            node: Some("t1".to_owned()),
            version: Some("1.1".to_owned()),
            ..pb::PeerNode::default()
        };
        let down = pb::PeerNode {
            address: "10.0.0.8:8444".to_owned(),
            state: "down".to_owned(),
            state_age_ms: 12_000,
            reason: Some("connection refused".to_owned()),
            learned: true,
            ..pb::PeerNode::default()
        };
        let mut peer = healthy("tokyo");
        peer.nodes = vec![up.clone()];
        assert_eq!(nodes_text(&peer), "");
        peer.nodes[0].reason = Some("calls failed there".to_owned());
        assert!(nodes_text(&peer).contains("version 1.1: calls failed there"));
        peer.nodes = vec![up, down];
        assert_eq!(
            nodes_text(&peer),
            "\ntokyo, node by node:\n  \
             10.0.0.7:8444  t1  draining, proof 0.8 s ago, version 1.1\n  \
             10.0.0.8:8444 (it told)  (never answered)  down for 12 s: connection refused\n"
        );
    }

    fn own(node: &str, state: &str, age: Option<u64>, reason: Option<&str>) -> pb::OwnLink {
        pb::OwnLink {
            node: node.to_owned(),
            answers: node == "b1",
            state: state.to_owned(),
            state_age_ms: age,
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn our_own_nodes_are_told_with_their_links_and_who_answered() {
        let refused = Some("connection refused");
        let mut paris = healthy("paris");
        let out = paris.outbound.as_mut().unwrap();
        out.state = "down".to_owned();
        out.reason = refused.map(str::to_owned);
        out.proof_age_ms = None;
        paris.own_links = vec![
            own("b1", "down", Some(60_000), refused),
            own("b2", "up", Some(1_000), None),
            own("b3", "down", Some(12_000), Some("no answer within 1 s")),
            own("b4", "silent", None, None),
        ];
        let mut tokyo = healthy("tokyo");
        tokyo.own_links = vec![
            own("b1", "up", Some(60_000), None),
            own("b2", "up", Some(1_000), None),
            own("b3", "unknown", None, None),
            own("b4", "silent", None, None),
        ];
        let lima = pb::PeerStatus {
            cluster_id: "lima".to_owned(),
            outbound: Some(pb::OutboundStatus {
                state: "disabled".to_owned(),
                ..pb::OutboundStatus::default()
            }),
            ..pb::PeerStatus::default()
        };
        let mut status = status(vec![lima, paris, tokyo]);
        status.nodes = ["b1", "b2", "b3", "b4"]
            .map(|name| pb::OwnNode {
                node: name.to_owned(),
                answers: name == "b1",
                lives: name != "b4",
                ..pb::OwnNode::default()
            })
            .into();
        let expected = "\
cluster berlin, node b1, emccd 0.1.0, protocol 1.0 to 1.1
answered by b1, whose links these are, one of 4 nodes: b1, b2, b3, b4 (silent)

PEER   TO THEM             PROOF      FROM THEM   THEIR PROOF  VERSION  NODE  OWED  AGREED
lima   disabled            -          never seen  -            -        -     0     -
paris  down for 1 min 0 s  -          up          2.0 s ago    1.1      t1    0     4.0 s ago
tokyo  up                  0.8 s ago  up          2.0 s ago    1.1      t1    0     4.0 s ago

our nodes:

PEER   LINKED NODES  NOT LINKED
paris  b2            b1 (down for 1 min 0 s), b3 (down for 12 s), b4 (silent)
tokyo  b1 b2         b3 (unknown), b4 (silent)

paris: b1 cannot reach it (10.0.0.7:8444): connection refused

paris: b3 cannot reach it: no answer within 1 s
";
        assert_eq!(status_text(&status), expected);
        assert!(!all_up(&status));
    }

    #[test]
    fn who_was_turned_away_is_shown_with_what_mends_it() {
        let mut status = status(Vec::new());
        status.refusals.push(pb::DoorRefusal {
            at: "2026-11-22T09:29:58.120Z".to_owned(),
            remote: "10.0.0.9:40112".to_owned(),
            rejection: "expired".to_owned(),
            subject: Some("CN=paris".to_owned()),
            fingerprint: Some("AB:CD".to_owned()),
            not_before: Some("2024-11-22T00:00:00.000Z".to_owned()),
            not_after: Some("2026-11-21T00:00:00.000Z".to_owned()),
            expectation: "a certificate that is valid now".to_owned(),
            hint: "have paris make a new one with: emccd cert new".to_owned(),
            count: 12,
            side: "caller".to_owned(),
        });
        let text = status_text(&status);
        let expected = "\
cluster berlin, node b1, emccd 0.1.0, protocol 1.0 to 1.1

no peers

next: emccd cluster add ID --address HOST:PORT --trust FILE

connections that failed for want of trust, and have not been mended since:

2026-11-22 09:29:58Z we refused the caller at 10.0.0.9:40112: expired (the certificate, or one above it, is past the end of its validity), 12 times
  it showed CN=paris, AB:CD, valid 2024-11-22 00:00:00Z to 2026-11-21 00:00:00Z
  expected: a certificate that is valid now
  next: have paris make a new one with: emccd cert new
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_list_is_left_alone_replaced_or_emptied() {
        let words = |words: &[&str]| given(words.iter().map(ToString::to_string).collect());
        assert_eq!(words(&[]), None);
        assert_eq!(words(&[""]).unwrap().values, Vec::<String>::new());
        assert_eq!(words(&["a", "b"]).unwrap().values, ["a", "b"]);
        // For the daemon to refuse: it is not clear what was meant.
        assert_eq!(words(&["a", ""]).unwrap().values, ["a", ""]);
    }

    #[test]
    fn all_is_up_only_in_both_directions() {
        let with = |change: fn(&mut pb::PeerStatus)| {
            let mut peer = healthy("tokyo");
            change(&mut peer);
            all_up(&status(vec![healthy("paris"), peer]))
        };
        assert!(with(|_| {}));
        assert!(!with(
            |p| p.outbound.as_mut().unwrap().state = "down".to_owned()
        ));
        assert!(!with(|p| p.inbound.as_mut().unwrap().watching = false));
        assert!(!with(|p| {
            p.inbound.as_mut().unwrap().peer_down_reason = Some("refused".to_owned());
        }));
        assert!(!with(|p| p.inbound = None));
        let node = |state: &str, learned| pb::PeerNode {
            state: state.to_owned(),
            learned,
            ..pb::PeerNode::default()
        };
        for (state, learned, expected) in [
            ("up", false, true),
            ("draining", false, true),
            ("down", false, false),
            ("connecting", false, false),
            ("down", true, true),
        ] {
            let mut peer = healthy("tokyo");
            peer.nodes = vec![node("up", false), node(state, learned)];
            assert_eq!(all_up(&status(vec![peer])), expected, "{state} {learned}");
        }
        for (state, expected) in [
            ("up", true),
            ("silent", true),
            ("down", false),
            ("unknown", false),
        ] {
            let mut peer = healthy("tokyo");
            peer.own_links = vec![own("b1", "up", None, None), own("b2", state, None, None)];
            assert_eq!(
                all_up(&status(vec![peer])),
                expected,
                "{state} at another node of ours"
            );
        }
        assert!(with(|p| {
            p.enabled = false;
            p.outbound.as_mut().unwrap().state = "disabled".to_owned();
        }));
        let mut down = status(Vec::new());
        assert!(all_up(&down));
        down.federation_down_reason = Some("expired".to_owned());
        assert!(!all_up(&down));
        let text = not_up(Duration::from_secs(30), &down).to_string();
        assert!(
            text.contains("after 30s") && text.contains("federation is down: expired"),
            "{text}"
        );
    }

    #[test]
    fn a_node_without_federation_says_so_first() {
        let mut status = status(vec![healthy("tokyo")]);
        status.federation_down_reason = Some("our certificate has expired".to_owned());
        status.federation_hint = Some("emccd cert new".to_owned());
        let text = status_text(&status);
        let at =
            text.find("federation is down: our certificate has expired\n  next: emccd cert new");
        assert!(at < text.find("PEER") && at.is_some(), "{text}");
    }

    #[test]
    fn records_are_a_table() {
        let clusters = [pb::Cluster {
            cluster_id: "tokyo".to_owned(),
            enabled: true,
            allow_emcc: true,
            addresses: vec!["a:1".to_owned(), "b:2".to_owned()],
            user_patterns: vec!["t*".to_owned()],
            dn_patterns: vec!["81*".to_owned()],
            ..pb::Cluster::default()
        }];
        assert_eq!(
            list_text(&clusters),
            "PEER   STATE    ADDRESSES  NODE NAMES  MAY CLAIM  DESCRIPTION\n\
             tokyo  enabled  a:1 b:2    -           t* 81*     -"
        );
        assert!(list_text(&[]).contains("cluster add"));
    }
}
