//! Passes between two stores, with the other side's answers read from its store, or lost.

use std::ops::Range;

use super::{
    pass::Start,
    sync::{self, Dialogue},
    *,
};
use crate::{
    domain::{
        agreement::{Buckets, Digests, OLD_ENOUGH, Theirs as Standing},
        capability::Traits,
        ids::{DeviceName, LoginName, Ref, SessionId},
        login::{LoginType, SecurityMode},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        agreements::Agreement as Record,
        debts,
        peers::Peer,
        sessions::{self, Session},
    },
    trust::{TrustStore, fixtures::Spec},
};

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn id(n: u16) -> SessionId {
    let [high, low] = n.to_be_bytes();
    let mut bytes = [7; 16];
    (bytes[0], bytes[15]) = (high, low);
    SessionId::from_bytes(&bytes).unwrap()
}

/// One cluster, and the other one as it knows it.
struct Side {
    us: ClusterId,
    them: ClusterId,
    agreement: Agreement,
    claim: Claim,
}

impl Drop for Side {
    fn drop(&mut self) {
        self.agreement.tasks.cancel();
    }
}

impl Side {
    async fn new(us: &str, them: &str) -> Self {
        let store = Store::open(&store::Config {
            url: "sqlite::memory:".to_owned(),
            node: format!("{us}-1"),
        })
        .unwrap();
        let (us, them) = (cluster(us), cluster(them));
        let (tasks, clock) = (Tasks::default(), Clock::system());
        let membership = Membership::alone(&store, &tasks).await;
        let leaf = Spec::new("node").self_signed();
        let trust = TrustStore::new(Some(leaf.identity()), clock.clone());
        let config = super::super::Config::new(us.clone(), "n1");
        let record = Peer {
            cluster_id: them.clone(),
            enabled: true,
            allow_emcc: true,
            addresses: vec!["127.0.0.1:1".to_owned()],
            node_names: Vec::new(),
            user_patterns: Vec::new(),
            dn_patterns: Vec::new(),
            ignore_eku: false,
            accept_announcements: crate::domain::announcement::Acceptance::default(),
            description: String::new(),
        };
        store
            .write(move |tx: &mut dyn Transaction| store::peers::upsert(tx, &record))
            .await
            .unwrap();
        let claim = membership.held(&Task::agreement(&them)).await;
        Self {
            agreement: Agreement {
                peers: Peers::new(config, trust, clock.clone(), tasks.clone()),
                store,
                membership,
                clock,
                chance: Chance::seeded(1),
                tasks,
            },
            us,
            them,
            claim,
        }
    }

    async fn do_with<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Transaction) -> Result<T, store::Error> + Send + 'static,
    ) -> T {
        self.agreement.store.write(work).await.unwrap()
    }

    /// Puts sessions with the other side, or with another cluster, on record.
    async fn opens(&self, role: Role, with: &ClusterId, ids: Range<u16>, state: State) {
        let with = with.clone();
        self.do_with(move |tx| {
            let now = tx.cluster_now()?;
            for n in ids.clone() {
                sessions::insert(tx, &session(role, &with, n, state, now))?;
            }
            Ok(())
        })
        .await;
    }

    /// Makes all rows older than any exchange need wait.
    async fn ages(&self) {
        let by = i64::try_from(OLD_ENOUGH.as_millis()).unwrap();
        self.do_with(move |tx| {
            tx.execute(
                "UPDATE sessions SET changed_at = changed_at - $1",
                &[by.into()],
            )
        })
        .await;
    }

    async fn ends(&self, role: Role, n: u16, reason: EndReason, owed: bool) {
        let them = self.them.clone();
        let ended = self
            .do_with(move |tx| {
                let end = Some((reason, Initiator::Home, Timestamp::from_millis(5)));
                let from = [State::Pending, State::Active];
                sessions::transition(tx, role, &them, id(n), &from, State::Ended, end, owed)
            })
            .await;
        assert!(ended);
    }

    async fn loses(&self, n: u16) {
        self.do_with(move |tx| tx.execute("DELETE FROM sessions WHERE id = $1", &[id(n).into()]))
            .await;
    }

    async fn row(&self, role: Role, n: u16) -> Option<Session> {
        let them = self.them.clone();
        self.do_with(move |tx| sessions::get(tx, role, &them, id(n)))
            .await
    }

    async fn record(&self) -> Record {
        let them = self.them.clone();
        self.do_with(move |tx| agreements::get(tx, &them)).await
    }

    /// What is told of as held back.
    async fn counted_as_held(&self) -> Vec<(ClusterId, u32)> {
        let us = self.us.clone();
        let counts = self.do_with(move |tx| store::counts::living(tx, &us)).await;
        counts.held_back
    }

    async fn held_longer(&self, by_ms: i64) {
        self.do_with(move |tx| {
            let sql = "UPDATE agreements SET held_since = held_since - $1";
            tx.execute(sql, &[by_ms.into()])
        })
        .await;
    }

    async fn living(&self, role: Role) -> Vec<SessionId> {
        let them = self.them.clone();
        let rows = self
            .do_with(move |tx| shared::living_page(tx, role, &them, None, shared::PAGE))
            .await;
        rows.into_iter().map(|ours| ours.id).collect()
    }

    /// A pass that asks the other side.
    async fn asks(&self, other: &Self) -> Result<Passed, Failed> {
        self.asks_through(Between::new(other, &self.us)).await
    }

    async fn asks_through(&self, between: Between<'_>) -> Result<Passed, Failed> {
        let start = self.agreement.start(&self.them).await?;
        self.goes_on(start, between).await
    }

    async fn goes_on(&self, start: Start, mut between: Between<'_>) -> Result<Passed, Failed> {
        let theirs = between.begin(&start.digests).await;
        self.agreement
            .pass(&self.them, &self.claim, start, &theirs, between)
            .await
    }
}

