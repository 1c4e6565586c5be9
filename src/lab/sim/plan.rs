//! What shall happen in a simulated run: who does what when, and what breaks when.
//!
//! A plan is drawn up from a seed before anything runs, and is a value of its own: one that has found something is
//! kept as a file, so that it can be had again when plans of the same seed have long become others.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::net::Cut;
use crate::{chance::Chance, store::inline::Trouble};

/// How many clusters there are.
pub(crate) const CLUSTERS: u8 = 3;
/// How many nodes each has.
pub(crate) const NODES: [u8; CLUSTERS as usize] = [2, 1, 1];
/// Users of each cluster.
pub(crate) const USERS: u8 = 6;
/// Phones of each.
pub(crate) const PHONES: u8 = 5;
/// Base devices of each.
pub(crate) const BASES: u8 = 3;
/// Users and phones of each cluster that no plan knows: so many, behind the others.
pub(crate) const KEPT_OUT: u8 = CLUSTERS;
/// How long people are at work at most, in milliseconds.
const WORK_MS: u64 = 50_000;
/// How long things break, at least and at most.
const TROUBLED_MS: (u64, u64) = (15_000, 45_000);
/// The same where sessions have a limit: it is over for some of them while things are broken.
const TROUBLED_LIMITED_MS: u64 = 80_000;
/// And how long there is to settle afterwards: two heartbeats, the deadline of a login and 30 s, and a bit.
pub(crate) const SETTLED_MS: u64 = 45_000;

/// A cluster, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Cluster(pub(crate) u8);

/// A node: its cluster, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Node(pub(crate) u8, pub(crate) u8);

/// A user: its home, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct User(pub(crate) u8, pub(crate) u8);

/// A phone: its cluster, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Phone(pub(crate) u8, pub(crate) u8);

/// A base device: its cluster, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Base(pub(crate) u8, pub(crate) u8);

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["berlin", "tokyo", "lima"][usize::from(self.0)])
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", Cluster(self.0), self.1)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user{}-{}", self.1, Cluster(self.0))
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SEP0000000000{}{}", self.0, self.1)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EMCC{}{}", self.0, self.1)
    }
}

impl Cluster {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CLUSTERS).map(Self)
    }

    /// The cluster of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|cluster| cluster.to_string() == name)
    }

    /// Its nodes.
    pub(crate) fn nodes(self) -> impl Iterator<Item = Node> {
        (0..NODES[usize::from(self.0)]).map(move |n| Node(self.0, n))
    }
}

impl Node {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Cluster::all().flat_map(Cluster::nodes)
    }

    /// Its cluster.
    pub(crate) fn cluster(self) -> Cluster {
        Cluster(self.0)
    }

    /// Its place among all nodes.
    pub(crate) fn place(self) -> usize {
        Self::all().position(|node| node == self).unwrap()
    }

    /// Where it is.
    pub(crate) fn host(self) -> IpAddr {
        Ipv4Addr::new(10, 0, self.0 + 1, self.1 + 1).into()
    }

    /// Where it listens for peers.
    pub(crate) fn address(self) -> SocketAddr {
        SocketAddr::new(self.host(), 8_443)
    }
}

impl User {
    /// The user of that id.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all =
            Cluster::all().flat_map(|home| (0..USERS + KEPT_OUT).map(move |n| Self(home.0, n)));
        all.into_iter().find(|user| user.to_string() == name)
    }
}

impl Phone {
    /// The phone of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = Cluster::all().flat_map(|at| (0..PHONES + KEPT_OUT).map(move |n| Self(at.0, n)));
        all.into_iter().find(|phone| phone.to_string() == name)
    }
}

/// What a cluster does with a second login of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Second {
    /// Refuses it.
    NotAllowed,
    /// Ends the first.
    AutoLogout,
    /// Lets both stand.
    Allowed,
}

