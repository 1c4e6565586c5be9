//! One identity of ours, three peers (the last has no `trust-announce`) and one that may become a fourth, and what can
//! befall them.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    announcement::Acceptance,
    ids::ClusterId,
    purpose::Purpose,
    rotation::{
        Fingerprint, Name, Outcome, Phase, Progress, Rotation, Told, Word,
        gates::{self, Named},
        steps::{self, Linked, Local, Step},
        still_old,
    },
};

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// This many steps of the node.
    Tick(usize),
    Announce,
    Activate {
        overriding: bool,
    },
    Retire,
    RollBack,
    /// The node is killed and started again.
    Crash,
    Down(usize),
    Up(usize),
    /// It comes back with what its store has.
    Restart(usize),
    /// A node of it takes up nothing for now.
    Lag(usize),
    CatchUp(usize),
    /// A new node of it, which starts with what its store has.
    NodeJoins(usize),
    /// Its next answer does not arrive.
    LoseAnswer(usize),
    /// It hears once more what it was told some time.
    Replay(usize, proptest::sample::Index),
    /// Old connections end, and new ones are made.
    Drain,
    /// The operator of the one that can't be told adds the certificate by hand, and ours says so.
    Confirm,
    /// It becomes a peer: it is given all that peers are told of, or what is shown.
    Join {
        all: bool,
    },
    /// Our operator removes it, and puts it back. It keeps what it has.
    Remove(usize),
    PutBack(usize),
    Disable(usize),
    Enable(usize),
    /// What it does with what it is told from now on.
    Takes(usize, Acceptance),
    /// Its operator agrees.
    Agree(usize),
    /// The validity of the old certificate ends.
    OldEnds,
    /// The clock was ahead, and is put right.
    ClockBack,
    /// The schedule is looked at.
    Calendar,
    /// A key is gone from the disk, the old one or the new one.
    LoseKey {
        old: bool,
    },
    /// It can't be read for now.
    Unreadable {
        old: bool,
    },
    Readable,
}

type Request = (u64, BTreeSet<Fingerprint>);

#[derive(Clone, Debug)]
struct Peer {
    id: ClusterId,
    up: bool,
    capable: bool,
    pinned: BTreeSet<Fingerprint>,
    sequence: u64,
    /// What each node of it has in force, and whether it is slow to take up more.
    nodes: Vec<(BTreeSet<Fingerprint>, bool)>,
    loses: bool,
    heard: Vec<Request>,
    /// Which certificate of ours the connections rest on: ours to it, its to us.
    out: Option<Fingerprint>,
    inward: Option<Fingerprint>,
    /// Whether it is on record here, and dialled.
    known: bool,
    enabled: bool,
    takes: Acceptance,
    waiting: BTreeSet<Fingerprint>,
    /// It was not there for some of it, or nothing could be done for it: only people can help then.
    missed: bool,
}

impl Peer {
    fn is_peer(&self) -> bool {
        self.known && self.enabled
    }

    /// As the receiving side does: the whole set replaces what it had, once, in the order of the sequences. The answer is
    /// the worst of what becomes of those that count.
    fn hear(&mut self, (sequence, set): &Request, count: &[Fingerprint]) -> Option<(u64, Outcome)> {
        if *sequence < self.sequence {
            return Some((self.sequence, Outcome::Refused));
        }
        // A repeat, too: what the operator there takes may have changed since.
        let mut next = self.pinned.clone();
        if self.takes == Acceptance::Auto {
            next.extend(set);
        }
        // Nothing goes while nothing is accepted in its place.
        if next.intersection(set).next().is_some() {
            next.retain(|f| set.contains(f));
        }
        if self.out.is_some_and(|out| !next.contains(&out)) {
            // The call itself rests on it.
            return Some((*sequence, Outcome::Refused));
        }
        self.sequence = *sequence;
        // Who takes no announcements lets nothing wait either.
        self.waiting = match self.takes {
            Acceptance::Off => BTreeSet::new(),
            _ => set.difference(&next).copied().collect(),
        };
        self.pinned = next;
        self.take_up();
        let behind = self.nodes.iter().any(|(_, lags)| *lags);
        let said = count.iter().map(|f| match self.pinned.contains(f) {
            true => Outcome::Loaded,
            false if self.waiting.contains(f) => Outcome::Waiting,
            false => Outcome::Refused,
        });
        let said = said.max().unwrap();
        (!behind).then_some((*sequence, said))
    }

