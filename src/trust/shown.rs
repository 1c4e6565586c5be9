//! The certificates that peers have shown of late and that were accepted: what an authority vouches for is listed
//! nowhere else. In memory, and bounded. The time is handed in: a clock that is set makes nothing old.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls_pki_types::CertificateDer;

use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        bundle::{Bundle, Direction},
        certificate::Certificate,
        in_use::InUse,
        judge::judge_for,
    },
    watch,
};

/// More nodes than a peer has, with room for certificates that it has replaced.
const MAX_PER_PEER: usize = 16;

/// More issuers than a chain has that is accepted.
const MAX_ISSUERS: usize = 6;

/// How long a chain is remembered that no connection rests on: its node may have gone, or shows another one now.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// What a peer has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Which peer.
    pub cluster: ClusterId,
    /// Its certificate.
    pub leaf: Certificate,
    /// What it sent along.
    pub issuers: Vec<Certificate>,
}

/// The chains of late. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Shown(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// That were shown last, last.
    chains: Mutex<VecDeque<Seen>>,
    changes: watch::Sender<()>,
}

/// A chain, and when it was shown or rested upon last.
#[derive(Debug)]
struct Seen {
    chain: Chain,
    at: Instant,
}

impl Default for Shown {
    fn default() -> Self {
        Self(Arc::new(Inner {
            chains: Mutex::default(),
            changes: watch::Sender::new(()),
        }))
    }
}

impl Shown {
    /// All of them, without those that nobody has shown for a day and no connection rests on.
    #[must_use]
    pub(super) fn list(&self, in_use: &InUse, now: Instant) -> Vec<Chain> {
        let live = in_use.all();
        let mut chains = self.0.chains.lock().unwrap_or_else(PoisonError::into_inner);
        for seen in chains.iter_mut() {
            let leaf = seen.chain.leaf.fingerprint();
            let rests = live.iter().any(|entry| {
                entry.cluster == seen.chain.cluster && entry.shown.first() == Some(&leaf)
            });
            if rests {
                seen.at = now;
            }
        }
        chains.retain(|seen| now.saturating_duration_since(seen.at) < REMEMBERED);
        chains.iter().map(|seen| seen.chain.clone()).collect()
    }

    /// Tells of each one that is new.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Notes a chain that was accepted from `cluster`. One that takes the place of an older one (the same subject and
    /// names, and a later end) supersedes it.
    pub(super) fn note(&self, cluster: &ClusterId, chain: &[CertificateDer<'_>], now: Instant) {
        let Some((leaf, issuers)) = chain.split_first() else {
            return;
        };
        let mut chains = self.0.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |known: &Seen| known.chain.cluster == *cluster && known.chain.leaf.der() == leaf;
        if let Some(place) = chains.iter().position(is_it) {
            // What is shown again is not the first to make room.
            if let Some(mut known) = chains.remove(place) {
                known.at = now;
                chains.push_back(known);
            }
            return;
        }
        let Ok(leaf) = Certificate::from_der(leaf) else {
            return;
        };
        let issuers = issuers.iter().take(MAX_ISSUERS);
        let new = Chain {
            cluster: cluster.clone(),
            leaf,
            issuers: issuers
                .filter_map(|der| Certificate::from_der(der).ok())
                .collect(),
        };
        chains.retain(|known| !new.supersedes(&known.chain));
        let of_peer = |known: &Seen| known.chain.cluster == *cluster;
        if chains.iter().filter(|known| of_peer(known)).count() >= MAX_PER_PEER
            && let Some(oldest) = chains.iter().position(of_peer)
        {
            chains.remove(oldest);
        }
        chains.push_back(Seen {
            chain: new,
            at: now,
        });
        drop(chains);
        self.0.changes.send_replace(());
    }
}

impl Chain {
    /// Why a peer's bundle refuses it at `at` in both directions; which of them it was shown in does not matter here.
    pub(super) fn refused(&self, bundle: &Bundle, at: Timestamp) -> Option<Rejection> {
        let ders: Vec<_> = std::iter::once(&self.leaf)
            .chain(&self.issuers)
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

    fn supersedes(&self, other: &Self) -> bool {
        self.cluster == other.cluster
            && self.leaf.subject() == other.leaf.subject()
            && self.leaf.names() == other.leaf.names()
            && self.leaf.not_after() > other.leaf.not_after()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{
        fixtures::{Authority, Leaf, Spec},
        in_use::{Opened, Use},
    };

    fn id(text: &str) -> ClusterId {
        ClusterId::new(text).unwrap()
    }

    fn note(shown: &Shown, cluster: &str, leaf: &Leaf) {
        let chain = [leaf.certificate().der().clone()];
        shown.note(&id(cluster), &chain, Instant::now());
    }

    fn listed(shown: &Shown) -> Vec<Chain> {
        shown.list(&InUse::default(), Instant::now())
    }

    #[test]
    fn a_chain_is_noted_once_and_told_of() {
        let shown = Shown::default();
        let mut changes = shown.subscribe();
        let authority = Authority::new("CA");
        let leaf = Spec::new("a.example").signed_by(&authority);
        let chain = [
            leaf.certificate().der().clone(),
            authority.certificate().der().clone(),
        ];
        shown.note(&id("tokyo"), &chain, Instant::now());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        shown.note(&id("tokyo"), &chain, Instant::now());
        assert!(!changes.has_changed().unwrap());
        for odd in [&[][..], &[CertificateDer::from(vec![1, 2, 3])]] {
            shown.note(&id("tokyo"), odd, Instant::now());
        }
        let listed = listed(&shown);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].issuers, [authority.certificate()]);
    }

