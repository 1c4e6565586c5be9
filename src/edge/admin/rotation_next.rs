//! What an operator types when a rotation is held up: a command for everything that holds one up, by where it stands.
//! Pure.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::domain::{
    ids::ClusterId,
    purpose::Purpose,
    rotation::{
        Fingerprint, Name, Phase,
        gates::{Blocker, Why},
    },
};

/// Where a rotation stands that is held up, and how it is named in a command.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    /// Our own cluster, as peers know it.
    pub us: &'a ClusterId,
    /// The nodes of a command: names, or "all".
    pub nodes: Vec<&'a str>,
    /// What the certificate is for.
    pub purpose: Purpose,
    /// How far it has come.
    pub phase: Phase,
    /// The new certificate, where it is made and is only one.
    pub new: Option<Fingerprint>,
}

impl<'a> Held<'a> {
    /// That of one identity.
    #[must_use]
    pub fn of(us: &'a ClusterId, name: &'a Name, phase: Phase, new: Option<Fingerprint>) -> Self {
        Self {
            us,
            nodes: vec![&name.node],
            purpose: name.purpose,
            phase,
            new,
        }
    }

    /// What can be done where it stands.
    #[must_use]
    pub fn way_on(&self) -> String {
        told(self, Way::Step(self.phase), &[])
    }

    /// `cert rotate VERB` for it.
    #[must_use]
    pub fn command(&self, verb: &str) -> String {
        let mut line = format!("emccd cert rotate {verb}");
        for node in &self.nodes {
            let _ = write!(line, " --node {node}");
        }
        if self.purpose != Purpose::Federation {
            let _ = write!(line, " --purpose {}", self.purpose);
        }
        line
    }
}

/// What one thing that holds it up has an operator do. The peers of all that ask for the same are named together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Look which peers there are.
    Known,
    /// It answers for itself.
    Itself,
    /// Its operator adds the certificate, and here that is said.
    ByHand,
    /// Its operator agrees.
    Agree,
    /// Mend the link, or go on without.
    Without,
    /// Mend the link, or the peer is gone for good.
    GoneForGood,
    /// A connection of ours has to be seen.
    SeenOut,
    /// A connection of theirs has to be seen.
    SeenIn,
    /// The connections begin anew by themselves.
    Drain,
    /// The node has to do something.
    Node,
    /// Another step comes first.
    Step(Phase),
    /// Only forwards.
    Forwards,
}

/// The row of the table.
const fn way(blocker: &Blocker, phase: Phase) -> Way {
    match (blocker, phase) {
        (Blocker::Phase { now, .. }, _) => Way::Step(*now),
        (Blocker::Unknown(_), _) => Way::Known,
        (Blocker::NotManual(_), _) => Way::Itself,
        (Blocker::NotShown | Blocker::Unreported | Blocker::Unsettled, _) => Way::Node,
        (Blocker::InUse(_), _) => Way::Drain,
        (Blocker::OldEnded, _) => Way::Forwards,
        (Blocker::Peer { why, .. }, phase) => match (why, phase) {
            (Why::Waiting, _) => Way::Agree,
            (Why::Manual, _) => Way::ByHand,
            (Why::UnseenOut, _) => Way::SeenOut,
            (Why::UnseenIn, _) => Way::SeenIn,
            (Why::Silent | Why::Refused | Why::Overridden, Phase::Requested | Phase::Announced) => {
                Way::Without
            }
            (
                Why::Silent | Why::Refused | Why::Overridden,
                Phase::Active | Phase::Retired | Phase::RollingBack,
            ) => Way::GoneForGood,
        },
    }
}

const fn peer(blocker: &Blocker) -> Option<&ClusterId> {
    match blocker {
        Blocker::Peer { cluster, .. } | Blocker::Unknown(cluster) | Blocker::NotManual(cluster) => {
            Some(cluster)
        }
        Blocker::Phase { .. }
        | Blocker::NotShown
        | Blocker::Unreported
        | Blocker::InUse(_)
        | Blocker::Unsettled
        | Blocker::OldEnded => None,
    }
}