fn session(role: Role, with: &ClusterId, n: u16, state: State, now: Timestamp) -> Session {
    Session {
        role,
        counterpart: with.clone(),
        id: id(n),
        state,
        device: DeviceName::new(format!("SEP{}{n}", with.as_str())).unwrap(),
        user_id: None,
        login_type: LoginType::Uid,
        login_name: LoginName::new("ana").unwrap(),
        profile: None,
        base_device: None,
        services: None,
        reference: Ref::from_bits(u64::from(n)),
        created_at: now,
        changed_at: now,
        deadline: None,
        ended_at: None,
        end_reason: None,
        initiator: None,
        owed: false,
        parked: None,
        parked_at: None,
    }
}

/// The other side's store, as the wire would tell of it.
struct Between<'a> {
    them: &'a Side,
    us: ClusterId,
    buckets: BTreeMap<Role, (Buckets, Option<SessionId>, bool)>,
    /// Breaks when the first settled is told.
    breaks: bool,
    /// How many ids were asked for.
    asked: Option<&'a std::sync::atomic::AtomicUsize>,
}

impl<'a> Between<'a> {
    fn new(them: &'a Side, us: &ClusterId) -> Self {
        Self {
            them,
            us: us.clone(),
            buckets: BTreeMap::new(),
            breaks: false,
            asked: None,
        }
    }

    async fn begin(&mut self, ours: &Digests) -> Digests {
        let us = self.us.clone();
        let theirs = self
            .them
            .do_with(move |tx| shared::digests(tx, &us))
            .await
            .turned();
        for role in [Role::Home, Role::Visiting] {
            let differing = theirs.of(role).differing(ours.of(role));
            self.buckets.insert(role, (differing, None, false));
        }
        theirs
    }
}

impl Dialogue for Between<'_> {
    async fn living(&mut self, role: Role) -> Result<Option<Vec<SessionId>>, sync::Error> {
        let (buckets, after, is_over) = self.buckets.get_mut(&role).unwrap();
        if *is_over {
            return Ok(None);
        }
        let (us, of, behind) = (self.us.clone(), buckets.clone(), *after);
        let (ids, more) = self
            .them
            .do_with(move |tx| shared::living_in(tx, role.other(), &us, &of, behind, 3))
            .await;
        (*after, *is_over) = (ids.last().copied().or(*after), !more);
        Ok(Some(ids))
    }

    async fn ask(&mut self, role: Role, ids: Vec<SessionId>) -> Result<Vec<Standing>, sync::Error> {
        if let Some(asked) = self.asked {
            asked.fetch_add(ids.len(), std::sync::atomic::Ordering::SeqCst);
        }
        let us = self.us.clone();
        let standing =
            move |tx: &mut dyn Transaction| shared::standing_of(tx, role.other(), &us, &ids);
        Ok(self.them.do_with(standing).await)
    }

    async fn settled(&mut self, role: Role, ids: Vec<SessionId>) -> Result<(), sync::Error> {
        if self.breaks {
            return Err(sync::Error::Late);
        }
        let us = self.us.clone();
        self.them
            .do_with(move |tx| {
                for id in &ids {
                    sessions::acknowledge(tx, role.other(), &us, *id)?;
                }
                Ok(())
            })
            .await;
        Ok(())
    }

    async fn finish(self) -> Result<(), sync::Error> {
        Ok(())
    }
}