impl Second {
    /// The parameter's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not-allowed",
            Self::AutoLogout => "auto-logout",
            Self::Allowed => "allowed",
        }
    }
}

/// What holds for a whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// How long things break, in milliseconds.
    pub(crate) troubled_ms: u64,
    /// Whether each knows by their names whose users the others' are: where not, a user is let in only while all who
    /// may be home can be asked.
    #[serde(default)]
    pub(crate) patterns: bool,
    /// How long a session lasts, in minutes; none for ever.
    pub(crate) limit_minutes: Option<u64>,
    /// What each cluster does with second logins.
    pub(crate) second: [Second; CLUSTERS as usize],
    /// By how many milliseconds each node's wall clock is wrong.
    pub(crate) skew_ms: [i64; 4],
    /// The cluster that runs a version of before sessions were compared.
    pub(crate) old: Option<Cluster>,
    /// What a packet takes, in milliseconds.
    pub(crate) latency_ms: (u64, u64),
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What the net, the disks and the nodes draw their lots from.
    pub(crate) seed: u64,
    /// What holds throughout.
    pub(crate) settings: Settings,
    /// What happens, in the order of time.
    pub(crate) steps: Vec<Step>,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// When.
    pub(crate) at_ms: u64,
    /// What.
    pub(crate) what: What,
}

/// What happens. What breaks is mended by the same step: left out of a plan, it leaves nothing broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// Somebody types name and PIN on a phone, which asks that node of its cluster; and where that comes to nothing for
    /// no fault of theirs, again at once, so many times, on this phone and the next in turn.
    Login {
        phone: Phone,
        node: u8,
        user: User,
        right_pin: bool,
        #[serde(default)]
        patience: u8,
    },
    /// Somebody presses logout.
    Logout { phone: Phone, node: u8 },
    /// An operator of the phone's cluster ends what is on it.
    EndAtVisiting { phone: Phone, node: u8 },
    /// An operator of the user's cluster ends the user's sessions.
    EndAtHome { user: User, node: u8 },
    /// An operator disables a user, or enables them again.
    SetUser { user: User, enabled: bool },
    /// An operator removes a base device with the session that holds it, and adds it again later.
    RemoveBase { base: Base, for_ms: u64 },
    /// A cluster's operator removes a peer, and adds it again later; never, when there is no time.
    RemovePeer {
        at: Cluster,
        peer: Cluster,
        for_ms: Option<u64>,
    },
    /// A cluster's operator disables a peer for a time.
    DisablePeer {
        at: Cluster,
        peer: Cluster,
        for_ms: u64,
    },
    /// A cluster's operator takes back trust in what a peer shows, and accepts it again later; never, when there is no
    /// time. It is revoked, or only removed, as happens to an authority and to what an import replaces.
    RevokeTrust {
        at: Cluster,
        peer: Cluster,
        for_ms: Option<u64>,
        #[serde(default)]
        only_removed: bool,
    },
    /// The way between two nodes is cut, in one direction or both; or that between all nodes of their clusters.
    Cut {
        from: Node,
        to: Node,
        how: Cut,
        both: bool,
        #[serde(default)]
        whole: bool,
        for_ms: u64,
    },
    /// A node accepts no connections.
    Refuse { node: Node, for_ms: u64 },
    /// All connections between two nodes end.
    Kill { a: Node, b: Node },
    /// What a packet takes.
    Latency { most_ms: u64, for_ms: u64 },
    /// One call of so many comes twice, and one comes late.
    Mischief {
        repeat: u64,
        delay: u64,
        for_ms: u64,
    },
    /// A node is killed, and starts again.
    Crash { node: Node, for_ms: u64 },
    /// A node stands still.
    Pause { node: Node, for_ms: u64 },
    /// A node's wall clock jumps.
    Clock { node: Node, offset_ms: i64 },
    /// A cluster's disk does not do what it should.
    Disk {
        cluster: Cluster,
        trouble: Trouble,
        for_ms: u64,
    },
    /// A cluster's nodes are killed, its database becomes what it was some time ago, and they start again.
    Restore {
        cluster: Cluster,
        age_ms: u64,
        for_ms: u64,
    },
}

