//! What is accepted on a given day, and what breaks until then. Pure.
//!
//! A link breaks when the certificate that is shown over it, or an issuer it rests on, has ended: asked is the same
//! judgement as in a handshake, at each moment where something ends.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        bundle::{Bundle, Direction},
        certificate::Certificate,
        expiry::{Part, Watched},
        judge::judge_for,
        shown::Chain,
    },
};

/// How the dates of an entry stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It counts.
    Accepted,
    /// It counted until its end.
    Expired,
    /// It will count.
    NotYetValid,
}

impl State {
    /// Of a certificate at `at`, by its own dates.
    #[must_use]
    pub fn of(certificate: &Certificate, at: Timestamp) -> Self {
        if at > certificate.not_after() {
            Self::Expired
        } else if at < certificate.not_before() {
            Self::NotYetValid
        } else {
            Self::Accepted
        }
    }

    /// The word in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
        }
    }
}

/// A trust entry on that day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// For which peer.
    pub cluster: ClusterId,
    /// [`Part::Pinned`] or [`Part::Anchor`].
    pub part: Part,
    /// What is accepted.
    pub certificate: Certificate,
    /// Whether it is, on that day.
    pub state: State,
}

/// Something that will not work any more on that day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The link to which peer.
    pub cluster: ClusterId,
    /// Whose certificate it is about: ours, or the peer's.
    pub is_ours: bool,
    /// The certificate.
    pub certificate: Certificate,
    /// From when on.
    pub at: Timestamp,
    /// What happens then.
    pub text: String,
}

/// What is accepted on a day, and what breaks until then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// By peer.
    pub entries: Vec<Entry>,
    /// By peer and time.
    pub breaks: Vec<Break>,
}

/// Looks ahead to `at`, or back. `own` are our certificates; those for phones break no link.
#[must_use]
pub fn forecast(bundles: &[Bundle], shown: &[Chain], own: &[Watched], at: Timestamp) -> Forecast {
    let mut forecast = Forecast::default();
    for bundle in bundles {
        let kinds = [
            (Part::Pinned, &bundle.pinned),
            (Part::Anchor, &bundle.anchors),
        ];
        for (part, certificates) in kinds {
            forecast.entries.extend(certificates.iter().map(|c| Entry {
                cluster: bundle.cluster.clone(),
                part,
                certificate: c.clone(),
                state: State::of(c, at),
            }));
        }
        let mut breaks = ours(bundle, own, at);
        breaks.extend(theirs(bundle, shown, at));
        breaks.sort_by_key(|b| b.at);
        forecast.breaks.extend(breaks);
    }
    forecast
}

/// The certificate with which we call, and are called, ends for all peers at once.
fn ours(bundle: &Bundle, own: &[Watched], at: Timestamp) -> Vec<Break> {
    let ending = own.iter().filter(|watched| {
        matches!(watched.part, Part::Own(purpose) if purpose != "phone")
            && State::of(&watched.certificate, at) == State::Expired
    });
    ending
        .map(|watched| Break {
            cluster: bundle.cluster.clone(),
            is_ours: true,
            certificate: watched.certificate.clone(),
            at: after(watched.certificate.not_after()),
            text: format!(
                "{} refuses our {} certificate as {}",
                bundle.cluster,
                watched.part.as_str(),
                Rejection::Expired
            ),
        })
        .collect()
}

fn theirs(bundle: &Bundle, shown: &[Chain], at: Timestamp) -> Vec<Break> {
    let mut seen = shown
        .iter()
        .filter(|chain| chain.cluster == bundle.cluster)
        .peekable();
    if seen.peek().is_some() {
        return seen
            .filter_map(|chain| of_chain(bundle, chain, at))
            .collect();
    }
    // Nothing was seen of it: it can't be linked when nothing of what is listed counts.
    let entries = || bundle.pinned.iter().chain(&bundle.anchors);
    let is_over = entries().all(|entry| State::of(entry, at) == State::Expired);
    let last = entries().max_by_key(|entry| entry.not_after());
    let last = last.filter(|_| is_over);
    last.map(|last| Break {
        cluster: bundle.cluster.clone(),
        is_ours: false,
        certificate: last.clone(),
        at: after(last.not_after()),
        text: format!(
            "the last of what we accept from {} has ended",
            bundle.cluster
        ),
    })
    .into_iter()
    .collect()
}

/// When one certificate of the peer is not accepted any more, if it isn't on that day.
fn of_chain(bundle: &Bundle, chain: &Chain, at: Timestamp) -> Option<Break> {
    refused(bundle, chain, at)?;
    let certificates = std::iter::once(&chain.leaf)
        .chain(&chain.issuers)
        .chain(&bundle.anchors);
    // The search of a path counts whole seconds, and our own looks at dates milliseconds.
    let mut ends: Vec<_> = certificates
        .flat_map(|c| [after(c.not_after()), c.not_after().plus(SECOND)])
        .collect();
    ends.sort();
    let is_end = |moment: &Timestamp| {
        *moment <= at && refused(bundle, chain, *moment) == Some(Rejection::Expired)
    };
    let from = ends.into_iter().find(is_end)?;
    Some(Break {
        cluster: bundle.cluster.clone(),
        is_ours: false,
        certificate: chain.leaf.clone(),
        at: from,
        text: if from.since(chain.leaf.not_after()) <= SECOND && from > chain.leaf.not_after() {
            format!(
                "we refuse this certificate of {} as expired",
                bundle.cluster
            )
        } else {
            format!(
                "we refuse this certificate of {} as expired: an issuer that it rests on has ended",
                bundle.cluster
            )
        },
    })
}

