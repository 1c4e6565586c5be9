//! One identity of ours, three peers (the last has no `trust-announce`), and what can befall them.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
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
}

impl Peer {
    /// As the receiving side does: the whole set replaces what it had, once, in the order of the sequences.
    fn hear(&mut self, (sequence, set): &Request) -> Option<(u64, Outcome)> {
        if *sequence < self.sequence {
            return Some((self.sequence, Outcome::Refused));
        }
        let goes: Vec<_> = self.pinned.difference(set).copied().collect();
        if *sequence > self.sequence {
            if goes.iter().any(|gone| self.out == Some(*gone)) {
                // The call itself rests on it.
                return Some((*sequence, Outcome::Refused));
            }
            self.sequence = *sequence;
            self.pinned.clone_from(set);
        }
        self.take_up();
        let behind = self.nodes.iter().any(|(_, lags)| *lags);
        (!behind).then_some((*sequence, Outcome::Loaded))
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

#[derive(Debug)]
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
            ],
            made: 0,
            generation: 0,
            automatic,
            restored: false,
            was_restored: false,
            now: 0,
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
        let told = self.peers.iter().map(|peer| Told {
            cluster: peer.id.clone(),
            progress: self
                .store
                .progress
                .get(&peer.id)
                .cloned()
                .unwrap_or_default(),
        });
        told.collect()
    }

    fn keep(&mut self, told: Vec<Told>) {
        self.store.progress = told.into_iter().map(|t| (t.cluster, t.progress)).collect();
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
        }
    }

    fn linked(&self, rotation: &Rotation) -> Vec<Linked> {
        let up = self.peers.iter().filter(|p| p.up);
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
                    let before = (it.pinned.clone(), it.sequence);
                    it.hear(&request);
                    assert_eq!(
                        before,
                        (it.pinned.clone(), it.sequence),
                        "a repeat changed something"
                    );
                }
            }
            Op::Drain => (0..3).for_each(|peer| self.dial(peer)),
            Op::Confirm => self.confirm(),
        }
    }

    /// New connections each way, if both sides take what they are shown.
    fn dial(&mut self, peer: usize) {
        let (out, inward) = (self.shown_to(&self.peers[peer]), self.shown);
        let it = &mut self.peers[peer];
        if it.up {
            it.out = it.knows(out).then_some(out);
            it.inward = it.knows(inward).then_some(inward);
        }
    }

    fn crash(&mut self) {
        let rotation = self.store.rotation.clone();
        let wanted = rotation.as_ref().and_then(Rotation::shows);
        let there = wanted.filter(|f| self.disk.contains(f));
        self.shown = there.unwrap_or(self.configured);
        self.shown_old = match &rotation {
            Some(rotation) if there.is_some() => still_old(rotation, &self.told()),
            _ => Vec::new(),
        };
        (0..3).for_each(|peer| self.dial(peer));
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
        if !gates::may_roll_back(rotation, false).is_empty() {
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
        let (told, local) = (self.told(), self.local(&rotation));
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
            Step::Lost(lost) => {
                let sequence = self.sequence();
                if !self.store.rotation.as_mut().unwrap().lost(lost, sequence) {
                    self.store.rotation = None;
                }
            }
            Step::Show {
                certificate,
                old_for,
            } => (self.shown, self.shown_old) = (certificate, old_for),
            Step::Report => {
                let rotation = self.store.rotation.as_mut().unwrap();
                (rotation.shown, rotation.in_use) = (local.shown, Some(local.in_use));
            }
            Step::Tell(cluster) => self.tell(&rotation, &cluster),
            Step::Note(link) => {
                let progress = self.store.progress.entry(link.cluster.clone()).or_default();
                progress.note(&link);
            }
            Step::Settle => {
                let keep = rotation.shows().unwrap();
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
        let peer = self.peers.iter_mut().find(|p| p.id == *cluster).unwrap();
        assert!(peer.capable && (shown_new || rotation.settled));
        peer.heard.push(request.clone());
        let answer = peer.hear(&request);
        if std::mem::take(&mut peer.loses) {
            return;
        }
        let Some((sequence, outcome)) = answer else {
            return;
        };
        if sequence > rotation.sequence {
            // It has heard of a later one than the store knows.
            self.store.counter = self.store.counter.max(sequence);
            let next = self.sequence();
            self.store.rotation.as_mut().unwrap().sequence = next;
            return;
        }
        let progress = self.store.progress.entry(cluster.clone()).or_default();
        progress.answered(sequence, outcome, "");
    }

    /// Whoever was not given up is shown only what every node of it has in force; and who was is called with such.
    pub(super) fn check(&self, after: &Op) {
        for peer in &self.peers {
            let progress = self
                .store
                .progress
                .get(&peer.id)
                .cloned()
                .unwrap_or_default();
            let called = self.shown_to(peer);
            assert!(
                peer.knows(called),
                "{} is called with what it does not know, after {after:?}: {self:?}",
                peer.id
            );
            if progress.word != Some(Word::Overridden) {
                assert!(
                    peer.knows(self.shown),
                    "{} is shown what it does not know, after {after:?}: {self:?}",
                    peer.id
                );
            }
        }
        assert!(self.disk.contains(&self.shown) && self.disk.contains(&self.configured));
    }

    /// Everybody comes back, and the operator goes on.
    pub(super) fn come_to_rest(&mut self) {
        for round in 0..200 {
            for peer in 0..3 {
                self.run(&Op::CatchUp(peer));
                self.run(&Op::Up(peer));
                self.peers[peer].loses = false;
            }
            self.run(&Op::Confirm);
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
        for peer in self.peers.iter().filter(|p| p.capable && p.sequence > 0) {
            assert_eq!(peer.pinned, one, "{self:?}");
            assert!(peer.nodes.iter().all(|(loaded, _)| *loaded == one));
        }
        assert!(self.peers.iter().all(|p| p.knows(self.shown)), "{self:?}");
    }
}