impl What {
    /// For how long it goes on; none for what is done at once, or never undone.
    pub(crate) fn length_ms(&self) -> Option<u64> {
        match self {
            Self::RemoveBase { for_ms, .. }
            | Self::DisablePeer { for_ms, .. }
            | Self::Cut { for_ms, .. }
            | Self::Refuse { for_ms, .. }
            | Self::Latency { for_ms, .. }
            | Self::Mischief { for_ms, .. }
            | Self::Crash { for_ms, .. }
            | Self::Pause { for_ms, .. }
            | Self::Disk { for_ms, .. }
            | Self::Restore { for_ms, .. } => Some(*for_ms),
            Self::RemovePeer { for_ms, .. } | Self::RevokeTrust { for_ms, .. } => *for_ms,
            Self::Login { .. }
            | Self::Logout { .. }
            | Self::EndAtVisiting { .. }
            | Self::EndAtHome { .. }
            | Self::SetUser { .. }
            | Self::Kill { .. }
            | Self::Clock { .. } => None,
        }
    }

    /// Whether nothing breaks by it.
    pub(crate) fn is_work(&self) -> bool {
        matches!(
            self,
            Self::Login { .. }
                | Self::Logout { .. }
                | Self::EndAtVisiting { .. }
                | Self::EndAtHome { .. }
                | Self::SetUser { .. }
                | Self::RemoveBase { .. }
                | Self::RemovePeer { .. }
                | Self::DisablePeer { .. }
                | Self::RevokeTrust { .. }
        )
    }
}

impl Plan {
    /// What follows from a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let draw = Draw(Chance::seeded(seed).fork("plan"));
        let settings = draw.settings();
        let mut steps = Vec::new();
        draw.work(&settings, &mut steps);
        if is_calm(seed) {
            draw.one_loss(&mut steps);
        } else {
            draw.ghosts(&settings, &mut steps);
            draw.faults(&settings, &mut steps);
        }
        steps.sort_by_key(|step| step.at_ms);
        Self {
            seed,
            settings,
            steps,
        }
    }

    /// As a file has it: a line for each step.
    pub(crate) fn to_json(&self) -> String {
        let settings = serde_json::to_string(&self.settings).unwrap();
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| format!("    {}", serde_json::to_string(step).unwrap()))
            .collect();
        format!(
            "{{\n  \"seed\": {},\n  \"settings\": {settings},\n  \"steps\": [\n{}\n  ]\n}}\n",
            self.seed,
            steps.join(",\n")
        )
    }

    /// Out of a file.
    pub(crate) fn from_json(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }

    /// When all is mended that this plan breaks, and all done that it wants done.
    pub(crate) fn healed_at_ms(&self) -> u64 {
        let ends = self.steps.iter().map(|step| {
            let length = step.what.length_ms().unwrap_or_default();
            step.at_ms + length
        });
        ends.max()
            .unwrap_or_default()
            .max(self.settings.troubled_ms)
    }

    /// Whether a run may end before its time, once all has come to rest: not where a session's time may be over yet, and
    /// not in each sixteenth run, so that what rest comes to is seen too, nor in a calm one.
    pub(crate) fn may_end_at_rest(&self) -> bool {
        let is_looked_at = self.seed.is_multiple_of(16) || is_calm(self.seed);
        self.settings.limit_minutes.is_none() && !is_looked_at
    }

    /// The parts of it that may be left out to find which matter: halves first, then ever less.
    #[cfg(test)]
    pub(crate) fn without(&self, from: usize, count: usize) -> Self {
        let mut less = self.clone();
        let to = (from + count).min(less.steps.len());
        less.steps.drain(from.min(to)..to);
        less
    }
}

