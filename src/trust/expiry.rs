//! When certificates end: which alarm is due for which, and when the next one will be. Pure.
//!
//! Each certificate is told of once per threshold that it crosses. What was told is remembered here and nowhere else:
//! after a restart its present threshold is told once more.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        bundle::Bundle,
        certificate::{Certificate, Fingerprint, Name},
        shown::Chain,
    },
};

/// So many days before the end an alarm is due, furthest first. The end itself is the last.
pub const DAYS: [u16; 5] = [90, 30, 14, 7, 1];

/// From here on it is an error that somebody must see to, and no longer a warning.
const PRESSING_DAYS: u16 = 7;

const DAY: Duration = Duration::from_secs(86_400);

/// What a certificate is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// We show it, for the purpose of that name.
    Own(&'static str),
    /// We send it along with what we show.
    OwnIssuer,
    /// An entry: this very leaf is accepted from a peer.
    Pinned,
    /// An entry: this authority vouches for a peer.
    Anchor,
    /// A peer shows it, and an anchor vouches for it.
    Shown,
    /// A peer sends it along.
    ShownIssuer,
}

impl Part {
    /// The word in logs, metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own(purpose) => purpose,
            Self::OwnIssuer => "issuer",
            Self::Pinned => "pinned",
            Self::Anchor => "anchor",
            Self::Shown => "shown",
            Self::ShownIssuer => "shown-issuer",
        }
    }
}

/// A certificate whose end matters to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whose it is: a peer, or our own cluster.
    pub owner: ClusterId,
    /// What it is to us.
    pub part: Part,
    /// The certificate.
    pub certificate: Certificate,
    /// Whether the owner has another one of the same kind that outlives it: then it may be a leftover.
    pub is_succeeded: bool,
}

/// How far gone a certificate is. Later is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It ends within so many days.
    Within(u16),
    /// It has ended.
    Expired,
}

impl Stage {
    /// Where a certificate that ends at `end` stands at `now`; none while that is far off.
    #[must_use]
    pub fn of(end: Timestamp, now: Timestamp) -> Option<Self> {
        if now > end {
            return Some(Self::Expired);
        }
        let mut nearest_first = DAYS.into_iter().rev();
        let crossed = nearest_first.find(|days| now >= begin(end, *days));
        crossed.map(Self::Within)
    }

    fn severity(self) -> u16 {
        match self {
            Self::Within(days) => u16::MAX - days,
            Self::Expired => u16::MAX,
        }
    }

    /// Whether it must be seen to now.
    #[must_use]
    pub fn is_pressing(self) -> bool {
        match self {
            Self::Within(days) => days <= PRESSING_DAYS,
            Self::Expired => true,
        }
    }

    /// The word in logs and JSON: the threshold in days, or `expired`.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::Within(days) => days.to_string(),
            Self::Expired => "expired".to_owned(),
        }
    }
}

/// When the threshold of `days` is crossed.
fn begin(end: Timestamp, days: u16) -> Timestamp {
    end.minus(DAY * u32::from(days))
}

/// The first moment after `now` at which something is to be told of a certificate that ends at `end`.
fn next_moment(end: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let expired = end.plus(Duration::from_millis(1));
    let thresholds = DAYS.into_iter().map(|days| begin(end, days));
    thresholds.chain([expired]).find(|moment| *moment > now)
}

/// One certificate, and that it has come to a threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Which.
    pub watched: Watched,
    /// How far gone it is.
    pub stage: Stage,
    /// As of when.
    pub now: Timestamp,
}