    /// What people do where nothing else helps.
    fn by_hand(&mut self, shown: Fingerprint) {
        self.pinned.insert(shown);
        self.nodes.iter_mut().for_each(|(_, lags)| *lags = false);
        self.take_up();
    }

    fn take_up(&mut self) {
        for (loaded, lags) in &mut self.nodes {
            if !*lags {
                loaded.clone_from(&self.pinned);
            }
        }
    }

    fn knows(&self, shown: Fingerprint) -> bool {
        self.nodes.iter().all(|(loaded, _)| loaded.contains(&shown))
    }
}

/// What the store has.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    rotation: Option<Rotation>,
    progress: BTreeMap<ClusterId, Progress>,
    counter: u64,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    store: Saved,
    disk: BTreeSet<Fingerprint>,
    configured: Fingerprint,
    shown: Fingerprint,
    shown_old: Vec<ClusterId>,
    peers: Vec<Peer>,
    made: u8,
    generation: u8,
    automatic: bool,
    restored: bool,
    was_restored: bool,
    now: u64,
    turned: BTreeSet<ClusterId>,
    ended: BTreeSet<Fingerprint>,
    unreadable: BTreeSet<Fingerprint>,
    /// What is meant could not be shown at the start.
    fell_back: bool,
}

fn name() -> Name {
    Name {
        node: "n1".to_owned(),
        purpose: Purpose::Federation,
    }
}

impl World {
    pub(super) fn new(automatic: bool) -> Self {
        let first = [0; 32];
        let peer = |id: &str, capable| Peer {
            id: ClusterId::new(id).unwrap(),
            up: true,
            capable,
            pinned: BTreeSet::from([first]),
            sequence: 0,
            nodes: vec![(BTreeSet::from([first]), false); 2],
            loses: false,
            heard: Vec::new(),
            out: Some(first),
            inward: Some(first),
            known: true,
            enabled: true,
            takes: Acceptance::Auto,
            waiting: BTreeSet::new(),
            missed: false,
        };
        let stranger = Peer {
            known: false,
            pinned: BTreeSet::new(),
            nodes: vec![(BTreeSet::new(), false)],
            out: None,
            inward: None,
            ..peer("oslo", true)
        };
        Self {
            store: Saved {
                rotation: None,
                progress: BTreeMap::new(),
                counter: 0,
            },
            disk: BTreeSet::from([first]),
            configured: first,
            shown: first,
            shown_old: Vec::new(),
            peers: vec![
                peer("berlin", true),
                peer("lima", true),
                peer("tokyo", false),
                stranger,
            ],
            made: 0,
            generation: 0,
            automatic,
            restored: false,
            was_restored: false,
            now: 0,
            turned: BTreeSet::new(),
            ended: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            fell_back: false,
        }
    }

    pub(super) fn saved(&self) -> Saved {
        self.store.clone()
    }

    pub(super) fn restore(&mut self, saved: Saved) {
        self.store = saved;
        (self.restored, self.was_restored) = (true, true);
        self.crash();
    }

    pub(super) fn is_steady(&self) -> bool {
        self.store.rotation.is_none()
    }

    fn told(&self) -> Vec<Told> {
        let rotation = self.store.rotation.as_ref();
        let new = Progress {
            newcomer: rotation.is_some_and(|r| r.phase == Phase::Active),
            ..Progress::default()
        };
        let peers = self.peers.iter().filter(|peer| peer.is_peer());
        let told = peers.map(|peer| Told {
            cluster: peer.id.clone(),
            progress: self
                .store
                .progress
                .get(&peer.id)
                .cloned()
                .unwrap_or_else(|| new.clone()),
        });
        told.collect()
    }

    /// Whoever is on record when the new one comes to be shown is no newcomer.
    fn meet(&mut self) {
        for peer in self.peers.iter().filter(|peer| peer.known) {
            self.store.progress.entry(peer.id.clone()).or_default();
        }
    }

    fn progress(&mut self, cluster: &ClusterId) -> &mut Progress {
        let told = self.told().into_iter().find(|t| t.cluster == *cluster);
        let known = told.unwrap().progress;
        self.store.progress.entry(cluster.clone()).or_insert(known)
    }