/// Whether nothing breaks in the run of a seed, and somebody loses a right: what is due to them within a time is lost
/// from sight among troubles.
fn is_calm(seed: u64) -> bool {
    Chance::seeded(seed).fork("calm").one_in(16)
}

/// Draws up plans.
struct Draw(Chance);

impl Draw {
    fn below(&self, end: u8) -> u8 {
        u8::try_from(self.0.range(0..u64::from(end))).unwrap()
    }

    fn between(&self, least: u64, most: u64) -> u64 {
        self.0.range(least..most + 1)
    }

    fn one_in(&self, of: u64) -> bool {
        self.0.one_in(of)
    }

    fn cluster(&self) -> Cluster {
        Cluster(self.below(CLUSTERS))
    }

    fn other(&self, than: Cluster) -> Cluster {
        Cluster((than.0 + 1 + self.below(CLUSTERS - 1)) % CLUSTERS)
    }

    fn node(&self) -> Node {
        let all: Vec<_> = Node::all().collect();
        all[usize::from(self.below(u8::try_from(all.len()).unwrap()))]
    }

    /// A node of another cluster.
    fn node_away(&self, from: Node) -> Node {
        let cluster = self.other(from.cluster());
        Node(cluster.0, self.node_of(cluster))
    }

    fn node_of(&self, cluster: Cluster) -> u8 {
        self.below(NODES[usize::from(cluster.0)])
    }

    fn settings(&self) -> Settings {
        let second = || match self.below(4) {
            0 | 1 => Second::NotAllowed,
            2 => Second::AutoLogout,
            _ => Second::Allowed,
        };
        let is_skewed = self.one_in(3);
        let skew = || match is_skewed {
            true => i64::try_from(self.0.range(0..600_000)).unwrap() - 300_000,
            false => 0,
        };
        let most = [5, 20, 80][usize::from(self.below(3))];
        let limit_minutes = self.one_in(8).then_some(1);
        Settings {
            troubled_ms: match limit_minutes {
                Some(_) => TROUBLED_LIMITED_MS,
                None => self.between(TROUBLED_MS.0, TROUBLED_MS.1),
            },
            patterns: !self.one_in(4),
            limit_minutes,
            second: [second(), second(), second()],
            skew_ms: [skew(), skew(), skew(), skew()],
            old: self.one_in(5).then(|| self.cluster()),
            latency_ms: (1, most),
        }
    }

    /// Who does what. A few phones and users have most of it, so that they get into each other's way.
    fn work(&self, settings: &Settings, steps: &mut Vec<Step>) {
        let mut at = self.between(800, 2_500);
        while at < WORK_MS.min(settings.troubled_ms + 5_000) {
            steps.push(Step {
                at_ms: at,
                what: self.deed(),
            });
            // Some come right behind one another.
            at += match self.below(4) {
                0 => self.between(0, 60),
                _ => self.between(100, 1_900),
            };
        }
    }

    fn phone(&self) -> Phone {
        let n = self.below(PHONES).min(self.below(PHONES));
        Phone(self.cluster().0, n)
    }

    fn user(&self) -> User {
        let n = self.below(USERS).min(self.below(USERS));
        User(self.cluster().0, n)
    }

    fn deed(&self) -> What {
        let phone = self.phone();
        let node = self.node_of(Cluster(phone.0));
        match self.below(32) {
            0..=17 => What::Login {
                phone,
                node,
                user: self.user(),
                right_pin: !self.one_in(12),
                patience: if self.one_in(2) { 4 } else { 0 },
            },
            18..=25 => What::Logout { phone, node },
            26 | 27 => What::EndAtVisiting { phone, node },
            28 | 29 => {
                let user = self.user();
                let node = self.node_of(Cluster(user.0));
                What::EndAtHome { user, node }
            }
            30 => What::SetUser {
                user: self.user(),
                enabled: !self.one_in(3),
            },
            _ => What::RemoveBase {
                base: Base(self.cluster().0, self.below(BASES)),
                for_ms: self.between(500, 8_000),
            },
        }
    }

