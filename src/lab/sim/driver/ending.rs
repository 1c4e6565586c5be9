//! What is looked at when a run is over.

use std::fmt::Write as _;

use super::{
    super::{
        checker::Shown,
        plan::{NODES, PHONES, USERS},
    },
    people::{ask_in, caller, named},
    *,
};
use crate::{store::base_devices, visiting::PhoneState};

/// No base device is free.
const NO_BASE: u16 = 33;
/// The database did not answer, the login was not carried out in time, home was silent.
const STORE: u16 = 6;
const BUSY: u16 = 26;
const SILENT: u16 = 40;

impl World {
    pub(super) async fn finish(self) -> Outcome {
        let (phones, unanswered) = self.pages().await;
        let (dumps, at_ms, calls) = (self.dumps(), self.now_ms(), self.0.tap.calls());
        // Whatever they come to, they are no part of what was looked at.
        let shut_out = self.last_logins(&dumps).await;
        let mut state = self.state();
        let checker = std::mem::replace(&mut state.checker, Checker::new(&self.0.plan));
        let model = state.model.clone();
        let left = state.steps;
        drop(state);
        // Their doors hold the nodes, which hold the network: none of it would ever be let go.
        Node::all().for_each(|node| self.crash(node));
        self.0.tasks.abort_all();
        assert_eq!(left, 0, "steps are still under way at the end");
        let mut log = String::new();
        write!(log, "{} {model:?} {calls:?} {dumps:?}", self.0.net.trace()).unwrap();
        let is_told = |wanted: fn(&Told) -> bool| {
            let all = model.attempts.iter();
            all.filter(|attempt| wanted(&attempt.told)).count()
        };
        let (mut wrong, judged) = checker.finish(at_ms, &dumps, &model, &phones, &calls);
        wrong.extend(shut_out);
        wrong.extend(unanswered);
        Outcome {
            wrong,
            trace: Chance::seeded(0).fork(&log).u64(),
            told: [
                is_told(|told| *told == Told::In),
                is_told(|told| matches!(told, Told::Failed(_))),
                is_told(|told| *told == Told::Nothing),
            ],
            judged,
        }
    }

    /// What each phone shows, asked of each node of its cluster; and what does not answer though all is well.
    async fn pages(&self) -> (Vec<(Phone, Shown)>, Vec<Wrong>) {
        let (mut phones, mut wrong) = (Vec::new(), Vec::new());
        let at_ms = self.now_ms();
        let mut fails = |what| {
            let rule = "after";
            wrong.push(Wrong { rule, at_ms, what });
        };
        for node in Node::all() {
            let Some(bare) = self.running(node) else {
                fails(format!("{node} does not run"));
                continue;
            };
            for n in 0..PHONES {
                let phone = Phone(node.0, n);
                match bare.visiting.phone_state(&phone.to_string()).await {
                    Ok(state) => phones.push((phone, shown(&state))),
                    Err(failure) => fails(format!("{node} has no page for {phone}: {failure:?}")),
                }
            }
        }
        (phones, wrong)
    }

    /// Whether users can log in once all is well, on phones that nobody has touched: between every two clusters that
    /// know and trust each other one goes in, and out again.
    async fn last_logins(&self, dumps: &Dumps) -> Vec<Wrong> {
        let regards = |one: Cluster, other: Cluster| {
            let regard = dumps[usize::from(one.0)].peers.get(&other);
            regard.is_some_and(|regard| regard.enabled && regard.trusted)
        };
        // Without patterns of names all who may be home must be there to be asked.
        let has_all = |visiting: Cluster| {
            self.0.plan.settings.patterns
                || dumps[usize::from(visiting.0)]
                    .peers
                    .iter()
                    .all(|(other, regard)| {
                        !regard.enabled || (regards(visiting, *other) && regards(*other, visiting))
                    })
        };
        let mut wrong = Vec::new();
        for home in Cluster::all() {
            for visiting in Cluster::all() {
                let is_linked = home == visiting
                    || (regards(home, visiting) && regards(visiting, home) && has_all(visiting));
                // Each of its nodes has its turn.
                let node = Node(visiting.0, home.0 % NODES[usize::from(visiting.0)]);
                let Some(bare) = self.running(node) else {
                    continue;
                };
                let user = User(home.0, USERS + visiting.0);
                let phone = Phone(visiting.0, PHONES + home.0);
                if !is_linked {
                    continue;
                }
                let is_full = self.disk(home).with(|tx| {
                    let all = base_devices::list(tx).unwrap();
                    all.iter().all(|(_, holder)| holder.is_some())
                });
                let mut told = ask_in(&bare, phone, user, true, bare.visiting.new_ref()).await;
                // Also a disk that is well stands still now and then, and two may in a row: who tries again at once gets
                // in, whatever the first attempt left behind.
                if matches!(told, Told::Failed(STORE | BUSY | SILENT)) {
                    told = ask_in(&bare, phone, user, true, bare.visiting.new_ref()).await;
                }
                let is_full = home != visiting && is_full;
                let out = match told {
                    Told::In => {
                        let (device, reference) = (phone.to_string(), bare.visiting.new_ref());
                        let out = bare.visiting.logout(&device, caller(phone), reference);
                        let failure = out.await.err();
                        failure.map(|failure| format!("out: {failure:?}"))
                    }
                    Told::Failed(NO_BASE) if is_full => None,
                    told => Some(format!("in: {told:?}")),
                };
                wrong.extend(out.map(|out| Wrong {
                    rule: "after",
                    at_ms: self.now_ms(),
                    what: format!("{user} could not log {out} on {phone} when all was well"),
                }));
            }
        }
        wrong
    }
}

fn shown(state: &PhoneState) -> Shown {
    match state {
        PhoneState::Nobody => Shown::Nobody,
        PhoneState::Busy => Shown::Busy,
        PhoneState::LoggedIn { user, .. } => Shown::In(named(user)),
    }
}
