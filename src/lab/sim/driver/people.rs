//! What users and operators do, each step at its time.

use super::{
    super::{
        model::Answer,
        plan::{PHONES, Step},
    },
    *,
};
use crate::{
    domain::{
        ids::{Ref, UserId},
        login::LoginType,
    },
    secret::Pin,
    store::{inline::Snapshot, peers, trust_entries},
    visiting::{Caller, LoginOutcome, PhoneLogin},
};

/// What a user takes for a reason to try again: no answer, nobody reached, somebody busy.
const TRY_AGAIN: [u16; 4] = [6, 26, 40, 208];

impl World {
    pub(super) async fn step(&self, step: Step) {
        let at = self.0.began + Duration::from_millis(step.at_ms);
        if let What::Restore {
            cluster, age_ms, ..
        } = step.what
        {
            sleep_until(at - Duration::from_millis(age_ms)).await;
            let before = self.disk(cluster).snapshot();
            sleep_until(at).await;
            let done = self.begin_of(&step.what);
            for node in cluster.nodes() {
                self.crash(node);
            }
            self.restore(cluster, &before);
            self.pass(&step.what).await;
            for node in cluster.nodes() {
                self.revive(node);
            }
            return self.end_of(done);
        }
        sleep_until(at).await;
        match step.what {
            What::Login {
                phone,
                node,
                user,
                right_pin,
                patience,
            } => self.log_in(phone, node, user, right_pin, patience).await,
            What::Logout { phone, node } => self.log_out(phone, node).await,
            what if what.is_work() => {
                let done = self.begin_of(&what);
                self.operate(done, &what).await;
                self.end_of(done);
            }
            what => {
                let done = self.begin_of(&what);
                self.disturb(&what).await;
                self.end_of(done);
            }
        }
    }

    /// What was done until then is looked at before it is forgotten.
    fn restore(&self, cluster: Cluster, before: &Snapshot) {
        let dumps = self.dumps();
        self.disk(cluster).restore(before);
        let dump = Dump::of(self.disk(cluster));
        let mut state = self.state();
        let State { checker, model, .. } = &mut *state;
        checker.changes(&dumps, model);
        checker.restored(cluster, &dump);
    }

    fn begin_of(&self, what: &What) -> usize {
        let now = self.now_ms();
        self.state().model.begin(what.clone(), now)
    }

    fn end_of(&self, done: usize) {
        let now = self.now_ms();
        self.state().model.end(done, now);
    }

    pub(super) async fn pass(&self, what: &What) {
        sleep(Duration::from_millis(what.length_ms().unwrap_or_default())).await;
    }

    pub(super) async fn log_in(
        &self,
        phone: Phone,
        node: u8,
        user: User,
        right_pin: bool,
        patience: u8,
    ) {
        let lots = self
            .0
            .chance
            .fork(&format!("{phone} {user} {}", self.now_ms()));
        for number in 0..=patience {
            // On the phone beside it every other time.
            let phone = Phone(phone.0, (phone.1 + number % 2) % PHONES);
            let told = self
                .try_log_in(phone, node, user, right_pin, number > 0)
                .await;
            if !matches!(told, Some(Told::Failed(code)) if TRY_AGAIN.contains(&code)) {
                return;
            }
            sleep(Duration::from_millis(lots.range(20..700))).await;
        }
    }

    async fn try_log_in(
        &self,
        phone: Phone,
        node: u8,
        user: User,
        right_pin: bool,
        is_again: bool,
    ) -> Option<Told> {
        let bare = self.running(Node(phone.0, node))?;
        let (reference, now) = (bare.visiting.new_ref(), self.now_ms());
        let before = is_again.then(|| self.dumps());
        let attempt = self
            .state()
            .model
            .login(reference, phone, user, right_pin, now);
        let told = tokio::select! {
            biased;
            () = bare.gone.cancelled() => return None,
            told = ask_in(&bare, phone, user, right_pin, reference) => told,
        };
        let is_elsewhere = told == Told::Failed(25);
        let (now, dumps) = (self.now_ms(), is_elsewhere.then(|| self.dumps()));
        let is_failed = matches!(told, Told::Failed(_));
        let there = is_failed.then(|| Dump::of(self.disk(Cluster(phone.0))));
        let mut state = self.state();
        let State { checker, model, .. } = &mut *state;
        model.told(attempt, told, now);
        let told = model.attempts[attempt].clone();
        if let Some(there) = &there {
            checker.ended_before_told(now, &told, there, model);
        }
        // What there was when it began tells of this login only where nobody else came with that name meanwhile.
        let is_alone = !model.attempts.iter().any(|other| {
            other.user == user
                && other.reference != reference
                && other.ended_ms.is_none_or(|ended| ended >= told.began_ms)
        });
        let before = before.filter(|_| is_elsewhere && is_alone);
        for dumps in before.iter().chain(&dumps) {
            checker.refused_elsewhere(now, &told, dumps, model);
        }
        Some(told.told)
    }

