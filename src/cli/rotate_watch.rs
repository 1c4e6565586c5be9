//! How far rotations have come, while somebody waits: a table that is drawn anew on a terminal, a line for each change
//! elsewhere, an object for each in JSON. On standard error; what came of it goes to standard output at the end.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    cli::{
        output::{clean, count, table},
        progress::Form,
    },
    wire::admin as pb,
};

/// What is shown while it lasts.
#[derive(Debug)]
pub(super) struct Watch {
    form: Form,
    bar: Option<ProgressBar>,
    before: Seen,
}

/// How each identity stands, and each peer with it.
type Seen = BTreeMap<(String, Option<String>), (String, String)>;

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Change {
    /// Node and purpose.
    certificate: String,
    /// The peer; none for the identity itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
    /// What it is.
    is: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

impl Watch {
    /// Nothing yet.
    pub(super) const fn new(form: Form) -> Self {
        Self {
            form,
            bar: None,
            before: Seen::new(),
        }
    }

    /// Shows how they stand now.
    pub(super) fn show(&mut self, all: &[pb::Rotation]) {
        if self.form == Form::Bar {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{msg}") {
                    bar.set_style(style);
                }
                bar
            });
            bar.set_message(live_text(all));
            bar.tick();
            return;
        }
        let now = seen(all);
        for change in changes(&self.before, &now) {
            let line = match self.form {
                Form::Json => serde_json::to_string(&change).unwrap_or_default(),
                Form::Bar | Form::Lines => line(&change),
            };
            // Nobody may be listening, and that stops nothing.
            let _ = writeln!(io::stderr(), "{line}");
        }
        self.before = now;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn certificate(it: &pb::Rotation) -> String {
    format!("{}/{}", it.node, it.purpose)
}

fn live_text(all: &[pb::Rotation]) -> String {
    if all.is_empty() {
        return "finished".to_owned();
    }
    let rows = all.iter().flat_map(|it| {
        let first = match it.in_use.len() {
            0 => it.phase.clone(),
            n => format!("{}, {} left", it.phase, count(n, "connection")),
        };
        let row = |peer: &str, outcome: &str, why: &str| {
            [
                certificate(it),
                first.clone(),
                peer.to_owned(),
                outcome.to_owned(),
                why.to_owned(),
            ]
        };
        let problem = it.problem.as_deref().map(|problem| row("", "", problem));
        let peers = it
            .peers
            .iter()
            .map(|peer| row(&peer.cluster_id, &peer.outcome, &peer.detail));
        let mut rows: Vec<_> = problem.into_iter().chain(peers).collect();
        if rows.is_empty() {
            rows.push(row("", "", ""));
        }
        rows
    });
    table(
        ["CERTIFICATE", "PHASE", "PEER", "HAS IT", "WHY"],
        rows.collect(),
    ) + "\nCtrl-C ends the watching, not the rotation"
}

fn seen(all: &[pb::Rotation]) -> Seen {
    let mut seen = Seen::new();
    for it in all {
        let name = certificate(it);
        let problem = it.problem.clone().unwrap_or_default();
        seen.insert((name.clone(), None), (it.phase.clone(), problem));
        for peer in &it.peers {
            let key = (name.clone(), Some(peer.cluster_id.clone()));
            seen.insert(key, (peer.outcome.clone(), peer.detail.clone()));
        }
    }
    seen
}

fn changes(before: &Seen, now: &Seen) -> Vec<Change> {
    let mut all = Vec::new();
    for ((certificate, peer), (is, why)) in now {
        let was = before.get(&(certificate.clone(), peer.clone()));
        if was.is_some_and(|(was, because)| was == is && because == why) {
            continue;
        }
        all.push(Change {
            certificate: certificate.clone(),
            peer: peer.clone(),
            was: was.map(|(was, _)| was.clone()).filter(|was| was != is),
            is: is.clone(),
            why: why.clone(),
        });
    }
    // Peers go with the identity, or were removed: of neither there is more to tell.
    let gone = before
        .keys()
        .filter(|key| key.1.is_none() && !now.contains_key(key));
    all.extend(gone.map(|(certificate, _)| Change {
        certificate: certificate.clone(),
        peer: None,
        was: None,
        is: "finished".to_owned(),
        why: String::new(),
    }));
    all
}

fn line(change: &Change) -> String {
    let Change {
        certificate,
        peer,
        was,
        is,
        why,
    } = change;
    let peer = peer.as_ref().map(|peer| format!(" {peer}"));
    let was = was.as_ref().map(|was| format!("{was} -> "));
    let why = match &**why {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    clean(&format!(
        "{certificate}{}: {}{is}{why}",
        peer.unwrap_or_default(),
        was.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(phase: &str, outcome: &str) -> pb::Rotation {
        pb::Rotation {
            node: "n1".to_owned(),
            purpose: "federation".to_owned(),
            phase: phase.to_owned(),
            peers: vec![pb::RotationPeer {
                cluster_id: "tokyo".to_owned(),
                outcome: outcome.to_owned(),
                ..pb::RotationPeer::default()
            }],
            ..pb::Rotation::default()
        }
    }

    #[test]
    fn each_change_is_a_line_and_what_stays_is_none() {
        let states = [
            vec![rotation("requested", "silent")],
            vec![rotation("requested", "silent")],
            vec![rotation("announced", "silent")],
            vec![rotation("announced", "loaded")],
            vec![],
        ];
        let mut before = Seen::new();
        let mut lines = Vec::new();
        for state in &states {
            let now = seen(state);
            lines.extend(changes(&before, &now).iter().map(line));
            before = now;
        }
        assert_eq!(
            lines,
            [
                "n1/federation: requested",
                "n1/federation tokyo: silent",
                "n1/federation: requested -> announced",
                "n1/federation tokyo: silent -> loaded",
                "n1/federation: finished",
            ]
        );
        let change = changes(&Seen::new(), &seen(&states[0])).remove(1);
        let json = serde_json::to_string(&change).unwrap();
        assert_eq!(
            json,
            r#"{"certificate":"n1/federation","peer":"tokyo","is":"silent"}"#
        );
    }

    #[test]
    fn the_table_has_a_line_for_each_peer_and_what_holds_a_node_up() {
        let mut active = rotation("active", "waiting");
        active.in_use = vec!["a".to_owned()];
        active.problem = Some("no space".to_owned());
        active.peers[0].detail = "ask Ana".to_owned();
        let text = live_text(&[active, rotation("announced", "loaded")]);
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "CERTIFICATE    PHASE                      PEER   HAS IT   WHY",
                "n1/federation  active, 1 connection left  -      -        no space",
                "n1/federation  active, 1 connection left  tokyo  waiting  ask Ana",
                "n1/federation  announced                  tokyo  loaded   -",
                "Ctrl-C ends the watching, not the rotation",
            ]
        );
    }
}