    #[test]
    fn a_renewed_certificate_takes_the_place_of_the_one_before_and_no_others() {
        let shown = Shown::default();
        let ending = |name: &str, days| Spec::new(name).valid_days(-1, days).self_signed();
        let (old, new) = (ending("a.example", 5), ending("a.example", 300));
        let other_node = ending("b.example", 5);
        note(&shown, "tokyo", &old);
        note(&shown, "tokyo", &other_node);
        note(&shown, "lima", &old);
        note(&shown, "tokyo", &new);
        let left: Vec<_> = listed(&shown)
            .into_iter()
            .map(|chain| (chain.cluster.to_string(), chain.leaf))
            .collect();
        let expected = [
            ("tokyo".to_owned(), other_node.certificate()),
            ("lima".to_owned(), old.certificate()),
            ("tokyo".to_owned(), new.certificate()),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_peer_that_shows_ever_others_fills_its_own_places_only() {
        let shown = Shown::default();
        note(&shown, "lima", &Spec::new("l.example").self_signed());
        let leaf = |number| Spec::new(&format!("n{number}.example")).self_signed();
        let first = leaf(0);
        note(&shown, "tokyo", &first);
        for number in 1..MAX_PER_PEER + 3 {
            note(&shown, "tokyo", &leaf(number));
            // It is shown all the time.
            note(&shown, "tokyo", &first);
        }
        let listed = listed(&shown);
        assert_eq!(listed.len(), MAX_PER_PEER + 1);
        assert_eq!(listed[0].cluster, id("lima"));
        assert_eq!(listed[1].leaf.subject(), "CN=n4.example");
        assert_eq!(listed.last().unwrap().leaf, first.certificate());
    }

    #[test]
    fn what_nobody_shows_for_a_day_is_forgotten_unless_a_connection_rests_on_it() {
        let (shown, in_use) = (Shown::default(), InUse::default());
        let (gone, there) = (
            Spec::new("gone.example").self_signed(),
            Spec::new("there.example").self_signed(),
        );
        note(&shown, "tokyo", &gone);
        note(&shown, "tokyo", &there);
        let guard = in_use.enter(Use {
            opened: Opened::ByUs,
            cluster: id("tokyo"),
            address: "192.0.2.1:8444".to_owned(),
            own: None,
            shown: vec![there.certificate().fingerprint()],
        });
        let later = |hours: u64| Instant::now() + Duration::from_secs(hours * 3_600);
        let left = |hours| {
            let chains = shown.list(&in_use, later(hours)).into_iter();
            chains.map(|chain| chain.leaf).collect::<Vec<_>>()
        };
        assert_eq!(left(23).len(), 2);
        assert_eq!(left(25), [there.certificate()]);
        // A day from when the connection was seen last, and not from the handshake.
        drop(guard);
        assert_eq!(left(48).len(), 1);
        assert_eq!(left(50), []);
    }
}