    async fn log_out(&self, phone: Phone, node: u8) {
        let Some(bare) = self.running(Node(phone.0, node)) else {
            return;
        };
        let (device, now) = (phone.to_string(), self.now_ms());
        let logout = self.state().model.logout(phone, now);
        let reference = bare.visiting.new_ref();
        let is_done = tokio::select! {
            biased;
            () = bare.gone.cancelled() => false,
            told = bare.visiting.logout(&device, caller(phone), reference) => told.is_ok(),
        };
        let now = self.now_ms();
        self.state().model.logged_out(logout, is_done, now);
    }

    /// What operators do, and take back after a time.
    async fn operate(&self, done: usize, what: &What) {
        let answer = self.ask_for(what).await;
        let now = self.now_ms();
        self.state().model.answered(done, answer, now);
        if what.length_ms().is_some() {
            self.pass(what).await;
            let now = self.now_ms();
            self.state().model.undoes(done, now);
            self.take_back(what).await;
        }
    }

    /// What operators do; what they were told.
    async fn ask_for(&self, what: &What) -> Answer {
        let is_done = |done: bool| if done { Answer::Done } else { Answer::Nothing };
        let told = match *what {
            What::EndAtVisiting { phone, node } => {
                let end = |bare: Arc<Bare>| async move {
                    match bare.end_at_visiting(&phone.to_string()).await {
                        Ok(true) => Answer::Done,
                        Ok(false) => Answer::Nobody,
                        Err(_) => Answer::Nothing,
                    }
                };
                self.at(Node(phone.0, node), end).await
            }
            What::EndAtHome { user, node } => {
                let end = |bare: Arc<Bare>| async move {
                    match bare.end_at_home(&user.to_string()).await {
                        Ok(0) => Answer::Nobody,
                        Ok(_) => Answer::Done,
                        Err(_) => Answer::Nothing,
                    }
                };
                self.at(Node(user.0, node), end).await
            }
            What::SetUser { user, enabled } => {
                let set = |bare: Arc<Bare>| async move {
                    is_done(bare.set_user(&user.to_string(), enabled).await.is_ok())
                };
                self.at(Node(user.0, 0), set).await
            }
            What::RemoveBase { base, .. } => {
                let remove = |bare: Arc<Bare>| async move {
                    is_done(bare.remove_base(&base.to_string()).await == Ok(true))
                };
                self.at(Node(base.0, 0), remove).await
            }
            What::RemovePeer { at, peer, .. } => {
                let remove = |bare: Arc<Bare>| async move {
                    is_done(bare.remove_peer(&peer.to_string()).await == Ok(true))
                };
                self.at(Node(at.0, 0), remove).await
            }
            What::DisablePeer { at, peer, .. } => {
                let disable =
                    |bare: Arc<Bare>| async move { is_done(enable(&bare, peer, false).await) };
                self.at(Node(at.0, 0), disable).await
            }
            What::RevokeTrust {
                at,
                peer,
                only_removed,
                ..
            } => {
                let revoke = |bare: Arc<Bare>| async move {
                    is_done(distrust(&bare, peer, only_removed).await)
                };
                self.at(Node(at.0, 0), revoke).await
            }
            _ => None,
        };
        told.unwrap_or(Answer::Nothing)
    }

    /// Does it until it is done.
    async fn take_back(&self, what: &What) {
        match *what {
            What::RemoveBase { base, .. } => {
                let add =
                    |bare: Arc<Bare>| async move { bare.add_base(&base.to_string()).await.is_ok() };
                self.insist(Node(base.0, 0), add).await;
            }
            What::RemovePeer { at, peer, .. } => {
                let settings = &self.0.plan.settings;
                let add = |bare: Arc<Bare>| async move { accept(&bare, peer, settings).await };
                self.insist(Node(at.0, 0), add).await;
            }
            What::DisablePeer { at, peer, .. } => {
                let again = |bare: Arc<Bare>| async move { enable(&bare, peer, true).await };
                self.insist(Node(at.0, 0), again).await;
            }
            What::RevokeTrust { at, peer, .. } => {
                let again = |bare: Arc<Bare>| async move { trust_again(&bare, peer).await };
                self.insist(Node(at.0, 0), again).await;
            }
            _ => {}
        }
    }

