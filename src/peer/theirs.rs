//! The direction from a peer to us, explained: whether it calls, what it says, and what happened at our door. Pure.

use std::net::SocketAddr;

use crate::{
    domain::ids::ClusterId,
    peer::{LinkStatus, error::bounded},
    trust::{
        bundle::Bundle,
        certificate::Certificate,
        explain::{Part, Step},
        refusals::{Refused, Side},
    },
};

/// What is known here of a peer's calls.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// How the peer stands to us.
    pub link: &'a LinkStatus,
    /// The refusals of late.
    pub refusals: &'a [Refused],
    /// What is trusted of it.
    pub bundle: Option<&'a Bundle>,
    /// Where its addresses lead.
    pub sockets: &'a [SocketAddr],
    /// Our own cluster.
    pub own: &'a ClusterId,
}

impl Story<'_> {
    /// The explanation.
    #[must_use]
    pub fn explain(&self) -> Part {
        let cluster = &self.link.cluster;
        let inbound = &self.link.inbound;
        let mut part = Part::new(format!("from {cluster} to us"));
        let seen = inbound.last_seen_age.map_or_else(
            || "it has not called this node since the node's start".to_owned(),
            |age| format!("it called this node {} s ago", age.as_secs()),
        );
        part.steps.push(if inbound.watching {
            Step::good("calls", format!("{seen}, and watches it"))
        } else {
            Step::bad("calls", None, format!("{seen}, and does not watch it"))
        });
        if let Some(reason) = &inbound.reverse_down_reason {
            let age = inbound.reverse_down_age.unwrap_or_default().as_secs();
            let text = format!(
                "{age} s ago it said that its link to us is down: {}",
                bounded(reason)
            );
            part.steps.push(Step::bad("it says", None, text));
        }
        if part.holds() {
            return part;
        }
        for refused in self.refusals.iter().filter(|r| self.is_of(r)).take(MOST) {
            part.steps.push(at_the_door(refused));
            part.mend.get_or_insert_with(|| refused.mend.clone());
        }
        let own = self.own;
        part.mend
            .get_or_insert_with(|| format!("on {cluster}: emccd trust explain {own}"));
        part
    }

    /// Whether it may have been this peer that was refused, by what it showed or where it came from.
    fn is_of(&self, refused: &Refused) -> bool {
        let from = refused.remote.ip().to_canonical();
        if self.sockets.iter().any(|s| s.ip().to_canonical() == from) {
            return true;
        }
        let known = |certificate: &Certificate| {
            refused.fingerprint.as_ref() == Some(&certificate.fingerprint_text())
                || refused.subject.as_deref() == Some(certificate.subject())
        };
        self.bundle.is_some_and(|b| b.pinned.iter().any(known))
    }
}

/// The most refusals that are told.
const MOST: usize = 4;

fn at_the_door(refused: &Refused) -> Step {
    let shown = refused
        .fingerprint
        .as_ref()
        .map_or_else(String::new, |print| {
            let subject = refused.subject.as_deref().unwrap_or_default();
            format!(" ({subject}, SHA-256 {print})")
        });
    let who = match refused.side {
        Side::Caller => "we refused a caller",
        Side::Answerer => "we refused what answered",
        Side::Own => "a caller refused our certificate",
    };
    let text = format!(
        "{} {who} at {}{shown}: {}",
        refused.at, refused.remote, refused.rejection
    );
    Step::bad("at the door", Some(refused.rejection), text)
        .with([format!("expected: {}", refused.expectation)])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        clock::Timestamp,
        domain::rejection::Rejection,
        peer::inbound::Inbound,
        trust::fixtures::{Spec, pinned},
    };

    fn refused(remote: &str, subject: &str) -> Refused {
        Refused {
            at: Timestamp::from_millis(0),
            side: Side::Caller,
            remote: remote.parse().unwrap(),
            rejection: Rejection::UnknownIssuer,
            fingerprint: Some("AB:CD".to_owned()),
            subject: Some(subject.to_owned()),
            valid: None,
            expectation: "a certificate that is pinned".to_owned(),
            mend: "emccd trust add CLUSTER --pin FILE".to_owned(),
            count: 1,
        }
    }

    fn told(inbound: Inbound, refusals: &[Refused]) -> Part {
        let berlin = ClusterId::new("berlin").unwrap();
        let leaf = Spec::new("n1.berlin.example").self_signed();
        let bundle = pinned("berlin", &leaf);
        let link = LinkStatus::of(&berlin, true, Vec::new(), None, inbound);
        let sockets = ["192.0.2.7:8444".parse().unwrap()];
        let own = ClusterId::new("tokyo").unwrap();
        let story = Story {
            link: &link,
            refusals,
            bundle: Some(&bundle),
            sockets: &sockets,
            own: &own,
        };
        story.explain()
    }

    #[test]
    fn a_peer_that_calls_is_well_whatever_was_refused_before() {
        let well = Inbound {
            watching: true,
            last_seen_age: Some(Duration::from_secs(1)),
            ..Inbound::default()
        };
        let part = told(well.clone(), &[refused("192.0.2.7:40000", "CN=x")]);
        assert!(part.holds() && part.mend.is_none(), "{part:?}");
        let says = Inbound {
            reverse_down_reason: Some("no answer".to_owned()),
            reverse_down_age: Some(Duration::from_secs(2)),
            ..well
        };
        let part = told(says, &[]);
        assert!(!part.holds());
        let said = &part.steps[1].text;
        assert!(said.starts_with("2 s ago it said") && said.ends_with("no answer"));
        assert_eq!(
            part.mend.as_deref(),
            Some("on berlin: emccd trust explain tokyo")
        );
    }

    #[test]
    fn a_refusal_is_told_to_be_of_the_peer_by_where_it_came_from_or_by_its_name() {
        for (remote, subject, is_told) in [
            ("192.0.2.7:40000", "CN=x", true),
            ("[::ffff:192.0.2.7]:40000", "CN=x", true),
            ("192.0.2.8:40000", "CN=n1.berlin.example", true),
            ("192.0.2.8:40000", "CN=x", false),
        ] {
            let part = told(Inbound::default(), &[refused(remote, subject)]);
            let reason = is_told.then_some(Rejection::UnknownIssuer);
            assert_eq!(part.rejection(), reason, "{remote} {subject}");
            let mend = part.mend.unwrap();
            assert_eq!(mend.contains("trust add"), is_told, "{mend}");
        }
    }
}
