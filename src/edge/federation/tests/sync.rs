//! Exchanges on sessions over real sockets, against fake roles: what is told, and what is refused.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tonic::{Code, Request, Status};

use super::rig::{FakeRoles, Node, PATIENCE, Shown, channel, linked, pair};
use crate::{
    clock,
    domain::{
        agreement::{Digests, IDS_AT_ONCE, Theirs},
        em_code::EmCode,
        ids::SessionId,
        session::{EndReason, Role},
        version::Version,
    },
    edge::federation::MAX_SYNCS_PER_PEER,
    peer::sync::{Dialogue, Error},
    trust::fixtures::cluster,
    wire::{
        federation::Asked,
        pb::{self, federation_service_client::FederationServiceClient},
    },
};

fn id(n: u16) -> SessionId {
    let [high, low] = n.to_be_bytes();
    let mut bytes = [7; 16];
    (bytes[0], bytes[15]) = (high, low);
    SessionId::from_bytes(&bytes).unwrap()
}

/// What berlin has of sessions with tokyo, as home and as visiting.
fn shared(roles: &FakeRoles, role: Role, rows: impl IntoIterator<Item = (u16, Theirs)>) {
    let mut shared = roles.shared.lock().unwrap();
    let of = shared.entry((cluster("tokyo"), role)).or_default();
    of.extend(rows.into_iter().map(|(n, theirs)| (id(n), theirs)));
}