    /// Somebody whose answer is lost on its way back, so that there is a session of which no phone knows; they try again
    /// at once.
    fn ghosts(&self, settings: &Settings, steps: &mut Vec<Step>) {
        let last = settings.troubled_ms.min(WORK_MS) - 7_000;
        for _ in 0..self.below(3) {
            let (at_ms, user) = (self.between(3_000, last), self.user());
            let visiting = self.other(Cluster(user.0));
            let phone = Phone(visiting.0, self.below(PHONES));
            let node = self.node_of(visiting);
            let login = What::Login {
                phone,
                node,
                user,
                right_pin: true,
                patience: 6,
            };
            let cut = What::Cut {
                from: Node(user.0, 0),
                to: Node(visiting.0, node),
                how: self.how(),
                both: self.one_in(3),
                whole: true,
                for_ms: self.between(500, 6_000),
            };
            let later = at_ms + self.between(20, 300);
            for (at_ms, what) in [(at_ms, login), (later, cut)] {
                steps.push(Step { at_ms, what });
            }
        }
    }

    /// What breaks. Each run has some kinds of faults and not others: what only shows without the noise of the rest
    /// shows then.
    fn faults(&self, settings: &Settings, steps: &mut Vec<Step>) {
        let kinds: Vec<_> = (0..12u8).filter(|_| self.one_in(3)).collect();
        let count = if kinds.is_empty() {
            0
        } else {
            self.between(2, 14)
        };
        for _ in 0..count {
            let kind = kinds[usize::from(self.below(u8::try_from(kinds.len()).unwrap()))];
            let spot = self.spot(settings, steps);
            // Restoring an old state where nothing compares it leaves what it leaves.
            let what = match (kind, settings.old) {
                (11, Some(_)) => continue,
                _ => self.fault(kind, &spot),
            };
            steps.push(Step {
                at_ms: spot.at_ms,
                what,
            });
        }
    }

    /// A peer or a user loses a right, after some have begun to use it.
    fn one_loss(&self, steps: &mut Vec<Step>) {
        let (at, at_ms) = (self.cluster(), self.between(8_000, 14_000));
        let peer = self.other(at);
        let what = match self.below(4) {
            0 => What::RemovePeer {
                at,
                peer,
                for_ms: None,
            },
            1 => What::DisablePeer {
                at,
                peer,
                for_ms: 20_000,
            },
            2 => What::RevokeTrust {
                at,
                peer,
                for_ms: None,
                only_removed: self.one_in(2),
            },
            _ => What::SetUser {
                user: User(at.0, self.below(USERS)),
                enabled: false,
            },
        };
        steps.push(Step { at_ms, what });
        // Some of the others' users come before it, and some while it lasts.
        for n in 0..PHONES {
            let (phones, users) = if n % 2 == 0 { (at, peer) } else { (peer, at) };
            let early = self.one_in(2);
            let login = What::Login {
                phone: Phone(phones.0, n),
                node: self.node_of(phones),
                user: User(users.0, n),
                right_pin: true,
                patience: 0,
            };
            let at_ms = match early {
                true => at_ms - self.between(2_000, 6_000),
                false => at_ms + self.between(3_000, 15_000),
            };
            steps.push(Step { at_ms, what: login });
        }
    }

