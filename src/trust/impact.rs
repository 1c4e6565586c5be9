//! What a change of trust does to connections that live. Pure.
//!
//! Only what a connection has shown is known, by its fingerprints; where an authority was what let it in and some
//! authority stays, whether that one vouches too is found out when the connection is judged again.

use crate::{
    clock::Timestamp,
    trust::{
        bundle::Bundle,
        certificate::{Certificate, Fingerprint},
    },
};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing accepts it any more.
    Ends,
    /// It goes on; until then at the longest, where that is known.
    GoesOn(Option<Timestamp>),
    /// It goes on only if an authority that stays vouches for it.
    MayEnd,
}

/// The fate of a connection that has shown these certificates, the leaf first, when `after` takes the place of
/// `before`.
#[must_use]
pub fn fate(shown: &[Fingerprint], before: &Bundle, after: &Bundle) -> Fate {
    let Some(leaf) = shown.first() else {
        return Fate::Ends;
    };
    let pinned = |bundle: &Bundle| find(&bundle.pinned, leaf).map(Certificate::not_after);
    if let Some(until) = pinned(after) {
        return Fate::GoesOn(Some(until));
    }
    if after.anchors.is_empty() || after.revoked.contains(leaf) {
        return Fate::Ends;
    }
    let stays = |anchor: &Certificate| find(&after.anchors, &anchor.fingerprint()).is_some();
    if pinned(before).is_none() && before.anchors.iter().all(stays) {
        return Fate::GoesOn(None);
    }
    Fate::MayEnd
}

/// How many entries of a bundle are good now, and until when the last of them is.
#[must_use]
pub fn left(bundle: &Bundle, now: Timestamp) -> (usize, Option<Timestamp>) {
    let all = bundle.pinned.iter().chain(&bundle.anchors);
    let good = all.filter(|certificate| now <= certificate.not_after());
    good.fold((0, None), |(count, until), certificate| {
        (count + 1, until.max(Some(certificate.not_after())))
    })
}

fn find<'a>(all: &'a [Certificate], wanted: &Fingerprint) -> Option<&'a Certificate> {
    all.iter()
        .find(|certificate| certificate.fingerprint() == *wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::{Authority, Spec, anchored, bundle, pinned};

    #[test]
    fn a_connection_ends_with_what_it_rests_on() {
        let (old, new) = (
            Spec::new("o.example").self_signed(),
            Spec::new("n.example").self_signed(),
        );
        let shown = [old.certificate().fingerprint()];
        let before = pinned("tokyo", &old);
        let both = Bundle {
            pinned: vec![old.certificate(), new.certificate()],
            ..before.clone()
        };
        let until = Fate::GoesOn(Some(old.certificate().not_after()));
        assert_eq!(fate(&shown, &before, &both), until);
        assert_eq!(fate(&shown, &before, &pinned("tokyo", &new)), Fate::Ends);
        assert_eq!(fate(&shown, &before, &bundle("tokyo")), Fate::Ends);
        assert_eq!(fate(&[], &before, &both), Fate::Ends);

        let (authority, other) = (Authority::new("One"), Authority::new("Two"));
        let by_anchor = anchored("tokyo", &authority, &["o.example"]);
        let more = Bundle {
            anchors: vec![authority.certificate(), other.certificate()],
            ..by_anchor.clone()
        };
        let revoked = Bundle {
            revoked: shown.to_vec(),
            ..more.clone()
        };
        assert_eq!(fate(&shown, &by_anchor, &more), Fate::GoesOn(None));
        assert_eq!(fate(&shown, &more, &by_anchor), Fate::MayEnd);
        assert_eq!(fate(&shown, &before, &by_anchor), Fate::MayEnd);
        assert_eq!(fate(&shown, &by_anchor, &revoked), Fate::Ends);
    }

    #[test]
    fn what_is_left_counts_only_while_it_is_good() {
        let good = Spec::new("a.example").self_signed();
        let over = Spec::new("b.example").valid_days(-9, -1).self_signed();
        let both = Bundle {
            pinned: vec![good.certificate(), over.certificate()],
            ..bundle("tokyo")
        };
        let until = good.certificate().not_after();
        let now = crate::clock::Clock::system().now();
        assert_eq!(left(&both, now), (1, Some(until)));
        assert_eq!(left(&bundle("tokyo"), now), (0, None));
    }
}