    fn keep(&mut self, told: Vec<Told>) {
        let told = told.into_iter().filter(|t| t.progress.word.is_some());
        self.store
            .progress
            .extend(told.map(|t| (t.cluster, t.progress)));
    }

    fn sequence(&mut self) -> u64 {
        // By the clock, so that a store from before does not use a number twice.
        self.now += 1;
        self.store.counter = (self.store.counter + 1).max(self.now);
        self.store.counter
    }

    fn shown_to(&self, peer: &Peer) -> Fingerprint {
        let old = self.store.rotation.as_ref().and_then(|r| r.old);
        match old {
            Some(old) if self.shown_old.contains(&peer.id) => old,
            _ => self.shown,
        }
    }

    fn old_ended(&self) -> bool {
        let rotation = self.store.rotation.as_ref();
        let old = rotation.and_then(|rotation| rotation.old);
        old.is_some_and(|old| self.ended.contains(&old))
    }

    fn local(&self, rotation: &Rotation) -> Local {
        let has = |which: Option<Fingerprint>| which.is_some_and(|f| self.disk.contains(&f));
        let rests = |peer: &&Peer| {
            rotation.leaves().is_some() && [peer.out, peer.inward].contains(&rotation.leaves())
        };
        Local {
            has_old: has(rotation.old),
            has_new: has(rotation.new),
            shown: Some(self.shown),
            shown_old: self.shown_old.clone(),
            in_use: self
                .peers
                .iter()
                .filter(rests)
                .map(|p| p.id.to_string())
                .collect(),
            old_ended: self.old_ended(),
            turned: self.turned.clone(),
            // In this world nobody puts anything in the configured files by hand.
            replaced_by: None,
        }
    }

    fn linked(&self, rotation: &Rotation) -> Vec<Linked> {
        let up = self.peers.iter().filter(|p| p.up && p.is_peer());
        let linked = up.map(|p| Linked {
            cluster: p.id.clone(),
            can_be_told: p.out.map(|_| p.capable),
            seen_out: p.out.is_some() && p.out == rotation.new,
            seen_in: p.inward.is_some() && p.inward == rotation.new,
        });
        linked.collect()
    }

    pub(super) fn run(&mut self, op: &Op) {
        match op {
            Op::Tick(steps) => (0..*steps).for_each(|_| self.step()),
            Op::Announce => self.announce(),
            Op::Activate { overriding } => self.activate(*overriding),
            Op::Retire => self.retire(),
            Op::RollBack => self.roll_back(),
            Op::Crash => self.crash(),
            Op::Down(peer) => {
                let peer = &mut self.peers[*peer];
                (peer.up, peer.out, peer.inward) = (false, None, None);
            }
            Op::Up(peer) => {
                self.peers[*peer].up = true;
                self.dial(*peer);
            }
            Op::Restart(peer) => {
                let it = &mut self.peers[*peer];
                it.nodes.iter_mut().for_each(|(_, lags)| *lags = false);
                it.take_up();
                (it.out, it.inward) = (None, None);
                self.dial(*peer);
            }
            Op::Lag(peer) => self.peers[*peer].nodes[0].1 = true,
            Op::CatchUp(peer) => {
                self.peers[*peer]
                    .nodes
                    .iter_mut()
                    .for_each(|(_, lags)| *lags = false);
                self.peers[*peer].take_up();
            }
            Op::NodeJoins(peer) => {
                let it = &mut self.peers[*peer];
                it.nodes.truncate(2);
                it.nodes.push((it.pinned.clone(), false));
            }
            Op::LoseAnswer(peer) => self.peers[*peer].loses = true,
            Op::Replay(peer, which) => {
                let it = &mut self.peers[*peer];
                if it.up && !it.heard.is_empty() {
                    let request = which.get(&it.heard).clone();
                    if request.0 > it.sequence {
                        // Then it is no repeat: the first time it was refused.
                        return;
                    }
                    let count: Vec<_> = request.1.iter().copied().collect();
                    // The first repeat may find that the operator takes more by now, or less.
                    it.hear(&request, &count);
                    let before = (it.pinned.clone(), it.sequence);
                    it.hear(&request, &count);
                    assert_eq!(
                        before,
                        (it.pinned.clone(), it.sequence),
                        "a repeat changed something"
                    );
                }
            }
            Op::Drain => (0..4).for_each(|peer| self.dial(peer)),
            Op::Confirm => self.confirm(),
            Op::Join { all } => self.join(*all),
            Op::Remove(peer) | Op::Disable(peer) => {
                let it = &mut self.peers[*peer];
                if it.known {
                    (it.out, it.inward, it.missed) = (None, None, true);
                    match op {
                        Op::Remove(_) => it.known = false,
                        _ => it.enabled = false,
                    }
                }
            }
            Op::PutBack(peer) | Op::Enable(peer) => {
                let it = &mut self.peers[*peer];
                if *peer < 3 || it.missed {
                    (it.known, it.enabled) = (true, true);
                }
                self.dial(*peer);
            }
            Op::Takes(peer, takes) => self.peers[*peer].takes = *takes,
            Op::Agree(peer) => {
                let it = &mut self.peers[*peer];
                let waiting = std::mem::take(&mut it.waiting);
                it.pinned.extend(waiting);
                it.take_up();
            }
            Op::OldEnds => {
                let rotation = self.store.rotation.as_ref();
                // What has no successor is a matter of people.
                let old = rotation.and_then(|r| r.new.and(r.old));
                let old = old.filter(|_| rotation.is_some_and(|r| self.has(r.new)));
                self.ended.extend(old);
                for peer in &mut self.peers {
                    peer.missed |= old.is_some();
                }
            }
            Op::ClockBack => self.ended.clear(),
            Op::Calendar => self.retire_at_the_end(),
            Op::LoseKey { old } => {
                if let Some((goes, stays)) = self.both(*old)
                    && self.disk.contains(&stays)
                    && !self.unreadable.contains(&stays)
                    && !self.ended.contains(&stays)
                {
                    self.disk.remove(&goes);
                    for peer in &mut self.peers {
                        peer.missed = true;
                    }
                }
            }
            Op::Unreadable { old } => {
                if let Some((which, other)) = self.both(*old)
                    && self.disk.contains(&which)
                    && self.disk.contains(&other)
                {
                    self.unreadable = BTreeSet::from([which]);
                }
            }
            Op::Readable => self.unreadable.clear(),
        }
    }