    /// Asks a node, if it runs; none when it does not, or dies over it.
    async fn at<T, F: Future<Output = T> + Send>(
        &self,
        node: Node,
        ask: impl FnOnce(Arc<Bare>) -> F + Send,
    ) -> Option<T> {
        let bare = self.running(node)?;
        let gone = bare.gone.clone();
        tokio::select! {
            biased;
            () = gone.cancelled() => None,
            done = ask(bare) => Some(done),
        }
    }

    /// Asks it until it is done.
    async fn insist<F: Future<Output = bool> + Send>(
        &self,
        node: Node,
        ask: impl Fn(Arc<Bare>) -> F + Send + Sync,
    ) {
        while self.at(node, &ask).await != Some(true) {
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Types name and PIN on a phone.
pub(super) async fn ask_in(
    bare: &Bare,
    phone: Phone,
    user: User,
    right_pin: bool,
    reference: Ref,
) -> Told {
    let request = PhoneLogin {
        device: phone.to_string(),
        login_type: LoginType::Uid,
        name: user.to_string(),
        pin: Some(Pin::new(if right_pin { stage::PIN } else { "99999" }.to_owned()).unwrap()),
        emcc: true,
        caller: caller(phone),
        reference,
    };
    match bare.visiting.login(request).await {
        Ok(LoginOutcome::LoggedIn(_)) => Told::In,
        Ok(LoginOutcome::Choose(_)) => Told::Choose,
        Err(failure) => Told::Failed(failure.code.number()),
    }
}

pub(super) fn named(user: &UserId) -> User {
    User::named(user.as_str()).unwrap()
}

pub(super) fn caller(phone: Phone) -> Caller {
    Caller {
        address: std::net::Ipv4Addr::new(10, 9, phone.0, phone.1).into(),
        via: false,
    }
}

async fn accept(bare: &Bare, peer: Cluster, settings: &Settings) -> bool {
    let (record, entry) = (stage::peer(peer, settings), stage::trusted(peer));
    let added = bare.change(move |tx| {
        peers::upsert(tx, &record)?;
        trust_entries::add(tx, &entry)?;
        Ok(())
    });
    added.await.is_ok()
}

async fn enable(bare: &Bare, peer: Cluster, enabled: bool) -> bool {
    let id = ClusterId::new(peer.to_string()).unwrap();
    let changed = bare.change(move |tx| {
        // One that was removed meanwhile stays so.
        match peers::get(tx, &id)? {
            Some(record) => peers::upsert(tx, &peers::Peer { enabled, ..record }),
            None => Ok(()),
        }
    });
    changed.await.is_ok()
}

pub(super) async fn distrust(bare: &Bare, peer: Cluster, only_removed: bool) -> bool {
    let (entry, now) = (stage::trusted(peer), bare.clock().now());
    let changed = bare.change(move |tx| {
        let (cluster, fingerprint) = (&entry.cluster_id, &entry.fingerprint);
        if only_removed {
            trust_entries::withdraw(tx, cluster, fingerprint)?;
        } else {
            trust_entries::revoke(tx, cluster, fingerprint, now)?;
        }
        Ok::<_, store::Error>(())
    });
    changed.await.is_ok()
}

pub(super) async fn trust_again(bare: &Bare, peer: Cluster) -> bool {
    let entry = stage::trusted(peer);
    let changed = bare.change(move |tx| {
        trust_entries::unrevoke(tx, &entry.cluster_id, &entry.fingerprint)?;
        if peers::get(tx, &entry.cluster_id)?.is_some() {
            trust_entries::add(tx, &entry)?;
        }
        Ok(())
    });
    changed.await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_taken_back_as_it_was_meant() {
        let plan = Plan::of(1);
        let beginning = stage::beginning();
        let (at, peer) = (Node(0, 0), Cluster(1));
        let entry = stage::trusted(peer);
        for only_removed in [false, true] {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let world = World::new(&plan, beginning);
                world.start(at);
                let starts = async {
                    loop {
                        if let Some(bare) = world.running(at) {
                            return bare;
                        }
                        sleep(AGAIN).await;
                    }
                };
                let started = tokio::time::timeout(Duration::from_secs(60), starts).await;
                let bare = started.expect("it never starts");
                assert!(distrust(&bare, peer, only_removed).await);
                let (cluster, fingerprint) = (&entry.cluster_id, &entry.fingerprint);
                let disk = world.disk(at.cluster());
                let left = disk.with(|tx| trust_entries::of(tx, cluster)).unwrap();
                assert_eq!(left, []);
                let is_revoked =
                    disk.with(|tx| trust_entries::is_revoked(tx, cluster, fingerprint));
                assert_eq!(is_revoked.unwrap(), !only_removed);
                world.crash(at);
                world.0.tasks.abort_all();
            });
            runtime.shutdown_background();
        }
    }
}