async fn all_living(dialogue: &mut impl Dialogue, role: Role) -> Vec<SessionId> {
    let mut all = Vec::new();
    while let Some(ids) = dialogue.living(role).await.unwrap() {
        all.extend(ids);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_told_what_differs_and_how_it_stands() {
    let (tokyo, berlin) = pair().await;
    let most = u16::try_from(IDS_AT_ONCE).unwrap();
    // More than one page; all in buckets where tokyo has none.
    shared(
        &berlin.roles,
        Role::Visiting,
        (0..2 * most + 1).map(|n| (n, Theirs::Living)),
    );
    shared(
        &berlin.roles,
        Role::Home,
        [(1, Theirs::Living), (2, Theirs::Ended(EndReason::User))],
    );
    tokyo.until_up().await;
    assert_eq!(tokyo.peers.can_sync(&berlin.id), Some(true));
    let mut ours = Digests::default();
    ours.visiting.add(id(1));
    let deadline = clock::instant() + PATIENCE;
    let begun = tokyo.peers.exchange(&berlin.id, &ours, deadline).await;
    let (mut exchange, theirs) = begun.unwrap();
    // Roles are those of who asks.
    assert_eq!(
        (theirs.home.total(), theirs.visiting.total()),
        (u64::from(2 * most + 1), 1)
    );
    let living = all_living(&mut exchange, Role::Home).await;
    assert_eq!(living.len(), usize::from(2 * most + 1));
    assert!(living.is_sorted());
    assert_eq!(
        all_living(&mut exchange, Role::Visiting).await,
        [],
        "they are the same"
    );
    let asked = exchange
        .ask(Role::Visiting, vec![id(1), id(2), id(3)])
        .await;
    let expected = [
        Theirs::Living,
        Theirs::Ended(EndReason::User),
        Theirs::Lacks,
    ];
    assert_eq!(asked.unwrap(), expected);
    exchange.settled(Role::Visiting, vec![id(2)]).await.unwrap();
    exchange.finish().await.unwrap();
    assert_eq!(*berlin.roles.settled.lock().unwrap(), [(Role::Home, id(2))]);
    let seen = berlin.roles.last.lock().unwrap().clone().unwrap();
    assert_eq!(seen.caller, tokyo.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_1_0_is_not_asked_and_refuses() {
    let tokyo = Node::new("tokyo").await;
    let berlin = Node::speaking("berlin", Version::V1_0, Version::V1_0).await;
    let (tokyo, berlin) = linked(tokyo, berlin).await;
    tokyo.until_up().await;
    assert_eq!(tokyo.peers.can_sync(&berlin.id), Some(false));
    let deadline = clock::instant() + PATIENCE;
    let refused = tokyo
        .peers
        .exchange(&berlin.id, &Digests::default(), deadline)
        .await;
    assert!(matches!(refused.unwrap_err(), Error::Unable));
    let refused = told(&tokyo, &berlin, vec![begin()]).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
}

fn begin() -> pb::SyncSessionsRequest {
    pb::SyncSessionsRequest::from(&Asked::Begin(Box::default()))
}

fn query(ids: Vec<Vec<u8>>, role: i32) -> pb::SyncSessionsRequest {
    let ids = pb::SessionIds {
        role,
        ids,
        last: false,
    };
    pb::SyncSessionsRequest {
        step: Some(pb::sync_sessions_request::Step::Query(ids)),
    }
}

/// What berlin answers to these steps.
async fn told(
    from: &Node,
    to: &Node,
    steps: Vec<pb::SyncSessionsRequest>,
) -> Result<Vec<pb::SyncSessionsResponse>, Status> {
    let mut client = FederationServiceClient::new(channel(from, to, Shown::Own).await);
    let answers = client
        .sync_sessions(Request::new(stream::iter(steps)))
        .await?;
    let answers: Vec<_> = answers.into_inner().collect().await;
    answers.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_order_or_a_bound_is_refused() {
    let (tokyo, berlin) = pair().await;
    let good = || vec![id(1).as_bytes().to_vec()];
    let answers = told(&tokyo, &berlin, vec![begin(), query(good(), 1)])
        .await
        .unwrap();
    assert_eq!(answers.len(), 4, "begin, twice what lives, and the answers");
    let many = |n: u16| {
        (0..n)
            .map(|n| id(n).as_bytes().to_vec())
            .collect::<Vec<_>>()
    };
    let most = u16::try_from(IDS_AT_ONCE).unwrap();
    let refused = [
        vec![query(good(), 1)],
        vec![begin(), begin()],
        vec![],
        vec![pb::SyncSessionsRequest { step: None }],
        vec![begin(), query(good(), 0)],
        vec![begin(), query(good(), 3)],
        vec![begin(), query(Vec::new(), 1)],
        vec![begin(), query(many(most + 1), 1)],
        vec![begin(), query(many(2).into_iter().rev().collect(), 1)],
        vec![begin(), query(vec![vec![7; 15]], 1)],
    ];
    for (nth, steps) in refused.into_iter().enumerate() {
        let status = told(&tokyo, &berlin, steps).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{nth}: {status}");
        assert!(
            status.message().contains("can't be taken"),
            "{nth}: {status}"
        );
    }
    assert_eq!(*berlin.roles.settled.lock().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_refuses_reaches_who_asks() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    *berlin.roles.refuses.lock().unwrap() = Some(EmCode::DatabaseError);
    let deadline = clock::instant() + PATIENCE;
    let begun = tokyo
        .peers
        .exchange(&berlin.id, &Digests::default(), deadline)
        .await;
    let Error::Failed(cause) = begun.unwrap_err() else {
        panic!("it failed otherwise")
    };
    assert!(cause.contains("as the test wants it"), "{cause}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_has_so_many_places_and_its_calls_have_theirs() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    let mut begun = Vec::new();
    for _ in 0..MAX_SYNCS_PER_PEER {
        let deadline = clock::instant() + PATIENCE;
        let exchange = tokyo
            .peers
            .exchange(&berlin.id, &Digests::default(), deadline)
            .await;
        begun.push(exchange.unwrap());
    }
    let more = |within: Duration| {
        let (peers, id) = (tokyo.peers.clone(), berlin.id.clone());
        async move {
            let deadline = clock::instant() + within;
            peers.exchange(&id, &Digests::default(), deadline).await
        }
    };
    let Error::Failed(cause) = more(PATIENCE).await.unwrap_err() else {
        panic!("it failed otherwise")
    };
    assert!(cause.contains("exchanges on sessions"), "{cause}");
    // A place is free when the caller is gone, without a word; berlin sees that at once.
    begun.clear();
    let end = clock::instant() + PATIENCE;
    while let Err(error) = more(PATIENCE).await {
        assert!(clock::instant() < end, "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_exchange_ends_at_its_deadline() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    berlin
        .roles
        .hangs
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let deadline = clock::instant() + Duration::from_millis(200);
    let begun = tokyo
        .peers
        .exchange(&berlin.id, &Digests::default(), deadline)
        .await;
    assert!(matches!(begun.unwrap_err(), Error::Late | Error::Failed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_reaches_the_peer_at_once_and_each_one_does() {
    use crate::domain::federation::Links as _;
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    berlin.until_up().await;
    for rings in 1..=3u64 {
        berlin.peers.ring(&tokyo.id);
        let heard = |_: &crate::peer::LinkStatus| tokyo.peers.rung(&berlin.id) == rings;
        tokyo.until("rung", heard).await;
    }
    assert_eq!(berlin.peers.rung(&tokyo.id), 0);
    // Nobody is told of what is not theirs.
    berlin.peers.ring(&cluster("lima"));
    assert_eq!(berlin.peers.undelivered(&cluster("lima")), 0);
}

/// A caller shows whose sessions it asks for by its certificate, and by nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_told_of_its_own_sessions_and_of_no_others() {
    let (tokyo, berlin) = pair().await;
    let lima = (cluster("lima"), Role::Home);
    let rows = [(id(1), Theirs::Living)].into();
    berlin.roles.shared.lock().unwrap().insert(lima, rows);
    tokyo.until_up().await;
    let deadline = clock::instant() + PATIENCE;
    let begun = tokyo
        .peers
        .exchange(&berlin.id, &Digests::default(), deadline)
        .await;
    let (mut exchange, theirs) = begun.unwrap();
    assert_eq!(theirs.total(), 0);
    for role in [Role::Home, Role::Visiting] {
        assert_eq!(all_living(&mut exchange, role).await, []);
    }
    let asked = exchange.ask(Role::Visiting, vec![id(1)]).await.unwrap();
    assert_eq!(asked, [Theirs::Lacks]);
}
