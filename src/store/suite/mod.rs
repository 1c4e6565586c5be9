//! What every engine must do: tests as functions over a [`Store`], run by each engine's own tests.

mod announced;
mod asked;
mod debts;
mod records;
mod session_rows;
mod shared;
mod transactions;

use std::{
    collections::BTreeMap,
    sync::{Mutex, mpsc},
    time::Duration,
};

use futures_util::future::{join, join_all};

use crate::{
    clock::Timestamp,
    domain::{
        cluster_time::Reading,
        ids::{
            BaseDeviceName, ClusterId, DeviceName, DevicePoolName, LoginName, ProfileName, Ref,
            SessionId, UserId,
        },
        liveness::Incarnation,
        login::{CallManager, HomeServices, Line, LoginType, SecurityMode},
        session::{EndReason, Initiator, Role, State},
    },
    secret::Secret,
    store::{
        Error, Store, Transaction,
        announcements::{self, Announced, WaitingEntry},
        answers::{self, Answer},
        audit::{self, AuditReport, Entry, Fault, Key, Noted},
        base_devices, claims, cluster_time,
        credentials::{self, Phc},
        devices::{self, Device},
        hints, meta,
        parameters::{self, Setting},
        peers::{self, Peer},
        pools::{self, DevicePool},
        profiles::{self, Profile},
        sessions::{self, Debt, Filter, Session},
        trust_entries::{self, EntryKind, Source, TrustEntry},
        users::{self, User},
    },
};

pub(super) use self::{
    announced::*, asked::*, debts::*, records::*, session_rows::*, shared::*, transactions::*,
};

/// Runs each test of the suite on a database of its own that `$open` makes.
macro_rules! run_suite {
    ($engine:ident, $open:expr, [$($test:ident),+ $(,)?]) => {
        mod $engine {
            $(#[tokio::test]
            async fn $test() {
                let (store, _keep) = $open;
                $crate::store::suite::$test(&store).await;
            })+
        }
    };
}
pub(super) use run_suite;

/// The tests, for [`run_suite`].
macro_rules! each_engine_must {
    ($engine:ident, $open:expr) => {
        $crate::store::suite::run_suite!(
            $engine,
            $open,
            [
                a_base_device_is_held_by_one_active_session,
                base_devices_are_given_out_in_turn,
                a_certificate_goes_with_the_one_on_whose_word_it_was_taken,
                a_chain_cut_off_with_its_head_is_found,
                a_chain_that_another_node_has_seen_can_not_go_back,
                a_changed_missing_or_cut_off_audit_entry_is_found,
                a_failed_statement_undoes_itself_only,
                a_leaf_is_pinned_for_one_peer_only,
                a_panic_is_an_error_for_its_operation_only,
                a_phone_has_one_session_per_role,
                a_read_changes_nothing,
                a_look_up_is_a_read_also_where_many_come_at_once_and_ends_with_the_store,
                a_ticket_is_good_once_for_its_holder_until_it_is_old_or_another_pin_is_set,
                a_tombstone_ends_what_is_known_and_what_is_not,
                a_choice_is_that_of_the_phones_newest_page_until_it_is_old,
                announcements_are_kept_by_identity_until_they_are_forgotten,
                answers_stay_as_first_given,
                commits_are_announced,
                concurrent_increments_are_not_lost,
                each_run_of_a_node_tells_which_trust_it_has_in_force,
                ends_are_owed_in_order_until_acknowledged,
                hints_follow_the_last_success,
                names_differ_by_more_than_case,
                old_ends_and_their_answers_are_forgotten_and_nothing_else,
                only_overdue_pending_sessions_are_overdue,
                operations_that_wait_share_a_commit,
                parameters_move_their_number_only_when_they_change,
                records_come_back_as_written,
                sessions_are_listed_by_filter,
                setting_a_hash_forgets_failures,
                states_move_forward_only_from_where_they_are_expected,
                users_are_found_by_each_kind_of_name,
                what_is_shared_with_a_cluster_is_told_by_role_and_page_and_nothing_else,
                a_row_ends_as_told_once_and_never_while_a_login_is_under_way,
                what_is_refused_is_parked_until_it_is_tried_again_or_told_or_dropped,
                who_shares_sessions_and_of_whom_nothing_is_accepted_is_distrusted,
                what_fails_undoes_itself_and_not_its_neighbours,
            ]
        );
    };
}
pub(super) use each_engine_must;