async fn two() -> (Side, Side) {
    let sides = (
        Side::new("tokyo", "berlin").await,
        Side::new("berlin", "tokyo").await,
    );
    let (tokyo, berlin) = &sides;
    // Users of tokyo on phones of berlin, and the other way round.
    tokyo
        .opens(Role::Home, &tokyo.them, 0..40, State::Active)
        .await;
    berlin
        .opens(Role::Visiting, &berlin.them, 0..40, State::Active)
        .await;
    tokyo
        .opens(Role::Visiting, &tokyo.them, 100..110, State::Active)
        .await;
    berlin
        .opens(Role::Home, &berlin.them, 100..110, State::Active)
        .await;
    sides
}

fn passed(ended: u64, young: u64) -> Passed {
    Passed {
        ended,
        young,
        held: None,
    }
}

#[tokio::test]
async fn who_agrees_changes_nothing_and_says_so() {
    let (tokyo, berlin) = two().await;
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), Passed::default());
    let record = tokyo.record().await;
    assert!(
        record.agreed_at.is_some() && record.agreed_at == record.passed_at,
        "{record:?}"
    );
    // It is not written down again at once.
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), Passed::default());
    assert_eq!(tokyo.record().await, record);
}

#[tokio::test]
async fn what_has_ended_there_ends_here_for_its_reason_and_is_no_longer_owed() {
    let (tokyo, berlin) = two().await;
    tokyo.ends(Role::Home, 3, EndReason::Expired, true).await;
    tokyo.ends(Role::Visiting, 104, EndReason::User, true).await;
    // Young as they are: what is told to have ended has ended.
    assert_eq!(berlin.asks(&tokyo).await.unwrap(), passed(2, 0));
    // They were on their way: a busy day has some in each pass, and the two agree all the same.
    let record = berlin.record().await;
    assert!(
        record.agreed_at.is_some() && record.agreed_at == record.passed_at,
        "{record:?}"
    );
    let row = berlin.row(Role::Visiting, 3).await.unwrap();
    let facts = (row.state, row.end_reason, row.initiator, row.owed);
    assert_eq!(
        facts,
        (
            State::Ended,
            Some(EndReason::Expired),
            Some(Initiator::Home),
            false
        )
    );
    let row = berlin.row(Role::Home, 104).await.unwrap();
    let facts = (row.state, row.end_reason, row.initiator, row.owed);
    assert_eq!(
        facts,
        (
            State::Ended,
            Some(EndReason::User),
            Some(Initiator::Visiting),
            false
        )
    );
    assert!(!tokyo.row(Role::Home, 3).await.unwrap().owed);
    assert!(!tokyo.row(Role::Visiting, 104).await.unwrap().owed);
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), Passed::default());
    assert_eq!(berlin.asks(&tokyo).await.unwrap(), Passed::default());
}

/// What was refused and set aside, and what an operator has given up: the other side comes and asks.
#[tokio::test]
async fn an_end_that_was_refused_is_paid_and_one_that_was_dropped_is_found_by_comparing() {
    let (tokyo, berlin) = two().await;
    for (role, n) in [(Role::Home, 3), (Role::Visiting, 104)] {
        tokyo.ends(role, n, EndReason::User, true).await;
    }
    let them = tokyo.them.clone();
    tokyo
        .do_with(move |tx| {
            let at = Timestamp::from_millis(6);
            assert!(debts::park(tx, Role::Home, &them, id(3), "no", at)?);
            assert!(debts::forget(tx, Role::Visiting, &them, id(104))?);
            Ok(())
        })
        .await;
    assert_eq!(berlin.asks(&tokyo).await.unwrap(), passed(2, 0));
    for (role, n) in [(Role::Visiting, 3), (Role::Home, 104)] {
        let row = berlin.row(role, n).await.unwrap();
        assert_eq!(
            (row.state, row.end_reason, row.owed),
            (State::Ended, Some(EndReason::User), false)
        );
        let row = tokyo.row(role.other(), n).await.unwrap();
        assert_eq!((row.owed, row.parked, row.parked_at), (false, None, None));
    }
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), Passed::default());
}

