//! What breaks inside: a home that fails without a reason of ours, a database that can't be used. The phone says
//! which, nothing is left behind, and both work again when the cause is gone.

use emccd::{
    domain::session::{Role, State},
    lab::{Lab, member::Versions, phone::Shown},
    wire::admin as pb,
};
use tonic::{Code, Status};

use crate::support::{
    lab, living, log_in, log_out,
    raw_home::RawHome,
    rows::{rows, tamper},
};

const HOME: usize = 0;
const VISITING: usize = 1;

/// A login from visiting, and the logout: everything is as it should be.
async fn works(lab: &Lab) {
    let shown = log_in(lab, HOME, 0, VISITING, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    assert_eq!(living(lab, HOME).await.len(), 1);
    let shown = log_out(&lab.clusters[VISITING], 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
}

/// The phone says what the code says, with advice and a ref; the ref is in the log with the cause.
fn tells(shown: &Shown, code: u16) {
    assert_eq!(shown.em_code, Some(code), "{}", shown.body);
    assert!(shown.reference.is_some(), "{}", shown.body);
    assert!(
        shown
            .text
            .contains(&format!("Login is unavailable({code})")),
        "{}",
        shown.text
    );
}

#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn a_home_that_fails_without_a_reason_of_ours_is_0_and_is_told_to_forget_the_session()
 {
    let mut lab = lab(2).await;
    works(&lab).await;
    lab.clusters[HOME].member_mut().unwrap().stop().await;
    // Of these none may be read as an answer about the user or the PIN.
    let reasons = [
        Code::Internal,
        Code::DataLoss,
        Code::NotFound,
        Code::Aborted,
        Code::OutOfRange,
        Code::FailedPrecondition,
        Code::AlreadyExists,
    ];
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut raw = RawHome::start(&lab.clusters[HOME], &lab.clusters[VISITING], move || {
        let turn = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Status::new(reasons[turn % reasons.len()], "the disk is\u{7} on fire")
    })
    .await;
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let is_up = |peer: &pb::PeerStatus| peer.outbound.as_ref().is_some_and(|o| o.state == "up");
    visiting.wait_status(&home.id, "up", is_up).await.unwrap();

    for (number, code) in reasons.into_iter().enumerate() {
        let shown = log_in(&lab, HOME, 0, VISITING, 0).await;
        tells(&shown, 0);
        assert_eq!(raw.logins(), number + 1, "{code:?}: asked once, not again");
        let told = raw.wait_ended(number + 1).await;
        assert_eq!(told.len(), number + 1, "{code:?}");
    }
    let after = rows(visiting).await;
    after.hold_invariants();
    assert!(living(&lab, VISITING).await.is_empty());
    let told = raw.wait_ended(reasons.len()).await;
    for id in told {
        let id = uuid::Uuid::from_slice(&id).unwrap();
        let id = emccd::domain::ids::SessionId::from_uuid(id);
        let row = after.session(Role::Visiting, id).expect("a row of ours");
        assert!(
            !matches!(row.state, State::Pending | State::Active),
            "{row:?}"
        );
    }

    // A reason that belongs to another question is no answer to this one either, and the real home is back at once.
    raw.stop().await;
    let member = lab.clusters[HOME].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    lab.clusters[VISITING]
        .wait_linked(&lab.clusters[HOME].id)
        .await
        .unwrap();
    works(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn a_database_that_cannot_be_used_is_6_on_the_phone_and_nothing_is_left_behind() {
    let lab = lab(2).await;
    works(&lab).await;
    // At home: the PIN can't be looked up, and the answer says so instead of "wrong PIN".
    tamper(
        &lab.clusters[HOME],
        "ALTER TABLE credentials RENAME TO away",
    )
    .await;
    tells(&log_in(&lab, HOME, 0, VISITING, 0).await, 6);
    tells(&log_in(&lab, HOME, 0, HOME, 0).await, 6);
    tamper(
        &lab.clusters[HOME],
        "ALTER TABLE away RENAME TO credentials",
    )
    .await;
    works(&lab).await;

    // At home: the hash is damaged.
    tamper(
        &lab.clusters[HOME],
        "ALTER TABLE credentials ADD COLUMN kept TEXT; UPDATE credentials SET kept = phc, phc = 'nonsense'",
    )
    .await;
    tells(&log_in(&lab, HOME, 0, VISITING, 0).await, 6);
    tamper(
        &lab.clusters[HOME],
        "UPDATE credentials SET phc = kept; ALTER TABLE credentials DROP COLUMN kept",
    )
    .await;
    works(&lab).await;

    // At visiting: no session can be kept there, so none is opened at home.
    tamper(
        &lab.clusters[VISITING],
        "ALTER TABLE sessions RENAME TO away",
    )
    .await;
    tells(&log_in(&lab, HOME, 0, VISITING, 0).await, 6);
    assert!(living(&lab, HOME).await.is_empty());
    tamper(
        &lab.clusters[VISITING],
        "ALTER TABLE away RENAME TO sessions",
    )
    .await;
    works(&lab).await;
    for cluster in &lab.clusters {
        rows(cluster).await.hold_invariants();
    }
    lab.shut_down().await;
}