    /// Anywhere at any time; or right after a login, or where one comes to its end, at one of the two sides of it.
    fn spot(&self, settings: &Settings, steps: &[Step]) -> Spot {
        let troubled = settings.troubled_ms;
        let node = self.node();
        let mut spot = Spot {
            at_ms: self.between(1_000, troubled - 1_000),
            node,
            away: self.node_away(node),
            rest: 0,
        };
        let logins: Vec<_> = steps
            .iter()
            .filter_map(|step| match step.what {
                What::Login {
                    phone, node, user, ..
                } => Some((step.at_ms, Node(phone.0, node), Cluster(user.0))),
                _ => None,
            })
            .collect();
        let chosen = self.0.range(0..u64::try_from(logins.len()).unwrap());
        if self.one_in(2)
            && let Some((at_ms, visiting, home)) = logins.get(usize::try_from(chosen).unwrap())
        {
            let due_ms = settings.limit_minutes.filter(|_| self.one_in(2));
            let due_ms = due_ms.map_or(0, |minutes| minutes * 60_000);
            spot.at_ms = at_ms + due_ms + self.between(0, 400);
            spot.node = *visiting;
            if *home != visiting.cluster() {
                spot.away = Node(home.0, self.node_of(*home));
                if self.one_in(2) {
                    std::mem::swap(&mut spot.node, &mut spot.away);
                }
            } else if spot.away.cluster() == visiting.cluster() {
                spot.away = self.node_away(*visiting);
            }
        }
        spot.at_ms = spot.at_ms.min(troubled - 1_000);
        spot.rest = troubled - spot.at_ms;
        spot
    }

    fn how(&self) -> Cut {
        if self.one_in(2) {
            Cut::Held
        } else {
            Cut::Dropped
        }
    }

    fn fault(&self, kind: u8, spot: &Spot) -> What {
        let Spot {
            node, away, rest, ..
        } = *spot;
        let for_ms = self.between(200, 25_000).min(rest);
        let cluster = node.cluster();
        match kind {
            0 | 1 => What::Cut {
                from: node,
                to: away,
                how: self.how(),
                both: kind == 0,
                whole: self.one_in(2),
                for_ms,
            },
            2 => What::Kill { a: node, b: away },
            3 => What::Refuse { node, for_ms },
            4 => What::Latency {
                most_ms: self.between(50, 400),
                for_ms,
            },
            5 => What::Mischief {
                repeat: self.between(1, 4),
                delay: self.between(1, 6),
                for_ms,
            },
            6 | 7 => What::Crash {
                node,
                for_ms: self.between(100, 12_000).min(rest),
            },
            8 => What::Pause {
                node,
                for_ms: self.between(500, 20_000).min(rest),
            },
            9 => What::Clock {
                node,
                offset_ms: [-86_400_000, -60_000, 0, 60_000, 86_400_000]
                    [usize::from(self.below(5))],
            },
            10 => self.fallout(spot),
            _ => What::Restore {
                cluster,
                age_ms: self.between(3_000, 30_000).min(spot.at_ms),
                for_ms: self.between(200, 4_000).min(rest),
            },
        }
    }

    /// A disk that fails, or clusters that fall out.
    fn fallout(&self, spot: &Spot) -> What {
        let (at, peer) = (spot.node.cluster(), spot.away.cluster());
        let for_ms = self.between(200, 25_000).min(spot.rest);
        match self.below(4) {
            0 => What::Disk {
                cluster: at,
                trouble: [Trouble::Commits, Trouble::Full, Trouble::Busy]
                    [usize::from(self.below(3))],
                for_ms: for_ms.min(8_000),
            },
            1 => What::RemovePeer {
                at,
                peer,
                for_ms: (!self.one_in(3)).then_some(for_ms),
            },
            2 => What::DisablePeer { at, peer, for_ms },
            _ => What::RevokeTrust {
                at,
                peer,
                for_ms: (!self.one_in(3)).then_some(for_ms),
                only_removed: self.one_in(2),
            },
        }
    }
}

/// When and where something breaks.
struct Spot {
    at_ms: u64,
    node: Node,
    /// One of another cluster.
    away: Node,
    /// How long it may last.
    rest: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_each_time_and_another_seed_another() {
        assert_eq!(Plan::of(7), Plan::of(7));
        assert_ne!(Plan::of(7).steps, Plan::of(8).steps);
    }