#[tokio::test]
async fn what_the_other_side_has_lost_ends_when_it_is_old_enough_and_not_before() {
    let (tokyo, berlin) = two().await;
    berlin.loses(7).await;
    berlin.loses(107).await;
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), passed(0, 2));
    assert_eq!(tokyo.record().await.agreed_at, None);
    tokyo.ages().await;
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), passed(2, 0));
    assert_eq!(tokyo.record().await.agreed_at, None, "that was a loss");
    for (role, n) in [(Role::Home, 7), (Role::Visiting, 107)] {
        let row = tokyo.row(role, n).await.unwrap();
        assert_eq!(row.end_reason, Some(EndReason::Abandoned));
        assert!(!row.owed, "nobody there knows of it");
    }
    // The side that lost them has nothing to mend, and nothing came back.
    berlin.ages().await;
    assert_eq!(berlin.asks(&tokyo).await.unwrap(), Passed::default());
    assert_eq!(
        berlin.living(Role::Visiting).await,
        tokyo.living(Role::Home).await
    );
    assert_eq!(
        berlin.living(Role::Home).await,
        tokyo.living(Role::Visiting).await
    );
}

#[tokio::test]
async fn a_login_under_way_is_left_to_its_carrier() {
    let (tokyo, berlin) = two().await;
    berlin
        .opens(Role::Visiting, &berlin.them, 200..203, State::Pending)
        .await;
    tokyo
        .opens(Role::Home, &tokyo.them, 200..201, State::Active)
        .await;
    tokyo
        .opens(Role::Home, &tokyo.them, 201..202, State::Active)
        .await;
    tokyo.ends(Role::Home, 201, EndReason::Operator, true).await;
    tokyo.ages().await;
    berlin.ages().await;
    // Home has it, has ended it, never heard of it.
    assert_eq!(berlin.asks(&tokyo).await.unwrap(), Passed::default());
    // And to home a pending row is one that lives.
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), Passed::default());
    for n in 200..203 {
        assert_eq!(
            berlin.row(Role::Visiting, n).await.unwrap().state,
            State::Pending
        );
    }
    assert!(tokyo.row(Role::Home, 201).await.unwrap().owed);
}

#[tokio::test]
async fn only_rows_whose_counterpart_is_that_peer_are_looked_at() {
    let (tokyo, berlin) = two().await;
    let lima = cluster("lima");
    tokyo
        .opens(Role::Home, &lima, 300..310, State::Active)
        .await;
    // Berlin knows of an end by the same id, and of sessions with lima that tokyo is none of.
    berlin
        .opens(Role::Visiting, &lima, 7..8, State::Ended)
        .await;
    berlin.loses(8).await;
    berlin
        .opens(Role::Visiting, &lima, 8..9, State::Active)
        .await;
    tokyo.ages().await;
    assert_eq!(
        tokyo.asks(&berlin).await.unwrap(),
        passed(1, 0),
        "8 lives there with lima, and not with us"
    );
    let with_lima = tokyo
        .do_with(move |tx| shared::living_page(tx, Role::Home, &lima, None, shared::PAGE))
        .await;
    assert_eq!(with_lima.len(), 10);
}

#[tokio::test]
async fn only_what_differs_is_asked_for() {
    let (tokyo, berlin) = two().await;
    tokyo.ends(Role::Home, 3, EndReason::User, true).await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let between = Between {
        asked: Some(&asked),
        ..Between::new(&tokyo, &berlin.us)
    };
    assert_eq!(berlin.asks_through(between).await.unwrap(), passed(1, 0));
    assert_eq!(asked.into_inner(), 1);
}

#[tokio::test]
async fn a_word_that_is_lost_leaves_the_debt_and_no_doubt() {
    let (tokyo, berlin) = two().await;
    tokyo.ends(Role::Home, 3, EndReason::User, true).await;
    let between = Between {
        breaks: true,
        ..Between::new(&tokyo, &berlin.us)
    };
    assert!(berlin.asks_through(between).await.is_err());
    assert_eq!(
        berlin.row(Role::Visiting, 3).await.unwrap().state,
        State::Ended
    );
    assert!(
        tokyo.row(Role::Home, 3).await.unwrap().owed,
        "the outbox tells it"
    );
    assert_eq!(berlin.asks(&tokyo).await.unwrap(), Passed::default());
}

