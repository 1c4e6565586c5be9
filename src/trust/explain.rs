//! Why a chain is taken for a peer, or for nobody, step by step. Pure.
//!
//! The verdict is [`judge`](super::judge)'s own, and each step asks the functions that it is made of: an explanation
//! can't say otherwise than the door.

use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, public_key::PublicKey};

use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        bundle::{Bundle, Direction},
        certificate::{Certificate, fingerprint_text},
        judge::{Nearness, Verdict, allows, assess, assess_lists, assess_path, judge, judge_as},
        mend::mend,
        path::{Path, Presented, in_time},
    },
};

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Good,
    /// A fact that decides nothing.
    Noted,
    /// This is why it fails.
    Bad,
}

impl Mark {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Noted => "noted",
            Self::Bad => "bad",
        }
    }
}

/// One step of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// How it came out.
    pub mark: Mark,
    /// What was found.
    pub text: String,
    /// More of it, a line each.
    pub details: Vec<String>,
    /// The reason at the door that this leads to.
    pub rejection: Option<Rejection>,
}

impl Step {
    /// A step that came out as it should.
    pub fn good(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Mark::Good, text.into(), None)
    }

    /// A step that decides nothing.
    pub fn noted(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Mark::Noted, text.into(), None)
    }

    /// A step at which it fails, with the reason when it is one of the closed set.
    pub fn bad(name: &'static str, rejection: Option<Rejection>, text: impl Into<String>) -> Self {
        Self::new(name, Mark::Bad, text.into(), rejection)
    }

    fn new(name: &'static str, mark: Mark, text: String, rejection: Option<Rejection>) -> Self {
        Self {
            name,
            mark,
            text,
            details: Vec::new(),
            rejection,
        }
    }

    /// The same with more lines.
    #[must_use]
    pub fn with(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }
}

/// One line of questioning: an address, a file in one direction, the direction from a peer to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is about.
    pub title: String,
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// The command that mends it; none when there is nothing to mend.
    pub mend: Option<String>,
}

impl Part {
    /// A part of nothing yet.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            steps: Vec::new(),
            mend: None,
        }
    }

    /// Whether no step failed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.steps.iter().all(|step| step.mark != Mark::Bad)
    }

    /// The reason at the door, when that is what it fails for: of several the last step's, which is the verdict.
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        let bad = self.steps.iter().rev();
        bad.filter(|step| step.mark == Mark::Bad)
            .find_map(|step| step.rejection)
    }

    /// Goes on with a judgement on what was shown.
    pub fn judged(&mut self, explained: Explained) {
        self.steps.extend(explained.steps);
        if let Verdict::Rejected { mend, .. } = explained.verdict {
            self.mend = Some(mend);
        }
    }
}

/// A chain, and what it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Everything that we trust.
    pub bundles: &'a [Bundle],
    /// What was shown, the leaf first.
    pub chain: &'a [CertificateDer<'a>],
    /// In which role of TLS.
    pub direction: Direction,
    /// The peer that it must be of; none when any will do.
    pub wanted: Option<&'a ClusterId>,
    /// The present moment by this node's clock.
    pub now: Timestamp,
}

/// The steps to a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// In the order in which one would look.
    pub steps: Vec<Step>,
    /// Judge's own.
    pub verdict: Verdict,
}

