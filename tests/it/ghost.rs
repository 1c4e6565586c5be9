//! The answer to a login is lost on its way: home has a session, and the phone was shown a failure. The user who tries
//! again at once gets in, from wherever, although users may be on one phone only.

use std::time::Duration;

use emccd::{
    domain::session::{Role, State},
    lab::{
        Lab, Spec,
        between::{Between, Way},
        phone::Shown,
        proxy::Flow,
    },
};

use crate::support::{
    log_in_at,
    rows::{Rows, rows, settled},
};

const HOME: usize = 0;
const VISITING: usize = 1;

/// The user of all attempts, and the phone of those that are cut off.
const USER: usize = 0;
const PHONE: usize = 0;
/// Another phone of the same cluster.
const OTHER: usize = 1;
/// A phone of home's own: there the policy is all that counts.
const AT_HOME: usize = 2;

/// Longer than a link takes to be known for dead: nothing can be told any more when the phone is shown the failure.
const DEADLINE: Duration = Duration::from_secs(3);

struct Scene {
    lab: Lab,
    between: Between,
}

impl Scene {
    async fn set() -> Self {
        let lab = Lab::start(&Spec {
            nodes: 2,
            paired: false,
            settings: vec![(
                "login".to_owned(),
                format!("deadline = \"{}ms\"", DEADLINE.as_millis()),
            )],
            ..Spec::default()
        })
        .await
        .unwrap();
        let between = Between::pair(&lab.clusters[HOME], &lab.clusters[VISITING])
            .await
            .unwrap();
        Self { lab, between }
    }

    async fn log_in(&self, node: usize, phone: usize) -> Shown {
        let user = self.lab.clusters[HOME].data.user(USER).unwrap();
        let visiting = &self.lab.clusters[VISITING];
        let device = &visiting.data.phone(phone).unwrap().name;
        let browser = visiting.members[node].phone().unwrap();
        browser
            .login_at_once(device, None, &user.user_id, &user.pin)
            .await
            .unwrap()
    }

    async fn must_log_in(&self, node: usize, phone: usize, when: &str) {
        let shown = self.log_in(node, phone).await;
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    async fn must_log_out(&self, node: usize, phone: usize, when: &str) {
        let visiting = &self.lab.clusters[VISITING];
        let device = &visiting.data.phone(phone).unwrap().name;
        let browser = visiting.members[node].phone().unwrap();
        let shown = browser.logout(device).await.unwrap();
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    async fn linked(&self) {
        for (us, them) in [(HOME, VISITING), (VISITING, HOME)] {
            let (us, them) = (&self.lab.clusters[us], &self.lab.clusters[them].id);
            us.wait_linked(them).await.unwrap();
            us.wait_all_up(them).await.unwrap();
        }
    }

    async fn at(&self, cluster: usize) -> Rows {
        let rows = rows(&self.lab.clusters[cluster]).await;
        rows.hold_invariants();
        rows
    }

    /// A login whose answer does not come back: a failure is shown, and home has the session.
    async fn lose_the_answer(&self, flow: Flow, when: &str) {
        self.between.cut(Way::There, flow);
        let shown = self.log_in(0, PHONE).await;
        assert!(
            matches!(shown.em_code, Some(40 | 208)),
            "{when}: {}",
            shown.text
        );
        let (at_home, at_visiting) = (self.at(HOME).await, self.at(VISITING).await);
        let ghosts: Vec<_> = at_home
            .sessions
            .iter()
            .filter(|s| s.role == Role::Home && s.state == State::Active)
            .collect();
        assert_eq!(ghosts.len(), 1, "{when}: {ghosts:?}");
        let ours = at_visiting.session(Role::Visiting, ghosts[0].id);
        let ours = ours.unwrap_or_else(|| panic!("{when}: no row of {:?}", ghosts[0]));
        assert!(
            ours.state == State::Ended && ours.owed,
            "{when}: ended before it was shown, and home is owed the news: {ours:?}"
        );
        // Whoever does not know of the ghost meets it.
        let home = &self.lab.clusters[HOME];
        let shown = log_in_at(home, USER, home, AT_HOME).await;
        assert_eq!(shown.em_code, Some(25), "{when}: {}", shown.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_answer_was_lost_gets_in_at_once_wherever_they_try_again() {
    let scene = Scene::set().await;
    // From now on the phone's cluster knows whose the user is, and need not ask: what is lost is the answer to the login.
    scene.must_log_in(0, PHONE, "before").await;
    scene.must_log_out(0, PHONE, "before").await;
    for (what, flow, node, phone) in [
        ("the same phone", Flow::Held, 0, PHONE),
        ("another phone", Flow::Lost, 0, OTHER),
        ("the same phone at the other node", Flow::Lost, 1, PHONE),
        ("another phone at the other node", Flow::Held, 1, OTHER),
    ] {
        let when = format!("{what}, {flow:?}");
        scene.lose_the_answer(flow, &when).await;
        scene.between.heal();
        scene.must_log_in(node, phone, &when).await;

        let (home, visiting) = (&scene.lab.clusters[HOME], &scene.lab.clusters[VISITING]);
        let shared = settled(home, visiting).await;
        let device = &visiting.data.phone(phone).unwrap().name;
        assert!(
            shared.len() == 1 && shared.iter().all(|s| s.device == *device),
            "{when}: {shared:?}"
        );
        assert_eq!(scene.at(HOME).await.held(), 1, "{when}: base devices");
        scene.must_log_out(node, phone, &when).await;
        scene.linked().await;
    }
    scene.lab.shut_down().await;
}