    fn has(&self, which: Option<Fingerprint>) -> bool {
        which.is_some_and(|f| self.disk.contains(&f))
    }

    /// The old and the new one of a rotation, or the other way round.
    fn both(&self, old_first: bool) -> Option<(Fingerprint, Fingerprint)> {
        let rotation = self.store.rotation.as_ref()?;
        let (old, new) = (rotation.old?, rotation.new?);
        Some(if old_first { (old, new) } else { (new, old) })
    }

    fn join(&mut self, all: bool) {
        let rotation = self.store.rotation.as_ref();
        let told = rotation.filter(|_| all).map(Rotation::certificates);
        // While the node has still to show what is meant, its operator may hand on what is shown.
        let is_late = rotation
            .and_then(Rotation::shows)
            .is_some_and(|meant| meant != self.shown);
        let it = &mut self.peers[3];
        if it.known || it.missed {
            return;
        }
        it.known = true;
        it.missed = is_late;
        it.pinned = told.unwrap_or_default().into_iter().collect();
        it.pinned.insert(self.shown);
        it.take_up();
        self.dial(3);
    }

    /// What the schedule does once the old one has ended.
    fn retire_at_the_end(&mut self) {
        let told = self.told();
        let Some(rotation) = self.store.rotation.clone() else {
            return;
        };
        if rotation.phase != Phase::Active || !self.old_ended() || Some(self.shown) != rotation.new
        {
            return;
        }
        let behind = gates::behind(&name(), &rotation, &told);
        if gates::may_retire_without(&name(), &rotation, &told, &behind).is_empty() {
            let sequence = self.sequence();
            self.store.rotation.as_mut().unwrap().retire(sequence);
        }
    }

    /// New connections each way, if both sides take what they are shown. A refusal is answered with the other certificate.
    fn dial(&mut self, peer: usize) {
        let (out, inward) = (self.shown_to(&self.peers[peer]), self.shown);
        // A refusal of what is shown for want of something better says nothing of what is on record.
        let is_as_meant = self.store.rotation.as_ref().is_some_and(|rotation| {
            rotation.phase == Phase::Active
                && rotation.new == Some(self.shown)
                && !self.old_ended()
                && still_old(rotation, &self.told(), &self.turned, false) == self.shown_old
        });
        let ended = self.ended.clone();
        let it = &mut self.peers[peer];
        if it.up && it.is_peer() {
            let takes = |shown| it.knows(shown) && !ended.contains(&shown);
            let (out, inward) = (takes(out).then_some(out), takes(inward).then_some(inward));
            (it.out, it.inward) = (out, inward);
            if out.is_none() && is_as_meant && !self.turned.remove(&it.id) {
                self.turned.insert(it.id.clone());
            }
        }
    }