impl Case<'_> {
    /// The verdict that the door would give.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.wanted {
            Some(wanted) => judge_as(self.bundles, wanted, self.chain, self.direction, self.now),
            None => judge(self.bundles, self.chain, self.direction, self.now),
        }
    }

    /// The verdict with the steps to it.
    #[must_use]
    pub fn explain(&self) -> Explained {
        let verdict = self.verdict();
        let mut steps = shown(self.chain);
        if let Some(mut presented) = Presented::new(self.chain) {
            let views = self.views(&mut presented);
            let about = self.concerned(&verdict, &views);
            let leaf = presented.leaf.clone();
            steps.push(self.entries(&verdict, &views));
            steps.extend(self.names(about, &views, &leaf));
            steps.push(self.usage(about, &leaf));
            steps.push(self.dates(&leaf));
            steps.extend(self.revocation(&verdict, &views, &leaf));
        }
        steps.push(last(&verdict));
        Explained { steps, verdict }
    }

    /// What each peer's entries say.
    fn views(&self, presented: &mut Presented) -> Vec<View> {
        let views = self.bundles.iter().enumerate().map(|(at, bundle)| {
            let outcome = assess(bundle, presented, self.direction, self.now).err();
            let nearness = outcome.as_ref().map(|objection| objection.nearness);
            let mut view = View {
                at,
                accepts: outcome.is_none(),
                unrelated: nearness == Some(Nearness::Unrelated),
                objection: outcome.map(|o| Against {
                    rejection: o.rejection,
                    expectation: o.expectation,
                    by_list: o.by_list.map(|by_list| by_list.found),
                }),
                vouching: Vec::new(),
                lines: Vec::new(),
            };
            if !view.unrelated || self.wanted == Some(&bundle.cluster) || self.bundles.len() == 1 {
                self.look_at(bundle, presented, &mut view);
            }
            view
        });
        views.collect()
    }

    /// Each entry of one peer, those that have to do with the leaf first.
    fn look_at(&self, bundle: &Bundle, presented: &mut Presented, view: &mut View) {
        let leaf = presented.leaf.clone();
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for pin in &bundle.pinned {
            let what = format!(
                "pinned {}, SHA-256 {}",
                pin.subject(),
                pin.fingerprint_text()
            );
            if *pin == leaf {
                near.push(format!("{what}: it is this certificate"));
            } else if pin.subject() == leaf.subject() {
                near.push(format!(
                    "{what}: another certificate under the same name, valid {} to {}",
                    pin.not_before(),
                    pin.not_after()
                ));
            } else {
                far.push(format!("{what}: another certificate"));
            }
        }
        for anchor in &bundle.anchors {
            let path = presented.path_to(anchor, self.direction, self.now);
            let assessed = assess_path(bundle, anchor, &leaf, path, self.direction)
                .and_then(|()| assess_lists(bundle, anchor, presented, self.now));
            let how = match assessed {
                Ok(()) => "the chain builds to it, and it carries a name that is set".to_owned(),
                Err(_) if path == Path::None => self.why_not(anchor),
                Err(objection) => {
                    let why = objection.by_list.map(|by_list| by_list.found);
                    let why = why.unwrap_or(objection.expectation);
                    format!("the chain builds to it, but: {why}")
                }
            };
            let line = format!(
                "anchor {}, SHA-256 {}: {how}",
                anchor.subject(),
                anchor.fingerprint_text()
            );
            if path == Path::None {
                far.push(line);
            } else {
                view.vouching.push(anchor.subject().to_owned());
                near.push(line);
            }
        }
        if bundle.pinned.is_empty() && bundle.anchors.is_empty() {
            near.push("nothing is trusted from this peer".to_owned());
        }
        near.append(&mut far);
        let more = near.len().saturating_sub(LINES);
        near.truncate(LINES);
        if more > 0 {
            near.push(format!("and {more} more that have nothing to do with it"));
        }
        view.lines = near;
    }

    /// Why the chain does not end at an anchor.
    fn why_not(&self, anchor: &Certificate) -> String {
        let all = readable(self.chain);
        let named = all.iter().any(|one| one.names_issuer(anchor));
        match all.last() {
            _ if named => "it is named as the issuer, but no signature is its: another authority under the same \
                           name, or a certificate of none between"
                .to_owned(),
            Some(end) if end.issuer() == end.subject() => {
                "the chain ends at a certificate that is its own issuer".to_owned()
            }
            Some(end) => format!(
                "the chain ends at the issuer {}; what leads from there to the anchor was not shown",
                end.issuer()
            ),
            None => "there is no chain".to_owned(),
        }
    }

    /// The peer whose settings the other steps go by.
    fn concerned(&self, verdict: &Verdict, views: &[View]) -> Option<&Bundle> {
        let wanted = verdict.peer().or(self.wanted);
        let by_name = || self.bundles.iter().find(|b| wanted == Some(&b.cluster));
        let nearest = || views.iter().find(|view| !view.unrelated);
        by_name().or_else(|| nearest().and_then(|view| self.bundles.get(view.at)))
    }

    fn entries(&self, verdict: &Verdict, views: &[View]) -> Step {
        let mut lines = Vec::new();
        for view in views {
            let Some(bundle) = self.bundles.get(view.at) else {
                continue;
            };
            let said = match &view.objection {
                None => "accepts it".to_owned(),
                Some(_) if view.unrelated => {
                    "nothing of it vouches for this certificate".to_owned()
                }
                Some(against) => format!("does not accept it: {}", against.rejection),
            };
            if !view.lines.is_empty() || !view.unrelated {
                lines.push(format!("{}: {said}", bundle.cluster));
                lines.extend(view.lines.iter().map(|line| format!("  {line}")));
            }
        }
        let silent = views.iter().filter(|v| v.unrelated && v.lines.is_empty());
        match silent.count() {
            0 => {}
            n => lines.push(format!(
                "{n} other peers: nothing of theirs vouches for this certificate"
            )),
        }
        let accepting: Vec<_> = views
            .iter()
            .filter(|view| view.accepts)
            .filter_map(|view| self.bundles.get(view.at))
            .map(|bundle| bundle.cluster.to_string())
            .collect();
        let step = match (verdict.rejection(), accepting.as_slice()) {
            (None, _) => Step::good(
                ENTRIES,
                format!("accepted by those of {}", accepting.join(", ")),
            ),
            (Some(why @ (Rejection::Ambiguous | Rejection::WrongCluster)), [_, ..]) => Step::bad(
                ENTRIES,
                Some(why),
                format!("accepted by those of {}", accepting.join(" and of ")),
            ),
            (Some(why), _) if self.bundles.is_empty() => {
                Step::bad(ENTRIES, Some(why), "no peer has a record here")
            }
            (Some(why), [_, ..]) => Step::bad(
                ENTRIES,
                Some(why),
                "what accepts it does not count for this peer",
            ),
            (Some(why), []) => Step::bad(ENTRIES, Some(why), "none accepts it"),
        };
        step.with(lines)
    }

    /// Names count only where an authority vouches.
    fn names(&self, about: Option<&Bundle>, views: &[View], leaf: &Certificate) -> Option<Step> {
        const NAME: &str = "names";
        let bundle = about?;
        let view = views
            .iter()
            .find(|view| self.bundles.get(view.at) == Some(bundle))?;
        if bundle.pinned.contains(leaf) {
            return Some(Step::noted(
                NAME,
                "it is pinned, so that its fingerprint decides and its names don't matter",
            ));
        }
        if view.vouching.is_empty() {
            return None;
        }
        let carried: Vec<_> = leaf.names().iter().map(ToString::to_string).collect();
        let carried = or_none(&carried);
        let set = or_none(&bundle.node_names);
        let cluster = &bundle.cluster;
        let text = format!("it carries {carried}; set for {cluster}: {set}");
        let is_named = bundle.node_names.iter().any(|wanted| leaf.is_for(wanted));
        Some(match is_named {
            true => Step::good(NAME, text),
            false if view.accepts => Step::noted(NAME, text),
            false => Step::bad(NAME, Some(Rejection::WrongName), text),
        })
    }

    fn usage(&self, about: Option<&Bundle>, leaf: &Certificate) -> Step {
        const NAME: &str = "usage";
        let stated = usage_text(leaf);
        if allows(leaf, self.direction) {
            return Step::good(NAME, stated);
        }
        match about.filter(|bundle| bundle.ignore_eku) {
            Some(bundle) => Step::noted(
                NAME,
                format!("{stated}; overlooked for {} (--ignore-eku)", bundle.cluster),
            ),
            None => Step::bad(NAME, Some(Rejection::WrongEku), stated),
        }
    }

    fn dates(&self, leaf: &Certificate) -> Step {
        let step = dates(leaf, self.now);
        let others = readable(self.chain.get(1..).unwrap_or_default());
        let late = others.iter().filter_map(|other| {
            let how = match in_time(other, self.now) {
                Path::Expired => "expired at",
                Path::NotYetValid => return Some(not_yet(other)),
                _ => return None,
            };
            Some(format!(
                "its issuer {} {how} {}",
                other.subject(),
                other.not_after()
            ))
        });
        step.with(late)
    }

    fn revocation(&self, verdict: &Verdict, views: &[View], leaf: &Certificate) -> Option<Step> {
        const NAME: &str = "revocation";
        let by_hand: Vec<_> = self
            .bundles
            .iter()
            .filter(|bundle| bundle.revoked.contains(&leaf.fingerprint()))
            .map(|bundle| bundle.cluster.as_str())
            .collect();
        if verdict.rejection() == Some(Rejection::Revoked) {
            let said_so = |view: &&View| view.objection.as_ref().is_some_and(|o| o.is_of(verdict));
            let decided = views.iter().find(said_so);
            let by_list = decided.and_then(|view| view.objection.as_ref()?.by_list.clone());
            let peer = decided.and_then(|view| self.bundles.get(view.at));
            let text = match (by_list, peer) {
                (Some(found), _) => found,
                (None, Some(peer)) => format!("it was revoked here for {}", peer.cluster),
                (None, None) => format!("it was revoked here for {}", by_hand.join(", ")),
            };
            return Some(Step::bad(NAME, Some(Rejection::Revoked), text));
        }
        let others = by_hand.join(", ");
        (!by_hand.is_empty()).then(|| {
            Step::noted(
                NAME,
                format!("revoked for {others}, which does not count here"),
            )
        })
    }
}

