//! A line in which everybody gets a turn: clusters take turns, and within each the networks that its phones call from
//! do. Pure.
//!
//! One source with a thousand waiting delays the first of another by one turn. Where the line is full, the newest of
//! whoever has most waiting makes room.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use crate::domain::ids::ClusterId;

/// On whose behalf something is done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Our own operators: an import, for example.
    Operators,
    /// Phones of our own cluster.
    Phones,
    /// Another cluster.
    Peer(ClusterId),
}

/// Whose turn it is: a party, and which of its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The first level of turns.
    pub party: Party,
    /// The second: the network that the phone calls from. What a peer says of that counts among its own only.
    pub network: Option<IpAddr>,
}

/// What waits, each with the number that it can be taken out by.
#[derive(Debug)]
pub struct Line<T> {
    parties: Ring<Party, Waiting<T>>,
    length: usize,
    next: u64,
}

/// What waits of one party.
#[derive(Debug)]
struct Waiting<T> {
    sources: Ring<Option<IpAddr>, VecDeque<(u64, T)>>,
    length: usize,
}

/// Some things, and whose turn is next. Those in `order` are exactly those in `of`, each once.
#[derive(Debug)]
struct Ring<K, V> {
    order: VecDeque<K>,
    of: BTreeMap<K, V>,
}

impl<K, V> Default for Ring<K, V> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            of: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, V> Ring<K, V> {
    /// What belongs to `key`; a new one has its turn after all others.
    fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.of.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        self.of.entry(key).or_insert_with(make)
    }

    fn forget(&mut self, key: &K) {
        self.of.remove(key);
        self.order.retain(|other| other != key);
    }

    /// How many of the others go before the item that `key` gets as number `turn` from 0, when each has as many as
    /// `length` says.
    fn before(&self, key: &K, turn: usize, length: impl Fn(&V) -> usize) -> usize {
        let mut passed = false;
        let mut before = 0;
        for other in &self.order {
            if other == key {
                passed = true;
                continue;
            }
            let turns = if passed { turn } else { turn + 1 };
            before += self.of.get(other).map_or(0, &length).min(turns);
        }
        before
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            parties: Ring::default(),
            length: 0,
            next: 0,
        }
    }
}

impl<T> Line<T> {
    /// How many wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nobody waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts one behind those of its source; the number is for [`Line::remove`].
    pub fn push(&mut self, source: &Source, item: T) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let waiting = self.parties.entry(source.party.clone(), || Waiting {
            sources: Ring::default(),
            length: 0,
        });
        waiting.length += 1;
        waiting
            .sources
            .entry(source.network, VecDeque::new)
            .push_back((number, item));
        self.length += 1;
        number
    }

    /// Takes out the one whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let party = self.parties.order.pop_front()?;
        let waiting = self.parties.of.get_mut(&party)?;
        let network = waiting.sources.order.pop_front()?;
        let own = waiting.sources.of.get_mut(&network)?;
        let (_, item) = own.pop_front()?;
        if own.is_empty() {
            waiting.sources.of.remove(&network);
        } else {
            waiting.sources.order.push_back(network);
        }
        waiting.length -= 1;
        if waiting.length == 0 {
            self.parties.of.remove(&party);
        } else {
            self.parties.order.push_back(party);
        }
        self.length -= 1;
        Some(item)
    }

    /// Takes one out before its turn, if it still waits.
    pub fn remove(&mut self, source: &Source, number: u64) -> Option<T> {
        let waiting = self.parties.of.get_mut(&source.party)?;
        let own = waiting.sources.of.get_mut(&source.network)?;
        let at = own.iter().position(|(other, _)| *other == number)?;
        let (_, item) = own.remove(at)?;
        self.shorten(source);
        Some(item)
    }

    /// One is gone from this source.
    fn shorten(&mut self, source: &Source) {
        self.length -= 1;
        let Some(waiting) = self.parties.of.get_mut(&source.party) else {
            return;
        };
        waiting.length -= 1;
        if waiting
            .sources
            .of
            .get(&source.network)
            .is_some_and(VecDeque::is_empty)
        {
            waiting.sources.forget(&source.network);
        }
        if waiting.length == 0 {
            self.parties.forget(&source.party);
        }
    }

    /// How many would be taken out before a newcomer of this source, if nobody came after it.
    #[must_use]
    pub fn ahead(&self, source: &Source) -> usize {
        let among_own = self.parties.of.get(&source.party).map_or(0, |waiting| {
            let own = waiting
                .sources
                .of
                .get(&source.network)
                .map_or(0, VecDeque::len);
            own + waiting.sources.before(&source.network, own, VecDeque::len)
        });
        let others = |waiting: &Waiting<T>| waiting.length;
        among_own + self.parties.before(&source.party, among_own, others)
    }

    /// Makes room for a newcomer of this source: takes out the newest of whoever has most waiting. None when that is
    /// the newcomer's own source, counting it. Operators' work is never taken out.
    pub fn shed(&mut self, newcomer: &Source) -> Option<T> {
        let count = |party: &Party| self.parties.of.get(party).map_or(0, |w| w.length);
        let longest = self
            .parties
            .order
            .iter()
            .filter(|party| **party != Party::Operators)
            .max_by_key(|party| count(party))?;
        let party = if count(longest) > count(&newcomer.party) + 1 {
            longest.clone()
        } else {
            newcomer.party.clone()
        };
        let sources = &self.parties.of.get(&party)?.sources;
        let length = |network: &Option<IpAddr>| sources.of.get(network).map_or(0, VecDeque::len);
        let network = *sources.order.iter().max_by_key(|network| length(network))?;
        // Within its own party the newcomer stands back where nobody has more.
        if party == newcomer.party && length(&network) <= length(&newcomer.network) + 1 {
            return None;
        }
        let source = Source { party, network };
        let waiting = self.parties.of.get_mut(&source.party)?;
        let (_, item) = waiting.sources.of.get_mut(&source.network)?.pop_back()?;
        self.shorten(&source);
        Some(item)
    }
}
