//! What is accepted on a given day, and what breaks until then. Pure.
//!
//! A link breaks when the certificate that is shown over it, or an issuer it rests on, has ended, or when a strict
//! revocation list of its authority is stale: asked is the same judgement as in a handshake, at each moment where
//! something ends.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        bundle::Bundle,
        certificate::Certificate,
        crl::Crl,
        expiry::{Part, Watched},
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
        Self::between(certificate.not_before(), certificate.not_after(), at)
    }

    /// The same of what is valid from `begin` to `end`, both included.
    #[must_use]
    pub fn between(begin: Timestamp, end: Timestamp, at: Timestamp) -> Self {
        if at > end {
            Self::Expired
        } else if at < begin {
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
    let last = entries().max_by_key(|entry| end_of(bundle, entry));
    let last = last.filter(|last| end_of(bundle, last) < at);
    last.map(|last| Break {
        cluster: bundle.cluster.clone(),
        is_ours: false,
        certificate: last.clone(),
        at: after(end_of(bundle, last)),
        text: match list_of(bundle, last) {
            Some(list) if list.next_update() < last.not_after() => stale(bundle, list),
            _ => format!(
                "the last of what we accept from {} has ended",
                bundle.cluster
            ),
        },
    })
    .into_iter()
    .collect()
}

/// Until when an entry counts: to its own end, or that of a strict list of the authority that it is.
fn end_of(bundle: &Bundle, entry: &Certificate) -> Timestamp {
    let (list, end) = (list_of(bundle, entry), entry.not_after());
    list.map_or(end, |list| list.next_update().min(end))
}

/// The strict list of the authority that an entry is.
fn list_of<'a>(bundle: &'a Bundle, entry: &Certificate) -> Option<&'a Crl> {
    let is_its = |crl: &&Crl| crl.is_strict() && crl.issuer().key_hash() == entry.key_hash();
    bundle
        .crls
        .iter()
        .find(is_its)
        .filter(|_| bundle.anchors.contains(entry))
}

fn stale(bundle: &Bundle, list: &Crl) -> String {
    format!(
        "the strict revocation list number {} of {} is stale, and nothing of its authority is accepted from {}, unless a \
         newer list comes before",
        list.number(),
        list.issuer().subject(),
        bundle.cluster
    )
}

/// When one certificate of the peer is not accepted any more, if it isn't on that day.
fn of_chain(bundle: &Bundle, chain: &Chain, at: Timestamp) -> Option<Break> {
    chain.refused(bundle, at)?;
    let certificates = std::iter::once(&chain.leaf)
        .chain(&chain.issuers)
        .chain(&bundle.anchors);
    // The search of a path counts whole seconds, and our own looks at dates milliseconds.
    let ends = certificates
        .flat_map(|c| [after(c.not_after()), c.not_after().plus(SECOND)])
        .map(|end| (end, None));
    let strict = bundle.crls.iter().filter(|crl| crl.is_strict());
    let lists = strict.map(|crl| (after(crl.next_update()), Some(crl)));
    let mut moments: Vec<_> = ends.chain(lists).collect();
    moments.sort_by_key(|(moment, _)| *moment);
    let is_end = |(moment, list): &(Timestamp, Option<&Crl>)| {
        let why = chain.refused(bundle, *moment);
        *moment <= at
            && match list {
                None => why == Some(Rejection::Expired),
                // What was revoked is refused before that, too.
                Some(list) => {
                    why == Some(Rejection::Revoked)
                        && chain.refused(bundle, list.next_update()).is_none()
                }
            }
    };
    let (from, list) = moments.into_iter().find(is_end)?;
    let leaf = &chain.leaf;
    let is_leaf = from.since(leaf.not_after()) <= SECOND && from > leaf.not_after();
    let cluster = &bundle.cluster;
    Some(Break {
        cluster: cluster.clone(),
        is_ours: false,
        certificate: leaf.clone(),
        at: from,
        text: match list {
            Some(list) => stale(bundle, list),
            None if is_leaf => format!("we refuse this certificate of {cluster} as expired"),
            None => format!(
                "we refuse this certificate of {cluster} as expired: an issuer that it rests on has ended"
            ),
        },
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
    fn a_strict_list_that_is_stale_breaks_what_rests_on_its_authority() {
        let (anchor, other) = (Authority::new("CA"), Authority::new("Other"));
        let leaf = ending("a.example", 300).signed_by(&anchor).certificate();
        let mut tokyo = bundle("tokyo");
        tokyo.node_names.push("a.example".to_owned());
        tokyo.anchors = vec![anchor.certificate()];
        let list = |is_strict, revoked: &[&Certificate]| {
            let der = anchor.crl(1, revoked, 10);
            let read = crate::trust::crl::read(&der).unwrap().lists.remove(0);
            let cluster = ClusterId::new("tokyo").unwrap();
            let signed = read.signed(&cluster, &[anchor.certificate()], &[], is_strict);
            signed.unwrap()
        };
        let chains = [chain(&leaf, Vec::new())];
        let told = |tokyo: &Bundle, shown: &[Chain]| {
            forecast(std::slice::from_ref(tokyo), shown, &[], in_days(15)).breaks
        };
        let strict = list(true, &[]);
        for (lists, shown, breaks) in [
            (vec![strict.clone()], &chains[..], 1),
            (vec![strict.clone()], &[], 1),
            (vec![list(false, &[])], &chains, 0),
            (vec![list(false, &[])], &[], 0),
            // It is refused already.
            (vec![list(true, &[&leaf])], &chains, 0),
        ] {
            tokyo.crls = lists;
            let told = told(&tokyo, shown);
            assert_eq!(told.len(), breaks, "{told:?}");
            for one in told {
                assert_eq!(one.at, after(strict.next_update()));
                assert!(one.text.contains("strict revocation list"), "{}", one.text);
            }
        }
        // Another authority goes on, and so does a pin.
        tokyo.crls = vec![strict];
        let before = tokyo.clone();
        tokyo.anchors.push(other.certificate());
        assert_eq!(told(&tokyo, &[]), []);
        let mut tokyo = before;
        tokyo.pinned.push(leaf);
        assert_eq!(told(&tokyo, &chains), []);
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