    fn crash(&mut self) {
        let rotation = self.store.rotation.clone();
        let can_be = |f: &Fingerprint| {
            self.disk.contains(f) && !self.unreadable.contains(f) && !self.ended.contains(f)
        };
        let wanted = rotation.as_ref().and_then(Rotation::shows);
        let both = rotation.iter().flat_map(|r| [r.old, r.new]).flatten();
        let other = wanted.and_then(|_| both.into_iter().find(|f| can_be(f)));
        let there = wanted.filter(can_be);
        let has_old = rotation
            .as_ref()
            .and_then(|r| r.old)
            .is_some_and(|f| can_be(&f));
        self.fell_back = wanted.is_some() && (there.is_none() || !has_old);
        self.shown = there.or(other).unwrap_or(self.configured);
        self.turned.clear();
        self.shown_old = match &rotation {
            Some(rotation) if there.is_some() && has_old => {
                still_old(rotation, &self.told(), &BTreeSet::new(), self.old_ended())
            }
            _ => Vec::new(),
        };
        (0..4).for_each(|peer| self.dial(peer));
    }

    fn announce(&mut self) {
        if gates::may_announce(self.store.rotation.as_ref()).is_empty() {
            let last = self.store.rotation.take();
            self.store.rotation = Some(Rotation::requested(self.automatic, last.as_ref()));
            self.store.progress.clear();
        }
    }

    fn activate(&mut self, overriding: bool) {
        let mut told = self.told();
        let Some(rotation) = &mut self.store.rotation else {
            return;
        };
        let mut named = Named::default();
        if overriding {
            let all = gates::may_activate(rotation, &told, &named);
            for blocker in all {
                if let gates::Blocker::Peer { cluster, .. } = blocker {
                    named.overridden.insert(cluster);
                }
            }
        }
        if gates::may_activate(rotation, &told, &named).is_empty() {
            gates::keep_words(rotation, &mut told, &named);
            rotation.activate();
            self.keep(told);
            self.meet();
        }
    }

    fn retire(&mut self) {
        let told = self.told();
        let is_open = |r: &Rotation| gates::may_retire(&name(), r, &told).is_empty();
        if self.store.rotation.as_ref().is_some_and(is_open) {
            let sequence = self.sequence();
            self.store.rotation.as_mut().unwrap().retire(sequence);
        }
    }

    fn roll_back(&mut self) {
        let Some(rotation) = &self.store.rotation else {
            return;
        };
        if !gates::may_roll_back(rotation, &self.told(), self.old_ended()).is_empty() {
            return;
        }
        let sequence = self.sequence();
        if !self.store.rotation.as_mut().unwrap().roll_back(sequence) {
            self.store.rotation = None;
        }
    }

    fn confirm(&mut self) {
        let mut told = self.told();
        let Some(rotation) = &self.store.rotation else {
            return;
        };
        let named = Named {
            confirmed: BTreeSet::from([self.peers[2].id.clone()]),
            ..Named::default()
        };
        if gates::may_confirm(rotation, &told, &named).is_empty() {
            let both = rotation.certificates();
            self.peers[2].pinned.extend(both);
            self.peers[2]
                .nodes
                .iter_mut()
                .for_each(|(_, lags)| *lags = false);
            self.peers[2].take_up();
            gates::keep_words(rotation, &mut told, &named);
            self.keep(told);
        }
    }