impl Alarm {
    /// What is wrong, in one line.
    #[must_use]
    pub fn text(&self) -> String {
        let Watched {
            owner,
            part,
            certificate,
            ..
        } = &self.watched;
        let what = match part {
            Part::Own(purpose) => format!("our {purpose} certificate"),
            Part::OwnIssuer => "the issuer's certificate that we send along".to_owned(),
            Part::Pinned => format!("a certificate that is pinned for {owner}"),
            Part::Anchor => format!("an authority that vouches for {owner}"),
            Part::Shown => format!("the certificate that {owner} shows"),
            Part::ShownIssuer => format!("the issuer's certificate that {owner} sends along"),
        };
        let end = certificate.not_after();
        let when = match self.stage {
            Stage::Expired => format!("expired at {end}, {} ago", length(self.now.since(end))),
            Stage::Within(_) => format!("expires at {end}, in {}", length(end.since(self.now))),
        };
        let leftover = if self.is_leftover() {
            "; another one outlives it"
        } else {
            ""
        };
        format!("{what} ({}) {when}{leftover}", certificate.subject())
    }

    /// What to do about it.
    #[must_use]
    pub fn next(&self) -> String {
        let Watched {
            owner,
            part,
            certificate,
            ..
        } = &self.watched;
        match part {
            Part::Own(purpose) => {
                let purpose = match *purpose {
                    "phone" => " --purpose phone",
                    "federation-client" => " --purpose federation-client",
                    _ => "",
                };
                format!(
                    "make the next one (emccd cert new{purpose} --help tells how), have those trust it who must, then: \
                     emccd cert install{purpose} FILE --now"
                )
            }
            Part::OwnIssuer => {
                "have the authority renew it, put it behind our certificate in its file (in a key store: keytool \
                 -importcert with the whole chain), then: emccd cert reload"
                    .to_owned()
            }
            Part::Pinned | Part::Anchor if self.is_leftover() => format!(
                "if {owner} shows it no more: emccd trust remove {owner} --fingerprint {}",
                certificate.fingerprint_text()
            ),
            Part::Pinned => {
                format!("ask {owner} for its next one, then: emccd trust add {owner} --pin FILE")
            }
            Part::Anchor => {
                format!("ask for the authority's next one, then: emccd trust add {owner} --anchor FILE")
            }
            Part::Shown | Part::ShownIssuer => {
                format!("on {owner}: renew it (emccd cert rotate run)")
            }
        }
    }

    /// Whether it must be seen to now. An entry that another one outlives keeps nobody away.
    #[must_use]
    pub fn is_pressing(&self) -> bool {
        self.stage.is_pressing() && !self.is_leftover()
    }

    fn is_leftover(&self) -> bool {
        self.watched.is_succeeded
    }
}

fn length(length: Duration) -> String {
    let hours = length.as_secs() / 3_600;
    match hours {
        0 => format!("{} min", length.as_secs() / 60),
        1..48 => format!("{hours} h"),
        _ => format!("{} days", hours / 24),
    }
}

/// Every certificate that has come to a threshold at `now`, the most urgent first.
#[must_use]
pub fn alarms(all: &[Watched], now: Timestamp) -> Vec<Alarm> {
    let mut found: Vec<_> = all
        .iter()
        .filter_map(|watched| {
            let stage = Stage::of(watched.certificate.not_after(), now)?;
            let watched = watched.clone();
            Some(Alarm {
                watched,
                stage,
                now,
            })
        })
        .collect();
    found.sort_by_key(|alarm| alarm.watched.certificate.not_after());
    found
}

/// What was told already.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<(ClusterId, Part, Fingerprint), u16>);

impl Told {
    /// What is to be told now and was not yet, and when to look again if nothing changes before.
    pub fn look(&mut self, all: &[Watched], now: Timestamp) -> (Vec<Alarm>, Option<Timestamp>) {
        let mut stands = BTreeMap::new();
        let mut due = Vec::new();
        for alarm in alarms(all, now) {
            let watched = &alarm.watched;
            let key = (
                watched.owner.clone(),
                watched.part,
                watched.certificate.fingerprint(),
            );
            let severity = alarm.stage.severity();
            let is_new = self.0.get(&key).is_none_or(|told| *told < severity);
            stands.insert(key, severity);
            if is_new {
                due.push(alarm);
            }
        }
        // What is gone, and what a clock that was set back has made young again, may be told once more.
        self.0 = stands;
        let ends = all.iter().map(|watched| watched.certificate.not_after());
        let next = ends.filter_map(|end| next_moment(end, now)).min();
        (due, next)
    }
}

