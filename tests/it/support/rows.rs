//! What a cluster's database holds, read beside its nodes or while they are down.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use emccd::{
    domain::{
        ids::{ClusterId, SessionId},
        session::{Role, State},
    },
    lab::Cluster,
    store::{
        self, Store, Transaction,
        audit::{self, Recorded},
        base_devices,
        sessions::{self, Filter, Session},
    },
};

use super::{holds, until};

/// One state of a cluster's database.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) sessions: Vec<Session>,
    pub(crate) audit: Vec<Recorded>,
    pool: Vec<(String, Option<SessionId>)>,
    own: ClusterId,
}

/// Reads a cluster's database, and checks that its audit is whole.
pub(crate) async fn rows(cluster: &Cluster) -> Rows {
    let file = cluster.member().unwrap().folder.join("../emccd.db");
    let config = store::Config {
        url: format!("sqlite:{}", file.display()),
        node: "reader".to_owned(),
    };
    let store = tokio::task::spawn_blocking(move || Store::open(&config))
        .await
        .unwrap()
        .unwrap();
    let read = |tx: &mut dyn Transaction| {
        let sessions = sessions::list(
            tx,
            &Filter {
                limit: Some(100_000),
                ..Filter::default()
            },
        )?;
        let pool = base_devices::list(tx)?
            .into_iter()
            .map(|(name, holder)| (name.to_string(), holder))
            .collect();
        Ok::<_, store::Error>((sessions, pool, audit::list(tx, 100_000)?))
    };
    let (sessions, pool, audit) = store.read(read).await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(
        report.is_intact(),
        "the audit of {}: {report:?}",
        cluster.id
    );
    tokio::task::spawn_blocking(move || store.close())
        .await
        .unwrap();
    Rows {
        sessions,
        audit,
        pool,
        own: cluster.id.clone(),
    }
}

impl Rows {
    /// One session per phone and role; each base device with one active session of another cluster's phone, and
    /// each such session with a base device.
    pub(crate) fn hold_invariants(&self) {
        let mut phones = BTreeMap::new();
        for session in self
            .sessions
            .iter()
            .filter(|s| matches!(s.state, State::Pending | State::Active))
        {
            let phone = (session.role, session.device.as_str().to_ascii_lowercase());
            let other = phones.insert(phone, session);
            assert!(
                other.is_none(),
                "two sessions on one phone: {other:?} and {session:?}"
            );
        }
        let mut held = BTreeMap::new();
        for session in self
            .active(Role::Home)
            .filter(|s| s.counterpart != self.own)
        {
            let base = session
                .base_device
                .as_ref()
                .unwrap_or_else(|| panic!("no base device: {session:?}"));
            let other = held.insert(base.to_string(), session.id);
            assert!(
                other.is_none(),
                "two sessions hold {base}: {other:?} and {session:?}"
            );
        }
        let pool: BTreeMap<_, _> = self
            .pool
            .iter()
            .filter_map(|(name, id)| Some((name.clone(), (*id)?)))
            .collect();
        assert_eq!(pool, held, "base devices and active sessions");
    }

    /// Users of this cluster with more than one session: nobody, where a second login is refused or ends the first.
    pub(crate) fn users_in_twice(&self) -> Vec<String> {
        let mut sessions = BTreeMap::<_, Vec<_>>::new();
        for session in self.active(Role::Home) {
            let user = session.user_id.as_ref().map(ToString::to_string);
            let user = user.unwrap_or_default().to_ascii_lowercase();
            sessions.entry(user).or_default().push(session);
        }
        let twice = sessions.into_iter().filter(|(_, all)| all.len() > 1);
        twice
            .map(|(user, all)| format!("{user} has several sessions: {all:?}"))
            .collect()
    }

    fn active(&self, role: Role) -> impl Iterator<Item = &Session> {
        self.sessions
            .iter()
            .filter(move |s| s.role == role && s.state == State::Active)
    }

    /// The row of a session.
    pub(crate) fn session(&self, role: Role, id: SessionId) -> Option<&Session> {
        self.sessions.iter().find(|s| s.role == role && s.id == id)
    }

    /// How many base devices are held.
    pub(crate) fn held(&self) -> usize {
        self.pool
            .iter()
            .filter(|(_, holder)| holder.is_some())
            .count()
    }

    /// Nothing is undecided, and nobody is owed anything.
    fn is_quiet(&self) -> bool {
        self.sessions
            .iter()
            .all(|s| s.state != State::Pending && !s.owed)
    }

    /// The active sessions with `other` in one role: what both sides must agree on.
    fn shared(&self, role: Role, other: &ClusterId) -> BTreeSet<Shared> {
        self.active(role)
            .filter(|s| s.counterpart == *other)
            .map(|s| Shared {
                id: s.id.to_string(),
                device: s.device.to_string(),
                user: s
                    .user_id
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                base_device: s.base_device.as_ref().map(ToString::to_string),
            })
            .collect()
    }
}

/// An active session as both sides know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shared {
    pub(crate) id: String,
    pub(crate) device: String,
    pub(crate) user: String,
    pub(crate) base_device: Option<String>,
}

/// Two heartbeats, the login deadline and 30 s, as the design has it; rounded up.
const AGREE_LIMIT: Duration = Duration::from_secs(36);

/// Waits until both sides hold the same active sessions, nothing is pending and nothing owed; the invariants
/// hold at every look on the way.
pub(crate) async fn settled(home: &Cluster, visiting: &Cluster) -> BTreeSet<Shared> {
    let what = format!("{} and {} agree", home.id, visiting.id);
    until(AGREE_LIMIT, what, async || {
        let (at_home, at_visiting) = (rows(home).await, rows(visiting).await);
        at_home.hold_invariants();
        at_visiting.hold_invariants();
        let theirs = at_home.shared(Role::Home, &visiting.id);
        let ours = at_visiting.shared(Role::Visiting, &home.id);
        let is_so = theirs == ours && at_home.is_quiet() && at_visiting.is_quiet();
        let all = (&theirs, &ours, &at_home.sessions, &at_visiting.sessions);
        holds(is_so, all).map(|()| ours.clone())
    })
    .await
}

/// Changes a cluster's database behind the back of its nodes.
pub(crate) async fn tamper(cluster: &Cluster, sql: &'static str) {
    let file = cluster
        .member()
        .unwrap()
        .config
        .parent()
        .unwrap()
        .join("../emccd.db");
    let done = tokio::task::spawn_blocking(move || {
        let database = rusqlite::Connection::open(file).unwrap();
        database
            .busy_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        database.execute_batch(sql).unwrap();
    });
    done.await.unwrap();
}