    /// The first thing that is to be done, done.
    fn step(&mut self) {
        let Some(rotation) = self.store.rotation.clone() else {
            return;
        };
        if rotation.phase != Phase::Active || self.old_ended() {
            self.turned.clear();
        }
        let told = self.told();
        for link in self.linked(&rotation) {
            let it = told.iter().find(|told| told.cluster == link.cluster);
            if link.seen_in && it.unwrap().progress.is_called_with_new(&rotation) {
                self.turned.remove(&link.cluster);
            }
        }
        let local = self.local(&rotation);
        let all = steps::next(&rotation, &told, &self.linked(&rotation), &local);
        self.generation = self.generation.wrapping_add(1);
        if all.is_empty() {
            return;
        }
        // What several peers are told is told in any order.
        let which = if all.iter().all(|s| matches!(s, Step::Tell(_))) {
            usize::from(self.generation) % all.len()
        } else {
            0
        };
        match all[which].clone() {
            Step::Make => {
                self.made = self.made.wrapping_add(1);
                let new = [self.made; 32];
                self.disk.insert(new);
                let sequence = self.sequence();
                let old = self.shown;
                self.store
                    .rotation
                    .as_mut()
                    .unwrap()
                    .made(old, new, sequence);
            }
            Step::GiveUp(of) => panic!("nothing was configured by hand: {of:?}"),
            Step::Lost(lost) => {
                let sequence = self.sequence();
                if !self.store.rotation.as_mut().unwrap().lost(lost, sequence) {
                    self.store.rotation = None;
                }
            }
            Step::Show {
                certificate,
                old_for,
            } => {
                if !self.unreadable.contains(&certificate) && !self.ended.contains(&certificate) {
                    (self.shown, self.shown_old) = (certificate, old_for);
                    self.fell_back = false;
                }
            }
            Step::Report => {
                let rotation = self.store.rotation.as_mut().unwrap();
                (rotation.shown, rotation.in_use) = (local.shown, Some(local.in_use));
            }
            Step::Tell(cluster) => self.tell(&rotation, &cluster),
            Step::Note(link) => {
                self.progress(&link.cluster).note(&link);
            }
            Step::Ended => {
                let mut told = self.told();
                let behind = told.iter().filter(|p| !p.progress.accepts(&rotation));
                let named = Named {
                    overridden: behind.map(|p| p.cluster.clone()).collect(),
                    ..Named::default()
                };
                gates::keep_words(&rotation, &mut told, &named);
                self.keep(told);
                self.meet();
                assert!(self.store.rotation.as_mut().unwrap().ended());
            }
            Step::Settle => {
                let keep = rotation.shows().unwrap();
                if self.unreadable.contains(&keep) || !self.disk.contains(&keep) {
                    return;
                }
                self.configured = keep;
                if let Some(gone) = rotation.leaves() {
                    self.disk.remove(&gone);
                }
                self.store.rotation.as_mut().unwrap().settled = true;
            }
            Step::Activate => self.activate(false),
            Step::Retire => self.retire(),
            Step::Finish => self.store.rotation = None,
        }
        // Whoever comes after the first is not starved by one that can't be told.
        if matches!(all[which], Step::Retire) && all.len() == 1 {
            self.run(&Op::Drain);
        }
    }

    fn tell(&mut self, rotation: &Rotation, cluster: &ClusterId) {
        let request = (
            rotation.sequence,
            rotation.certificates().into_iter().collect(),
        );
        let shown_new = rotation.phase != Phase::RollingBack;
        let is_newcomer = self.progress(cluster).newcomer;
        let mut count = rotation.certificates();
        if !is_newcomer {
            count = count.split_off(count.len() - 1);
        }
        let peer = self.peers.iter_mut().find(|p| p.id == *cluster).unwrap();
        assert!(peer.capable && (shown_new || rotation.settled));
        peer.heard.push(request.clone());
        let answer = peer.hear(&request, &count);
        if std::mem::take(&mut peer.loses) {
            return;
        }
        let Some((sequence, mut outcome)) = answer else {
            return;
        };
        if sequence > rotation.sequence {
            // It has heard of a later one than the store knows.
            self.store.counter = self.store.counter.max(sequence);
            let next = self.sequence();
            self.store.rotation.as_mut().unwrap().sequence = next;
            return;
        }
        let has = |which: Option<Fingerprint>| which.is_some_and(|f| peer.pinned.contains(&f));
        if !shown_new && outcome == Outcome::Refused && has(rotation.old) && !has(rotation.new) {
            outcome = Outcome::Loaded;
        }
        if outcome == Outcome::Loaded {
            self.turned.remove(cluster);
        }
        self.progress(cluster).answered(sequence, outcome, "");
    }