/// The commands that lead on, for all that holds a rotation up; a line for each way, with all peers that it is for.
#[must_use]
pub fn next(held: &Held<'_>, blockers: &[&Blocker]) -> String {
    let ways: BTreeSet<Way> = blockers.iter().map(|b| way(b, held.phase)).collect();
    let lines = ways.into_iter().map(|which| {
        let of = blockers.iter().filter(|b| way(b, held.phase) == which);
        let peers: BTreeSet<&ClusterId> = of.filter_map(|b| peer(b)).collect();
        told(held, which, &peers.into_iter().collect::<Vec<_>>())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// An answer has little room. What holds it up names all of them.
const MOST_NAMED: usize = 8;

fn told(held: &Held<'_>, way: Way, peers: &[&ClusterId]) -> String {
    let us = held.us;
    let names = peers.iter().take(MOST_NAMED);
    let names: Vec<_> = names.map(|peer| peer.as_str()).collect();
    let more = match peers.len().saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let them = names.join(", ") + &more;
    let each = |command: &dyn Fn(&str) -> String| {
        let all: Vec<_> = names.iter().map(|name| command(name)).collect();
        all.join("; ")
    };
    match way {
        Way::Known => "the peers that there are: emccd cluster list".to_owned(),
        Way::Itself => format!(
            "leave out your word for {them}; how the links stand: emccd cluster status"
        ),
        Way::ByHand => {
            let file = held.new.map_or_else(
                || format!("{}-SHA256.pem", held.purpose),
                |new| {
                    let hex: String = new.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("{}-{hex}.pem", held.purpose)
                },
            );
            format!(
                "give the operators of {them} the new certificate (identities/{file} beside the configured one), who type \
                 there: emccd trust add {us} --pin FILE; then here: {} {}",
                held.command("confirm"),
                names.join(" ")
            )
        }
        Way::Agree => format!(
            "at {them} the operator types: emccd trust accept {us}; then try again"
        ),
        Way::Without => {
            let overrides: String = names.iter().map(|name| format!(" --override {name}")).collect();
            format!(
                "what is wrong with {them}: {}; to go on without: {}{overrides}",
                each(&|name| format!("emccd trust explain {name}")),
                held.command("activate"),
            )
        }
        Way::GoneForGood => format!(
            "what is wrong with {them}: {}; it goes on when the link is up. A peer that is gone for good is waited for no \
             more after: {}",
            each(&|name| format!("emccd trust explain {name}")),
            each(&|name| format!("emccd cluster set {name} --enabled false")),
        ),
        Way::SeenOut => format!(
            "have this side dial: {}; if it is refused there: emccd trust explain {}. A peer that is gone for good is waited \
             for no more after: {}",
            each(&|name| format!("emccd cluster refresh {name}")),
            names.first().copied().unwrap_or_default(),
            each(&|name| format!("emccd cluster set {name} --enabled false")),
        ),
        Way::SeenIn => format!(
            "at {them} the operator types: emccd cluster refresh {us}. A peer that is gone for good is waited for no more \
             after: {}",
            each(&|name| format!("emccd cluster set {name} --enabled false")),
        ),
        Way::Drain => "connections begin anew by themselves within certificate-drain-time, or at once after: emccd param set \
                       certificate-drain-time 0; which are left: emccd cert rotate status"
            .to_owned(),
        Way::Node => {
            let gone: Vec<_> = held.nodes.iter().filter(|node| **node != "all").collect();
            let forget: Vec<_> = match gone.is_empty() {
                true => vec!["emccd cert rotate forget NAME".to_owned()],
                false => gone
                    .iter()
                    .map(|node| format!("emccd cert rotate forget {node}"))
                    .collect(),
            };
            format!(
                "the node does that by itself while it runs; what holds it up: emccd cert rotate status. For a node that is \
                 gone for good: {}",
                forget.join("; ")
            )
        }
        Way::Step(Phase::Requested) => format!(
            "the node is making the new certificate: emccd cert rotate status; to give it up: {}",
            held.command("rollback")
        ),
        Way::Step(Phase::Announced) => format!(
            "to go on: {}; to go back: {}",
            held.command("activate"),
            held.command("rollback")
        ),
        Way::Step(Phase::Active) => format!(
            "to go on: {}; to go back: {}",
            held.command("retire"),
            held.command("rollback")
        ),
        Way::Step(Phase::Retired | Phase::RollingBack) => format!(
            "it ends by itself: emccd cert rotate status; then another one: {}",
            held.command("announce")
        ),
        Way::Forwards => match held.phase {
            Phase::Active => format!("to end it: {}", held.command("retire")),
            Phase::Requested | Phase::Announced | Phase::Retired | Phase::RollingBack => {
                format!("the new one leads out: {}", held.command("activate"))
            }
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn id(name: &str) -> ClusterId {
        ClusterId::new(name).unwrap()
    }

    /// One of every kind.
    pub(crate) fn every_blocker() -> Vec<Blocker> {
        let whys = [
            Why::Silent,
            Why::Waiting,
            Why::Refused,
            Why::Manual,
            Why::Overridden,
            Why::UnseenOut,
            Why::UnseenIn,
        ];
        let mut all: Vec<Blocker> = whys
            .into_iter()
            .map(|why| Blocker::Peer {
                cluster: id("tokyo"),
                why,
                detail: String::new(),
            })
            .collect();
        all.extend(
            Phase::ALL
                .into_iter()
                .map(|now| Blocker::Phase { now, needs: "" }),
        );
        all.extend([
            Blocker::Unknown(id("tokyo")),
            Blocker::NotManual(id("tokyo")),
            Blocker::NotShown,
            Blocker::Unreported,
            Blocker::InUse("the link to tokyo at 192.0.2.1:8444".to_owned()),
            Blocker::Unsettled,
            Blocker::OldEnded,
        ]);
        all
    }

    /// What is told of every kind in every phase, for one node and for all.
    pub(crate) fn every_text() -> Vec<String> {
        let us = id("berlin");
        let mut texts = Vec::new();
        for (nodes, purpose) in [
            (vec!["n1"], Purpose::Federation),
            (vec!["n1", "n2"], Purpose::Phone),
            (vec!["all"], Purpose::FederationClient),
        ] {
            for phase in Phase::ALL {
                for blocker in every_blocker() {
                    let held = Held {
                        us: &us,
                        nodes: nodes.clone(),
                        purpose,
                        phase,
                        new: Some([0xab; 32]),
                    };
                    texts.push(next(&held, &[&blocker]));
                }
            }
        }
        texts
    }

    fn told(phase: Phase, blockers: &[Blocker]) -> String {
        let (us, name) = (
            id("berlin"),
            Name {
                node: "n1".to_owned(),
                purpose: Purpose::Federation,
            },
        );
        let held = Held::of(&us, &name, phase, Some([0xab; 32]));
        next(&held, &blockers.iter().collect::<Vec<_>>())
    }

    fn of(peer: &str, why: Why) -> Blocker {
        Blocker::Peer {
            cluster: id(peer),
            why,
            detail: String::new(),
        }
    }

    #[test]
    fn no_command_of_another_phase_is_told() {
        let us = id("berlin");
        for phase in Phase::ALL {
            for blocker in every_blocker() {
                let text = told(phase, std::slice::from_ref(&blocker));
                assert!(text.contains("emccd "), "{phase} {blocker:?}: {text}");
                assert!(!text.contains(" US"), "{text}");
                if matches!(blocker, Blocker::Peer { .. }) {
                    let overrides = text.contains("--override");
                    assert!(!overrides || phase <= Phase::Announced, "{phase}: {text}");
                }
                if text.contains("trust accept") || text.contains("trust add") {
                    assert!(text.contains(us.as_str()), "{text}");
                }
            }
        }
        for (now, wanted) in [
            (Phase::Requested, "cert rotate rollback --node n1"),
            (Phase::Announced, "cert rotate activate --node n1"),
            (Phase::Active, "cert rotate retire --node n1"),
            (Phase::Retired, "cert rotate announce --node n1"),
            (Phase::RollingBack, "cert rotate announce --node n1"),
        ] {
            let text = told(now, &[Blocker::Phase { now, needs: "" }]);
            assert!(text.contains(wanted), "{text}");
        }
        let ended = told(Phase::Announced, &[Blocker::OldEnded]);
        assert!(ended.contains("activate"), "{ended}");
        let ended = told(Phase::Active, &[Blocker::OldEnded]);
        assert!(ended.contains("retire"), "{ended}");
    }

    #[test]
    fn all_peers_in_question_are_named_and_each_way_is_told_once() {
        let text = told(
            Phase::Announced,
            &[
                of("tokyo", Why::Silent),
                of("lima", Why::Refused),
                of("oslo", Why::Manual),
                of("paris", Why::Waiting),
                of("rome", Why::Waiting),
            ],
        );
        for part in [
            "cert rotate activate --node n1 --override lima --override tokyo",
            "emccd trust explain lima; emccd trust explain tokyo",
            "emccd trust add berlin --pin FILE; then here: emccd cert rotate confirm --node n1 oslo",
            &format!("identities/federation-{}.pem", "ab".repeat(32)),
            "at paris, rome the operator types: emccd trust accept berlin",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn a_dead_peer_at_retire_has_a_way_out() {
        for why in [
            Why::Silent,
            Why::Refused,
            Why::Overridden,
            Why::UnseenOut,
            Why::UnseenIn,
        ] {
            let text = told(Phase::Active, &[of("tokyo", why), of("lima", why)]);
            for peer in ["tokyo", "lima"] {
                let command = format!("emccd cluster set {peer} --enabled false");
                assert!(text.contains(&command), "{why:?}: {text}");
            }
        }
        let silent_node = told(Phase::Active, &[Blocker::Unreported]);
        assert!(
            silent_node.contains("emccd cert rotate forget n1"),
            "{silent_node}"
        );
    }
}
