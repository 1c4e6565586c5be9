//! Sessions against a model: whatever is done in whatever order, the store does what a list of rows would.

use proptest::prelude::*;

use crate::{
    domain::{
        ids::{SessionId, UserId},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        Error, Transaction,
        sessions::{self, Filter, Session},
        suite::{at, cluster, session, session_id},
    },
};

#[derive(Clone, Debug)]
enum Step {
    Insert(Role, u8, u8, State),
    Activate(u8),
    Move(Role, u8, Vec<State>, State),
    Bury(Role, u8),
    Acknowledge(Role, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let role = || prop_oneof![Just(Role::Home), Just(Role::Visiting)];
    let state = || {
        prop_oneof![
            Just(State::Pending),
            Just(State::Active),
            Just(State::Ending),
            Just(State::Ended)
        ]
    };
    let step = prop_oneof![
        (role(), 0..4u8, 0..3u8, state()).prop_map(|(r, n, d, s)| Step::Insert(r, n, d, s)),
        (0..4u8).prop_map(Step::Activate),
        (
            role(),
            0..4u8,
            prop::collection::vec(state(), 0..3),
            state()
        )
            .prop_map(|(r, n, from, to)| Step::Move(r, n, from, to)),
        (role(), 0..4u8).prop_map(|(r, n)| Step::Bury(r, n)),
        (role(), 0..4u8).prop_map(|(r, n)| Step::Acknowledge(r, n)),
    ];
    prop::collection::vec(step, 1..40)
}

/// What the store should hold, and whether a step should be done.
#[derive(Default)]
struct Model(Vec<Session>);

impl Model {
    fn find(&mut self, role: Role, id: SessionId) -> Option<&mut Session> {
        self.0.iter_mut().find(|s| s.role == role && s.id == id)
    }

    fn is_occupied(&self, role: Role, except: SessionId, device: &Session) -> bool {
        self.0.iter().any(|s| {
            s.role == role
                && s.id != except
                && s.device == device.device
                && matches!(s.state, State::Pending | State::Active)
        })
    }

    /// `None` when the store must refuse the step.
    fn take(&mut self, step: &Step) -> Option<bool> {
        match step {
            Step::Insert(role, n, device, state) => {
                let row = session(*role, *n, &format!("SEP{device}"), *state);
                let occupies = matches!(state, State::Pending | State::Active);
                let refused = (*role == Role::Home
                    && matches!(state, State::Pending | State::Ending))
                    || self.find(*role, row.id).is_some()
                    || (occupies && self.is_occupied(*role, row.id, &row));
                if refused {
                    return None;
                }
                self.0.push(row);
                Some(true)
            }
            Step::Activate(n) => Some(
                self.find(Role::Visiting, session_id(*n))
                    .filter(|s| s.state == State::Pending)
                    .map(|s| {
                        s.state = State::Active;
                        s.user_id = Some(UserId::new("ben").unwrap());
                    })
                    .is_some(),
            ),
            Step::Move(role, n, from, to) => {
                let before = self.find(*role, session_id(*n))?.clone();
                if !from.contains(&before.state) || before.state >= *to {
                    return Some(false);
                }
                if *role == Role::Home && *to == State::Ending {
                    return None;
                }
                let row = self.find(*role, session_id(*n))?;
                row.state = *to;
                row.owed = true;
                if *to >= State::Ending {
                    row.end_reason = Some(EndReason::User);
                }
                Some(true)
            }
            Step::Bury(role, n) => {
                let id = session_id(*n);
                if let Some(row) = self.find(*role, id) {
                    let ended = row.state != State::Ended;
                    if ended {
                        row.state = State::Ended;
                        row.end_reason = Some(EndReason::Superseded);
                        row.owed = false;
                    }
                    return Some(ended);
                }
                let mut row = session(*role, *n, "-", State::Ended);
                row.user_id = None;
                row.end_reason = Some(EndReason::Superseded);
                self.0.push(row);
                Some(true)
            }
            Step::Acknowledge(role, n) => Some(
                self.find(*role, session_id(*n))
                    .filter(|s| s.owed)
                    .map(|s| s.owed = false)
                    .is_some(),
            ),
        }
    }

    /// What a comparison looks at.
    fn facts(rows: &[Session]) -> Vec<impl Ord + std::fmt::Debug + use<>> {
        let mut facts: Vec<_> = rows
            .iter()
            .map(|s| {
                let user = s.user_id.clone();
                let device = s.device.clone();
                (s.role, s.id, s.state, device, s.owed, user, s.end_reason)
            })
            .collect();
        facts.sort_unstable();
        facts
    }
}

fn take(tx: &mut dyn Transaction, step: &Step) -> Result<bool, Error> {
    let berlin = cluster("berlin");
    match step {
        Step::Insert(role, n, device, state) => {
            let row = session(*role, *n, &format!("SEP{device}"), *state);
            sessions::insert(tx, &row).map(|()| true)
        }
        Step::Activate(n) => sessions::activate(
            tx,
            Role::Visiting,
            &berlin,
            session_id(*n),
            &UserId::new("ben").unwrap(),
            None,
            &services(),
        ),
        Step::Move(role, n, from, to) => {
            let end =
                (*to >= State::Ending).then_some((EndReason::User, Initiator::Visiting, at(1)));
            let id = session_id(*n);
            sessions::transition(tx, *role, &berlin, id, from, *to, end, true)
        }
        Step::Bury(role, n) => sessions::tombstone(
            tx,
            *role,
            &berlin,
            session_id(*n),
            EndReason::Superseded,
            Initiator::Home,
            at(2),
        ),
        Step::Acknowledge(role, n) => sessions::acknowledge(tx, *role, &berlin, session_id(*n)),
    }
}

fn services() -> crate::domain::login::HomeServices {
    serde_json::from_value(serde_json::json!({
        "user_id": "ben", "profile": "p", "call_managers": [], "tftp_servers": [], "lines": [],
        "reset": false,
    }))
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_does_what_a_list_of_rows_would(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = super::open_in_memory();
        let mut model = Model::default();
        for step in steps {
            let mut before = model.0.clone();
            let expected = model.take(&step);
            let done = {
                let step = step.clone();
                runtime.block_on(store.write(move |tx| take(tx, &step)))
            };
            match expected {
                Some(expected) => prop_assert_eq!(done.unwrap(), expected, "{:?}", step),
                // A row that isn't there is no error, only not moved.
                None => prop_assert!(!done.unwrap_or(false), "{:?}", step),
            }
            let rows = runtime
                .block_on(store.read(|tx| sessions::list(tx, &Filter::default())))
                .unwrap();
            prop_assert_eq!(Model::facts(&rows), Model::facts(&model.0), "{:?}", step);
            before.retain(|old| rows.iter().any(|new| {
                new.role == old.role && new.id == old.id && new.state < old.state
            }));
            prop_assert!(before.is_empty(), "went backwards: {:?}", before);
        }
    }
}