    /// Whoever was not given up is shown only what every node of it has in force; and who was is called with such.
    pub(super) fn check(&self, after: &Op) {
        if self.fell_back {
            // There was nothing else to be shown.
            return;
        }
        for peer in self.peers.iter().filter(|peer| peer.is_peer()) {
            let progress = self.store.progress.get(&peer.id);
            let word = progress.and_then(|progress| progress.word);
            let called = self.shown_to(peer);
            if !peer.missed {
                assert!(
                    peer.knows(called),
                    "{} is called with what it does not know, after {after:?}: {self:?}",
                    peer.id
                );
            }
            if !peer.missed && word != Some(Word::Overridden) {
                assert!(
                    peer.knows(self.shown),
                    "{} is shown what it does not know, after {after:?}: {self:?}",
                    peer.id
                );
            }
        }
        assert!(self.disk.contains(&self.shown) || self.peers.iter().all(|p| p.missed));
        self.check_that_a_way_is_left(after);
    }

    /// Whoever knows one of the certificates that there are, and is there, is reached after a few dials, whatever has
    /// happened to it before.
    fn check_that_a_way_is_left(&self, after: &Op) {
        let is_active = |world: &Self| {
            let rotation = world.store.rotation.as_ref();
            rotation.is_some_and(|r| r.phase == Phase::Active)
        };
        let Some((old, new)) = self.both(true).filter(|_| is_active(self)) else {
            return;
        };
        let has_both = self.disk.contains(&old) && self.disk.contains(&new);
        if !has_both || self.ended.contains(&new) || !self.unreadable.is_empty() {
            return;
        }
        // One that has ended is no way any more, and stands in the way of none.
        let old = Some(old).filter(|old| !self.ended.contains(old));
        let is_there = |peer: &Peer| peer.is_peer() && peer.up && peer.missed;
        for (number, peer) in self.peers.iter().enumerate() {
            let knows_old = old.is_some_and(|old| peer.knows(old));
            if !is_there(peer) || !knows_old && !peer.knows(new) {
                continue;
            }
            let mut later = self.clone();
            for _ in 0..4 {
                later.run(&Op::Tick(4));
                later.dial(number);
            }
            assert!(
                later.peers[number].out.is_some() || !is_active(&later),
                "{} is not reached, after {after:?}: {self:?}",
                peer.id
            );
        }
    }

    /// Everybody comes back, and the operator goes on.
    pub(super) fn come_to_rest(&mut self) {
        for round in 0..200 {
            self.run(&Op::Readable);
            for peer in 0..4 {
                self.run(&Op::CatchUp(peer));
                self.run(&Op::PutBack(peer));
                self.run(&Op::Takes(peer, Acceptance::Auto));
                self.run(&Op::Agree(peer));
                self.run(&Op::Up(peer));
                self.peers[peer].loses = false;
                let shown = self.shown;
                // Those that were left out come back by themselves where there is a way; for the others people do it.
                if round > 100 && self.peers[peer].is_peer() && self.peers[peer].missed {
                    self.peers[peer].by_hand(shown);
                }
            }
            self.run(&Op::Confirm);
            self.run(&Op::Calendar);
            self.run(&Op::Tick(8));
            self.run(&Op::Drain);
            if !self.restored {
                self.check(&Op::Tick(8));
            }
            if round % 5 == 4 {
                self.run(&Op::Activate { overriding: false });
                self.run(&Op::Retire);
            }
        }
        if self.restored {
            // What peers have of a rotation that nobody remembers goes with the next one.
            self.restored = false;
            self.run(&Op::Announce);
            self.come_to_rest();
            return;
        }
        assert!(self.is_steady(), "it never ends: {self:?}");
        self.check_agreement();
    }

    pub(super) fn check_agreement(&self) {
        let one = BTreeSet::from([self.shown]);
        assert_eq!(self.configured, self.shown, "{self:?}");
        // What a store from before knows nothing of stays in the folder.
        assert!(self.was_restored || self.disk == one, "{self:?}");
        let told = |p: &&Peer| p.is_peer() && p.capable && p.sequence > 0 && !p.missed;
        for peer in self.peers.iter().filter(told) {
            assert_eq!(peer.pinned, one, "{self:?}");
            assert!(peer.nodes.iter().all(|(loaded, _)| *loaded == one));
        }
        let mut peers = self.peers.iter().filter(|p| p.is_peer());
        assert!(peers.all(|p| p.knows(self.shown)), "{self:?}");
    }
}