pub(super) fn cluster(text: &str) -> ClusterId {
    ClusterId::new(text).unwrap()
}

pub(super) fn device_name(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

pub(super) fn session_id(n: u8) -> SessionId {
    SessionId::from_bytes(&[n; 16]).unwrap()
}

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn user_id(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

fn name(text: &str) -> LoginName {
    LoginName::new(text).unwrap()
}

fn base(text: &str) -> BaseDeviceName {
    BaseDeviceName::new(text).unwrap()
}

fn user(id: &str, extension: Option<&str>, self_service: Option<&str>) -> User {
    User {
        user_id: user_id(id),
        self_service_id: self_service.map(name),
        primary_extension: extension.map(name),
        display_name: format!("{id} the user"),
        enabled: true,
        emcc_enabled: false,
        policy: None,
    }
}

/// Puts cluster time on record; it goes on from there.
async fn set_cluster_time(store: &Store, now: Timestamp) {
    store
        .write(move |tx| cluster_time::put(tx, Reading::first(now)))
        .await
        .unwrap();
}

pub(super) fn session(role: Role, n: u8, device: &str, state: State) -> Session {
    Session {
        role,
        counterpart: cluster("berlin"),
        id: session_id(n),
        state,
        device: device_name(device),
        user_id: Some(user_id("Anna")),
        login_type: LoginType::Uid,
        login_name: name("anna"),
        profile: None,
        base_device: None,
        services: None,
        reference: Ref::from_bits(u64::from(n)),
        created_at: at(1_000 + i64::from(n)),
        deadline: None,
        changed_at: at(1_000 + i64::from(n)),
        ended_at: None,
        end_reason: None,
        initiator: None,
        owed: false,
        parked: None,
        parked_at: None,
    }
}

fn services() -> HomeServices {
    HomeServices {
        user_id: user_id("anna"),
        profile: ProfileName::new("Anna's profile").unwrap(),
        base_device: Some(base("EMCC001")),
        call_managers: vec![CallManager {
            host: "cm1".into(),
            priority: 0,
        }],
        tftp_servers: vec!["tftp1".into()],
        device_pool: None,
        lines: vec![],
        locale: Some("de_DE".into()),
        remaining: Some(Duration::from_secs(36_000)),
        reset: true,
        restart_reason: None,
        phone_services: Vec::new(),
    }
}

fn entry(n: i64) -> Entry {
    Entry {
        at: at(n),
        actor: "phone SEP1".into(),
        action: audit::Action::SessionLogin,
        subject: "anna".into(),
        outcome: "done".into(),
        reference: Some(Ref::from_bits(7)),
    }
}

/// Adds one to a number under `key`: a read and a write that belong together.
pub(super) fn increment(tx: &mut dyn Transaction, key: &str) -> Result<i64, Error> {
    let value = meta::get(tx, key)?.map_or(0, |text| text.parse().unwrap()) + 1;
    meta::put(tx, key, &value.to_string())?;
    Ok(value)
}

/// The right to forget what is old.
async fn to_forget(store: &Store) -> claims::Claim {
    let run = Incarnation {
        node: "n1".to_owned(),
        instance: "1".to_owned(),
    };
    store
        .write(move |tx| claims::take(tx, &claims::Task::retention(), None, &run, at(1)))
        .await
        .unwrap()
        .unwrap()
}

async fn put(store: &Store, row: Session) -> Result<(), Error> {
    store.write(move |tx| sessions::insert(tx, &row)).await
}

async fn fetch(store: &Store, role: Role, n: u8) -> Session {
    store
        .read(move |tx| sessions::get(tx, role, &cluster("berlin"), session_id(n)))
        .await
        .unwrap()
        .unwrap()
}