    #[test]
    fn a_plan_comes_back_from_its_file() {
        for seed in 0..50 {
            let plan = Plan::of(seed);
            assert_eq!(Plan::from_json(&plan.to_json()), plan);
        }
    }

    fn is_against_itself(what: &What) -> bool {
        match what {
            What::RemovePeer { at, peer, .. }
            | What::DisablePeer { at, peer, .. }
            | What::RevokeTrust { at, peer, .. } => at == peer,
            What::Cut { from, to, .. } => from.cluster() == to.cluster(),
            What::Kill { a, b } => a.cluster() == b.cluster(),
            _ => false,
        }
    }

    #[test]
    fn all_kinds_of_faults_are_drawn_and_all_is_mended_in_time() {
        let mut seen = BTreeSet::new();
        for seed in 0..300 {
            let plan = Plan::of(seed);
            assert!(plan.steps.is_sorted_by_key(|step| step.at_ms));
            assert!(plan.steps.iter().filter(|step| step.what.is_work()).count() > 10);
            for step in &plan.steps {
                let text = serde_json::to_string(&step.what).unwrap();
                let kind = text.split('"').nth(1).unwrap().to_owned();
                let only_removed = text.contains("\"only_removed\":true");
                seen.insert((kind, only_removed));
                let (ends, troubled) = (
                    step.at_ms + step.what.length_ms().unwrap_or_default(),
                    plan.settings.troubled_ms,
                );
                assert!(ends <= troubled.max(WORK_MS) + 8_000, "{step:?}");
                assert!(!is_against_itself(&step.what), "{step:?}");
                assert!(step.what.is_work() || ends <= troubled, "{step:?}");
            }
        }
        // Trust is taken back in either way.
        assert_eq!(seen.len(), 20, "{seen:?}");
    }

    #[test]
    fn faults_hit_logins_and_ends_and_cut_whole_clusters_off() {
        let (mut at_logins, mut at_ends, mut whole) = (0, 0, 0);
        for seed in 0..300 {
            let plan = Plan::of(seed);
            let began: Vec<_> = plan
                .steps
                .iter()
                .filter(|step| matches!(step.what, What::Login { .. }))
                .map(|step| step.at_ms)
                .collect();
            let is_after = |at_ms: u64, later: u64| {
                began
                    .iter()
                    .any(|began| (began + later..=began + later + 400).contains(&at_ms))
            };
            for step in plan.steps.iter().filter(|step| !step.what.is_work()) {
                at_logins += usize::from(is_after(step.at_ms, 0));
                let is_limited = plan.settings.limit_minutes.is_some();
                at_ends += usize::from(is_limited && is_after(step.at_ms, 60_000));
                whole += usize::from(matches!(step.what, What::Cut { whole: true, .. }));
            }
        }
        assert!(
            at_logins > 500 && at_ends > 25 && whole > 300,
            "{at_logins} {at_ends} {whole}"
        );
    }

    #[test]
    fn names_lead_back() {
        for cluster in Cluster::all() {
            assert_eq!(Cluster::named(&cluster.to_string()), Some(cluster));
        }
        assert_eq!(User::named(&User(2, 3).to_string()), Some(User(2, 3)));
        assert_eq!(Phone::named(&Phone(1, 4).to_string()), Some(Phone(1, 4)));
        let hosts: BTreeSet<_> = Node::all().map(Node::host).collect();
        assert_eq!(hosts.len(), Node::all().count());
    }

    #[test]
    fn a_part_can_be_left_out() {
        let plan = Plan::of(1);
        let count = plan.steps.len();
        assert_eq!(plan.without(0, 3).steps, plan.steps[3..]);
        assert_eq!(plan.without(count - 1, 5).steps, plan.steps[..count - 1]);
    }
}