/// What one peer's entries say of a chain.
struct View {
    /// Which bundle.
    at: usize,
    accepts: bool,
    /// Nothing of this peer has to do with it.
    unrelated: bool,
    objection: Option<Against>,
    /// Subjects of the anchors that the chain builds to.
    vouching: Vec<String>,
    lines: Vec<String>,
}

/// Why one peer's entries don't accept a chain.
struct Against {
    rejection: Rejection,
    expectation: String,
    /// What a revocation list says.
    by_list: Option<String>,
}

impl Against {
    /// Whether it is this that the verdict rests on.
    fn is_of(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Peer(_) => false,
            Verdict::Rejected {
                rejection,
                expectation,
                ..
            } => (rejection, expectation) == (&self.rejection, &self.expectation),
        }
    }
}

const ENTRIES: &str = "entries";
/// The most entries of one peer that are told one by one.
const LINES: usize = 12;

/// Why a file of certificates is fit to be trusted, as far as the file itself tells: its structure, dates and usages.
#[must_use]
pub fn file(chain: &[CertificateDer<'_>], now: Timestamp) -> Part {
    let mut part = Part::new("the file itself");
    part.steps = shown(chain);
    let all = readable(chain);
    let Some((leaf, others)) = all.split_first() else {
        part.mend = Some("give a file with a certificate that can be read; emccd cert show FILE tells what is in it".to_owned());
        return part;
    };
    part.steps.push(whole(leaf, others, chain, now));
    part.steps.push(dates(leaf, now));
    for (direction, name) in [
        (Direction::Client, "as caller"),
        (Direction::Server, "as server"),
    ] {
        let text = usage_text(leaf);
        part.steps.push(if allows(leaf, direction) {
            Step::good(name, text)
        } else {
            Step::noted(
                name,
                format!("{text}: it would be refused in this direction"),
            )
        });
    }
    let reason = part.rejection().map(|rejection| mend(rejection, None));
    part.mend = reason.or_else(|| (!part.holds()).then(|| MEND_CHAIN.to_owned()));
    part
}

/// What mends a chain that leads nowhere.
const MEND_CHAIN: &str = "get the issuers' certificates again from who signed the first one, each behind the one that it \
                          has signed (emccd cert show FILE tells what is there); to be pinned the first one alone is \
                          enough: emccd trust add CLUSTER --pin FILE";

/// Whether the certificates are one chain: a leaf, and nothing that is not the issuer of another of them. Else they are
/// several, each to be judged by itself.
#[must_use]
pub fn is_one_chain(certificates: &[Certificate]) -> bool {
    let Some((leaf, others)) = certificates.split_first() else {
        return false;
    };
    let (mut left, mut reached) = (others.iter().collect::<Vec<_>>(), vec![leaf]);
    while let Some(below) = reached.pop() {
        // What is its own issuer has none above it, though another one may have its name: the one that it is renewed by.
        let is_end = below.names_issuer(below);
        let (above, rest) = left
            .into_iter()
            .partition(|one| !is_end && below.names_issuer(one));
        left = rest;
        reached.extend::<Vec<_>>(above);
    }
    left.is_empty()
}

/// Whether each certificate is followed by the one that signed it.
fn whole(
    leaf: &Certificate,
    others: &[Certificate],
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Step {
    const NAME: &str = "chain";
    let mut end = leaf;
    let mut length = 1_usize;
    for next in others {
        if end.names_issuer(end) || !end.names_issuer(next) {
            break;
        }
        (end, length) = (next, length.saturating_add(1));
    }
    let apart = others.len().saturating_add(1).saturating_sub(length);
    if apart > 0 {
        let text = format!(
            "{apart} of the certificates do not belong to the chain of the first; a file to be pinned may hold \
             several, a chain is in the order leaf, issuer, its issuer"
        );
        return Step::noted(NAME, text);
    }
    let mut pairs = std::iter::once(leaf).chain(others).zip(others);
    if let Some((below, above)) = pairs.find(|(below, above)| !above.signed(below.der())) {
        let text = format!(
            "{} names {} as its issuer, but the signature is not that one's: it is of another key of the same name",
            below.subject(),
            above.subject()
        );
        return Step::bad(NAME, None, text);
    }
    let leads_there = length == 1
        || Presented::new(chain)
            .is_some_and(|mut p| p.path_to(end, Direction::Server, now) != Path::None);
    if !leads_there {
        let none = others.iter().filter(|above| !above.is_ca());
        let none: Vec<_> = none.map(|above| above.subject().to_owned()).collect();
        let text = match none.as_slice() {
            [] => "the signatures are right, but the constraints of a certificate between forbid what is below it"
                .to_owned(),
            some => format!(
                "the signatures are right, but what has signed is no authority (CA:FALSE): {}",
                some.join("; ")
            ),
        };
        return Step::bad(NAME, None, text);
    }
    if end.names_issuer(end) {
        return Step::good(
            NAME,
            "whole: it ends at a certificate that is its own issuer",
        );
    }
    Step::noted(
        NAME,
        format!(
            "it ends at the issuer {}, which is not in the file: enough to be pinned; under an anchor, that one is \
             needed",
            end.issuer()
        ),
    )
}

/// One step for each certificate.
fn shown(chain: &[CertificateDer<'_>]) -> Vec<Step> {
    if chain.is_empty() {
        let none = Some(Rejection::NoClientCertificate);
        return vec![Step::bad("certificate", none, "none was shown")];
    }
    let steps = chain.iter().take(SHOWN).enumerate().map(|(at, der)| {
        let name = if at == 0 {
            "certificate"
        } else {
            "sent with it"
        };
        match Certificate::from_der(der) {
            Ok(certificate) => described(name, &certificate),
            Err(error) if at == 0 => {
                Step::bad(name, Some(Rejection::UnknownIssuer), error.to_string())
            }
            Err(error) => Step::noted(name, error.to_string()),
        }
    });
    let mut steps: Vec<_> = steps.collect();
    if let Some(more) = chain.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        steps.push(Step::noted(
            "sent with it",
            format!("{more} more certificates"),
        ));
    }
    steps
}

/// The most certificates of a chain that are shown one by one.
const SHOWN: usize = 8;

fn described(name: &'static str, certificate: &Certificate) -> Step {
    let names: Vec<_> = certificate
        .names()
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut details = vec![
        format!("issuer {}", certificate.issuer()),
        format!("names {}", or_none(&names)),
        format!(
            "valid {} to {}",
            certificate.not_before(),
            certificate.not_after()
        ),
        format!("key {}", key_text(certificate)),
        format!("SHA-256 {}", fingerprint_text(&certificate.fingerprint())),
    ];
    if certificate.is_ca() {
        details.push("says that it is an authority (CA:TRUE)".to_owned());
    }
    Step::noted(name, certificate.subject()).with(details)
}

fn dates(leaf: &Certificate, now: Timestamp) -> Step {
    const NAME: &str = "dates";
    match in_time(leaf, now) {
        Path::Expired => Step::bad(
            NAME,
            Some(Rejection::Expired),
            format!("it expired at {}; it is {now} here", leaf.not_after()),
        ),
        Path::NotYetValid => Step::bad(
            NAME,
            Some(Rejection::NotYetValid),
            format!("{}; it is {now} here", not_yet(leaf)),
        ),
        _ => {
            let days = leaf.not_after().since(now).as_secs() / 86_400;
            Step::good(
                NAME,
                format!("valid until {}, {days} days from now", leaf.not_after()),
            )
        }
    }
}

fn not_yet(certificate: &Certificate) -> String {
    format!(
        "{} is valid only from {}",
        certificate.subject(),
        certificate.not_before()
    )
}

fn usage_text(leaf: &Certificate) -> String {
    match leaf.usages() {
        None => "no extended key usage is stated: good for both directions".to_owned(),
        Some(usages) => {
            let stated = [(usages.client, "clientAuth"), (usages.server, "serverAuth")];
            let stated = stated.into_iter().filter(|(on, _)| *on);
            let words: Vec<_> = stated.map(|(_, word)| word.to_owned()).collect();
            format!("extended key usage: {}", or_none(&words))
        }
    }
}

fn key_text(certificate: &Certificate) -> String {
    let Ok((_, x509)) = X509Certificate::from_der(certificate.der()) else {
        return "that can't be read".to_owned();
    };
    match x509.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("EC {}", point.key_size()),
        _ => format!("of the algorithm {}", x509.public_key().algorithm.algorithm),
    }
}

fn last(verdict: &Verdict) -> Step {
    const NAME: &str = "verdict";
    match verdict {
        Verdict::Peer(cluster) => Step::good(NAME, format!("it identifies {cluster}")),
        Verdict::Rejected {
            rejection,
            expectation,
            ..
        } => Step::bad(
            NAME,
            Some(*rejection),
            format!("{rejection}: {}", rejection.meaning()),
        )
        .with([format!("expected: {expectation}")]),
    }
}

fn readable(chain: &[CertificateDer<'_>]) -> Vec<Certificate> {
    let read = chain.iter().map(|der| Certificate::from_der(der));
    read.take(SHOWN).filter_map(Result::ok).collect()
}

fn or_none(words: &[String]) -> String {
    const MOST: usize = 12;
    match words.len() {
        0 => "none".to_owned(),
        n if n > MOST => {
            let first = words.get(..MOST).unwrap_or_default().join(" ");
            format!("{first} and {} more", n - MOST)
        }
        _ => words.join(" "),
    }
}

#[cfg(test)]
mod tests;