/// Why the chain is refused at `at` in both directions; which of them it was shown in does not matter to its dates.
fn refused(bundle: &Bundle, chain: &Chain, at: Timestamp) -> Option<Rejection> {
    let ders: Vec<_> = std::iter::once(&chain.leaf)
        .chain(&chain.issuers)
        .map(|certificate| certificate.der().clone())
        .collect();
    let judged = |direction| judge_for(bundle, &ders, direction, at).rejection();
    let (client, server) = (judged(Direction::Client)?, judged(Direction::Server)?);
    Some(if client == Rejection::WrongEku {
        server
    } else {
        client
    })
}

const SECOND: Duration = Duration::from_secs(1);

/// The first moment at which a certificate that ends at `end` counts no more.
fn after(end: Timestamp) -> Timestamp {
    end.plus(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        trust::{
            expiry,
            fixtures::{Authority, Spec, bundle},
        },
    };

    fn in_days(days: u64) -> Timestamp {
        Clock::system()
            .now()
            .plus(Duration::from_secs(days * 86_400))
    }

    fn ending(name: &str, days: i64) -> Spec {
        Spec::new(name).valid_days(-1, days)
    }

    fn chain(leaf: &Certificate, issuers: Vec<Certificate>) -> Chain {
        Chain {
            cluster: ClusterId::new("tokyo").unwrap(),
            leaf: leaf.clone(),
            issuers,
        }
    }

    #[test]
    fn entries_are_told_by_their_dates() {
        let mut tokyo = bundle("tokyo");
        tokyo.pinned = vec![
            ending("a.example", 10).self_signed().certificate(),
            Spec::new("b.example")
                .valid_days(30, 60)
                .self_signed()
                .certificate(),
        ];
        let states = |days| {
            let told = forecast(std::slice::from_ref(&tokyo), &[], &[], in_days(days));
            let states: Vec<_> = told.entries.iter().map(|e| e.state).collect();
            (states, told.breaks.len())
        };
        assert_eq!(states(1), (vec![State::Accepted, State::NotYetValid], 0));
        assert_eq!(states(20), (vec![State::Expired, State::NotYetValid], 0));
        assert_eq!(states(40), (vec![State::Expired, State::Accepted], 0));
        // The last of them.
        assert_eq!(states(61), (vec![State::Expired, State::Expired], 1));
    }

    #[test]
    fn a_link_breaks_when_what_is_shown_over_it_ends_although_another_entry_goes_on() {
        let old = ending("a.example", 10).self_signed().certificate();
        let mut tokyo = bundle("tokyo");
        tokyo.pinned = vec![
            old.clone(),
            ending("a.example", 300).self_signed().certificate(),
        ];
        let shown = [chain(&old, Vec::new())];
        let breaks =
            |days| forecast(std::slice::from_ref(&tokyo), &shown, &[], in_days(days)).breaks;
        assert_eq!(breaks(9), []);
        let [one] = breaks(11).try_into().unwrap();
        assert_eq!((one.at, one.is_ours), (after(old.not_after()), false));
        assert_eq!(one.certificate, old);
    }

    #[test]
    fn a_link_breaks_when_an_issuer_ends_before_the_leaf() {
        let anchor = Authority::new("CA");
        let leaf = ending("a.example", 300).signed_by(&anchor).certificate();
        let mut tokyo = bundle("tokyo");
        tokyo.anchors.push(anchor.certificate());
        tokyo.node_names.push("a.example".to_owned());
        let end = anchor.certificate().not_after();
        let shown = [chain(&leaf, Vec::new())];
        let day_after = end.plus(Duration::from_secs(86_400));
        let breaks = |at| forecast(std::slice::from_ref(&tokyo), &shown, &[], at).breaks;
        if end < leaf.not_after() {
            let [one] = breaks(day_after).try_into().unwrap();
            assert_eq!(one.at, after(end));
            assert!(one.text.contains("an issuer"), "{}", one.text);
        }
        assert_eq!(breaks(in_days(1)), []);
        let [last] = breaks(in_days(20_000)).try_into().unwrap();
        assert_eq!(last.at, after(end.min(leaf.not_after())));
    }

    #[test]
    fn what_is_refused_for_another_reason_or_has_not_begun_is_no_break() {
        let later = Spec::new("a.example")
            .valid_days(5, 50)
            .self_signed()
            .certificate();
        let stranger = ending("b.example", 10).self_signed().certificate();
        let mut tokyo = bundle("tokyo");
        tokyo.pinned.push(later.clone());
        let shown = [chain(&later, Vec::new()), chain(&stranger, Vec::new())];
        let told = forecast(&[tokyo], &shown, &[], in_days(20));
        assert_eq!(told.breaks, []);
    }

    #[test]
    fn our_own_end_breaks_every_link_and_that_for_phones_none() {
        let us = ClusterId::new("berlin").unwrap();
        let ours = ending("us.example", 10).self_signed().certificate();
        let own: Vec<_> = ["federation", "phone"]
            .into_iter()
            .flat_map(|purpose| expiry::own(&us, purpose, std::slice::from_ref(&ours)))
            .collect();
        let with_pin = |id: &str| {
            let mut bundle = bundle(id);
            let spec = ending(&format!("{id}.example"), 300);
            bundle.pinned.push(spec.self_signed().certificate());
            bundle
        };
        let bundles = [with_pin("tokyo"), with_pin("lima")];
        let told = |days| forecast(&bundles, &[], &own, in_days(days)).breaks;
        assert_eq!(told(9), []);
        let broken: Vec<_> = told(11)
            .into_iter()
            .map(|b| (b.cluster.to_string(), b.is_ours, b.at))
            .collect();
        let at = after(ours.not_after());
        assert_eq!(
            broken,
            [
                ("tokyo".to_owned(), true, at),
                ("lima".to_owned(), true, at)
            ]
        );
    }
}