/// Our own certificates: one identity's chain, as it is shown for `purpose`.
#[must_use]
pub fn own(owner: &ClusterId, purpose: &'static str, chain: &[Certificate]) -> Vec<Watched> {
    let parts = std::iter::once(Part::Own(purpose)).chain(std::iter::repeat(Part::OwnIssuer));
    chain
        .iter()
        .zip(parts)
        .map(|(certificate, part)| Watched {
            owner: owner.clone(),
            part,
            certificate: certificate.clone(),
            is_succeeded: false,
        })
        .collect()
}

/// What we accept from the peers, and what they have shown; of that what would be accepted at `now` but for its dates.
#[must_use]
pub fn peers(bundles: &[Bundle], shown: &[Chain], now: Timestamp) -> Vec<Watched> {
    let mut all = Vec::new();
    for bundle in bundles {
        let theirs: Vec<_> = shown
            .iter()
            .filter(|chain| chain.cluster == bundle.cluster)
            .collect();
        let leaves: Vec<_> = theirs.iter().map(|chain| &chain.leaf).collect();
        entries(bundle, Part::Pinned, &bundle.pinned, &leaves, &mut all);
        entries(bundle, Part::Anchor, &bundle.anchors, &[], &mut all);
        for chain in theirs {
            if bundle.pinned.contains(&chain.leaf) || is_done_with(bundle, chain, now) {
                continue;
            }
            push(bundle, Part::Shown, &chain.leaf, &mut all);
            let sent = chain.issuers.iter();
            for issuer in sent.filter(|issuer| !bundle.anchors.contains(issuer)) {
                push(bundle, Part::ShownIssuer, issuer, &mut all);
            }
        }
    }
    all
}

/// Whether a chain is of no use any more, whatever its dates are: it was revoked, or nothing vouches for it.
fn is_done_with(bundle: &Bundle, chain: &Chain, now: Timestamp) -> bool {
    let reason = chain.refused(bundle, now);
    reason.is_some_and(|why| !matches!(why, Rejection::Expired | Rejection::NotYetValid))
}

/// Entries of one kind. One is succeeded by another of the same subject and names, unless it is still `shown`.
fn entries(
    bundle: &Bundle,
    part: Part,
    certificates: &[Certificate],
    shown: &[&Certificate],
    all: &mut Vec<Watched>,
) {
    let mut newest: BTreeMap<(&str, &[Name]), Timestamp> = BTreeMap::new();
    for certificate in certificates {
        let same = (certificate.subject(), certificate.names());
        let newest = newest.entry(same).or_default();
        *newest = (*newest).max(certificate.not_after());
    }
    for certificate in certificates {
        let newest = newest.get(&(certificate.subject(), certificate.names()));
        let is_outlived = newest.is_some_and(|end| *end > certificate.not_after());
        all.push(Watched {
            owner: bundle.cluster.clone(),
            part,
            certificate: certificate.clone(),
            is_succeeded: is_outlived && !shown.contains(&certificate),
        });
    }
}

fn push(bundle: &Bundle, part: Part, certificate: &Certificate, all: &mut Vec<Watched>) {
    let is_there = all.iter().rev().any(|watched| {
        watched.owner == bundle.cluster
            && watched.part == part
            && watched.certificate == *certificate
    });
    if !is_there {
        all.push(Watched {
            owner: bundle.cluster.clone(),
            part,
            certificate: certificate.clone(),
            is_succeeded: false,
        });
    }
}

#[cfg(test)]
mod tests;