#[tokio::test]
async fn a_row_that_moved_meanwhile_is_not_touched() {
    let (tokyo, berlin) = two().await;
    tokyo.ages().await;
    berlin.loses(7).await;
    let start = tokyo.agreement.start(&tokyo.them).await.unwrap();
    // It ends here for another reason while the exchange is under way.
    tokyo.ends(Role::Home, 7, EndReason::Operator, true).await;
    let between = Between::new(&berlin, &tokyo.us);
    assert_eq!(
        tokyo.goes_on(start, between).await.unwrap(),
        Passed::default()
    );
    let row = tokyo.row(Role::Home, 7).await.unwrap();
    assert_eq!(
        (row.end_reason, row.owed),
        (Some(EndReason::Operator), true)
    );
}

#[tokio::test]
async fn a_mass_end_is_held_back_for_30_seconds_and_then_takes_place() {
    let (tokyo, berlin) = two().await;
    tokyo
        .opens(Role::Home, &tokyo.them, 1_000..1_100, State::Active)
        .await;
    tokyo.ages().await;
    let held = tokyo.asks(&berlin).await.unwrap();
    let until = held.held.expect("held back");
    assert_eq!(held.ended, 0);
    let record = tokyo.record().await;
    assert_eq!(record.held_ends, 100);
    assert_eq!(
        record.held_since,
        Some(until.minus(crate::domain::agreement::HOLD))
    );
    assert_eq!(tokyo.living(Role::Home).await.len(), 140);
    // Whoever looks before its time, also after a take-over, holds on, to the same moment.
    assert_eq!(tokyo.asks(&berlin).await.unwrap().held, Some(until));
    assert_eq!(tokyo.record().await, record);
    assert_eq!(tokyo.counted_as_held().await, [(tokyo.them.clone(), 100)]);
    // Where the link is lost meanwhile, that is told for as long as a pass would go by it.
    tokyo.held_longer(600_000).await;
    assert_eq!(tokyo.counted_as_held().await, []);
    tokyo.held_longer(-600_000).await;
    tokyo.held_longer(30_000).await;
    assert_eq!(tokyo.asks(&berlin).await.unwrap(), passed(100, 0));
    assert_eq!(
        tokyo.living(Role::Home).await,
        berlin.living(Role::Visiting).await
    );
    let record = tokyo.record().await;
    assert_eq!((record.held_since, record.held_ends), (None, 0));
}

#[tokio::test]
async fn who_lost_the_claim_ends_nothing() {
    let (tokyo, berlin) = two().await;
    berlin.loses(7).await;
    tokyo.ages().await;
    tokyo
        .do_with(|tx| tx.execute("UPDATE claims SET generation = generation + 1", &[]))
        .await;
    let lost = tokyo.asks(&berlin).await.unwrap_err();
    assert!(
        matches!(lost, Failed::Store(store::Error::ClaimLost { .. })),
        "{lost}"
    );
    assert_eq!(tokyo.row(Role::Home, 7).await.unwrap().state, State::Active);
}

#[tokio::test]
async fn what_is_on_record_goes_with_the_peers_record() {
    let (tokyo, berlin) = two().await;
    tokyo.asks(&berlin).await.unwrap();
    let them = tokyo.them.clone();
    let all = tokyo
        .do_with(move |tx| {
            assert_eq!(agreements::all(tx)?.len(), 1);
            store::peers::remove(tx, &them)?;
            // A pass that was under way leaves nothing behind.
            agreements::put(tx, &them, &Record::default())?;
            agreements::all(tx)
        })
        .await;
    assert_eq!(all, []);
}

#[test]
fn a_node_of_1_0_tells_no_sync_sessions() {
    let (old, new) = (
        crate::domain::version::Version::V1_0,
        crate::domain::version::Version::CURRENT,
    );
    assert!(!Traits::of(SecurityMode::NonSecure, old).sync_sessions);
    assert!(Traits::of(SecurityMode::NonSecure, new).sync_sessions);
}
